# SPDX-License-Identifier: Apache-2.0
"""Split policies of a GPU that is here: by the simulated one in this process, and by device cuda over its look-alike of
the driver, in processes of their own, which load that."""

import os
import subprocess
import sys
import time

import pytest
from kvq import lowlevel
from kvq.tune import winners
from kvq.tune.capability import parse_machine
from kvq.tune.database import Database
from kvq.tune.kernel_requests import Shape
from kvq.tune.measure import CASES
from kvq.tune.problem import Conditions, Problem
from kvq.tune.rows import OK, Entry, Key
from kvq.tune.split_policy import ACCELERATOR, exactly, split_request
from kvq.tune.split_runner import SplitRunner
from kvq.tune.splits import problem_of
from sim_env import BUILD

DRIVER = BUILD / "runtime/ptxsim/driver"
TARGET = "nvptx:sm_80"
SHAPE = Shape(4, 1, 32, 32, "f16")
REQUEST = split_request("kvq-4", SHAPE, TARGET)
MODEL = ["q_heads=4,kv_heads=1,d=32", "kvq-4", "--device", "cuda", "--cache", "warm"]
MADE = """
import sys
from kvq import lowlevel
context = lowlevel.Context("cuda", store_dir=sys.argv[1])
cache = lowlevel.Cache(context, "kvq-4", layers=1, q_heads=4, kv_heads=1, dk=32, dv=32, dtype="float16", blocks=1)
print(cache.split_policy)
"""


def over_the_look_alike(*command):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(DRIVER)}
    return subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True,
                          timeout=300)  # fmt: skip


def made_on_cuda(store):
    """The policy of a cache that is made now."""
    ran = over_the_look_alike("-c", MADE, store)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def runner():
    return SplitRunner("ptxsim", TARGET, store="")


@pytest.mark.parametrize(("format", "dtype", "window"), [("kvq-4", "f16", 0), ("kivi-2", "bf16", 0), ("kvq-4", "f32", 300)])
def test_steps_on_a_gpu_are_checked_against_the_reference_and_timed(runner, format, dtype, window):
    text = split_request(format, Shape(8, 2, 64, 64, dtype, window), TARGET)
    problem = Problem(text, TARGET, Conditions("warm", 300, 2, 2, 1, window))
    assert runner.default == str(ACCELERATOR) and runner.space(problem).schedules == (runner.default,)
    for policy in (runner.default, str(exactly(64))):
        for case in CASES:
            found = runner.check(problem, policy, case)
            assert 0 <= found.error <= found.allowed < 1, (policy, case.name)
    work = runner.workload(problem, 2)
    assert all(work.run(policy, [0, 1]) > 0 for policy in (runner.default, str(exactly(64))))
    work.close()


def test_the_work_of_the_stream_is_in_the_time(runner):
    class Slow:
        def synchronize(self):
            time.sleep(0.2)
            context.synchronize()

    work = runner.workload(Problem(REQUEST, TARGET, Conditions("warm", 100, 1, 1, 1, 0)), 1)
    work.run(runner.default, [0])
    context, work.context = work.context, Slow()
    assert work.run(runner.default, [0]) >= 0.2


def test_what_is_resident_is_a_property_of_device_and_kernel(runner):
    """Of 108 multiprocessors each has room for 16 blocks of 128 threads, or for as many as have shared memory in it; a
    program is a block of four warps. The simulator counts no registers."""
    conditions = Conditions("warm", 100, 1, 1, 1, 0)
    blocks, left = divmod(runner.resident(Problem(REQUEST, TARGET, conditions)), 108)
    assert left == 0 and 8 <= blocks <= 16
    level = lowlevel.shared_context().level
    host = SplitRunner("cpu", level, store="")
    assert host.resident(Problem(split_request("kvq-4", SHAPE, level), level, conditions)) == 0


def test_a_gpu_has_one_number_of_threads_and_larger_batches():
    found = problem_of(REQUEST, TARGET).conditions
    assert {each.threads for each in found} == {1} and {each.batch for each in found} == {1, 16}


def test_a_policy_is_tuned_over_the_driver_and_chosen(tmp_path):
    database, store = tmp_path / "tuning.db", tmp_path / "store"
    command = ["-m", "kvq", "tune", "splits", *MODEL, "--contexts", "256,1k", "--batches", "1,2", "--db", database,
               "--store", store]  # fmt: skip
    ran = over_the_look_alike(*command)
    assert ran.returncode == 0 and "1 tuned; 1 chosen" in ran.stdout, ran.stdout + ran.stderr
    with Database(database, readonly=True) as opened:
        (entry,), trials, (machine,) = opened.entries(), opened.trials(), opened.machines().values()
    assert entry.key.request == REQUEST and not entry.predicted and entry.status == OK and entry.seconds > 0
    assert entry.key.conditions == "warm:tokens1024:batch2:heads1:threads1:window0"
    assert machine.target == TARGET and machine.vector["kind"] == "accelerator"
    assert all(trial.status == OK and len(trial.samples) >= 8 for trial in trials)
    assert "prices: step " in ran.stderr and ", wake 0 us, " in ran.stderr
    assert made_on_cuda(store) == entry.schedule
    again = over_the_look_alike(*command)
    assert "already tuned: 1 split policies" in again.stdout, again.stdout + again.stderr


def test_what_was_chosen_is_found_by_caches_that_are_made_there_and_by_no_other(tmp_path):
    """By the choice's key: the look-alike and the simulated device are one machine, another level is another one."""
    store, other = tmp_path / "store", str(exactly(128))
    context = lowlevel.Context("ptxsim", store_dir=str(store))
    won = Entry(Key(REQUEST, parse_machine(context.machine).hash, "compiler", str(Conditions())), other,
                str(ACCELERATOR), seconds=1e-3)  # fmt: skip
    assert made_on_cuda(store) == str(ACCELERATOR)
    assert winners.choose(context, won) and made_on_cuda(store) == other
    host = lowlevel.Context("cpu", store_dir=str(store), threads=1)
    shape = dict(layers=1, q_heads=4, kv_heads=1, dk=32, dv=32, dtype="float16", blocks=1)
    assert lowlevel.Cache(context, "kvq-4", **shape).split_policy == other
    assert lowlevel.Cache(host, "kvq-4", **shape).split_policy == host.default_split_policy
    assert winners.choose(context, Entry(won.key, str(ACCELERATOR), str(ACCELERATOR), seconds=1e-3))
    assert made_on_cuda(store) == str(ACCELERATOR)


def test_the_policy_is_the_last_of_a_models_kernels_on_a_gpu(tmp_path):
    ran = over_the_look_alike("-m", "kvq", "tune", "model", *MODEL, "--tokens", "64", "--seconds", "2", "--db",
                              tmp_path / "tuning.db", "--store", tmp_path / "store")  # fmt: skip
    assert f"\n{REQUEST}\n" in ran.stderr and ran.stderr.rindex(REQUEST) > ran.stderr.rindex("merge:"), ran.stderr


def test_threads_are_refused_for_a_gpu(tmp_path):
    ran = over_the_look_alike("-m", "kvq", "tune", "splits", *MODEL, "--threads", "2", "--db", tmp_path / "tuning.db")
    assert ran.returncode == 2 and "leave --threads out" in ran.stderr and "Traceback" not in ran.stderr
    assert not (tmp_path / "tuning.db").exists()
