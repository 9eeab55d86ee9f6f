# SPDX-License-Identifier: Apache-2.0
"""The runner of what is here: what it compiles, what its check lets through and what not, what it times."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tolerances
from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.tune import budgets, check_data, kernels
from kvq.tune.attend_launch import ITEM, Part, Plan
from kvq.tune.database import Database
from kvq.tune.estimator import ROUNDS
from kvq.tune.kernel_requests import OPERATIONS, Shape, cache_requests, request
from kvq.tune.launch_memory import decode, encode
from kvq.tune.measure import CASES, Settings
from kvq.tune.problem import CheckCase, Conditions, Infeasible, Problem
from kvq.tune.request_fields import parse
from kvq.tune.split_policy import ACCELERATOR
from kvq.tune.tuner import tune
from memory import encode as encoded_by_tests
from sim_env import BUILD
from tampered import Spoiled

DRIVER = BUILD / "runtime/ptxsim/driver"
LEVEL = lowlevel.shared_context().level
SHAPE = Shape(q_heads=6, kv_heads=2, dk=64, dv=64, dtype="f16")
OTHERS = [  # (format, shape, class): a lag, windows, a cap, head sizes that differ, every width and class
    ("kivi-4", SHAPE, "normal"),
    ("kivi-2", replace(SHAPE, window=96, dtype="bf16"), "fast"),
    ("k8t128-v8t128", Shape(8, 2, 128, 128), "normal"),
    ("k3c32-v3t32", Shape(7, 1, 64, 128, score_cap=True), "full"),
    ("k2c128-v2t128", Shape(2, 2, 128, 128, "bf16"), "normal"),
    ("k4c128-v4c128", Shape(16, 2, 128, 64, window=300), "fast"),
]
PLAIN = CASES[0]


@pytest.fixture(scope="module")
def runner():
    return kernels.make_runner(LEVEL)


def problem(text, **conditions):
    return Problem(text, LEVEL, Conditions(**({"tokens": 700, "heads": 2} | conditions)))


def default_kernel(runner, wanted):
    return runner.compile(wanted, runner.space(wanted).default)


# -- requests and plans ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "shape", "accuracy"), [OTHERS[0], OTHERS[5]])
def test_the_requests_of_a_cache_are_those_that_it_prepares(format, shape, accuracy):
    context = lowlevel.Context("cpu", level=LEVEL, threads=1)
    dtype = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[shape.dtype]
    cache = lowlevel.Cache(context, format, layers=1, q_heads=shape.q_heads, kv_heads=shape.kv_heads, dk=shape.dk,
                           dv=shape.dv, dtype=dtype, blocks=4, attention_window=shape.window,
                           score_cap=30.0 if shape.score_cap else 0.0, accuracy=accuracy)  # fmt: skip
    cache.prepare()
    made = cache_requests(format, shape, LEVEL, accuracy)
    assert sorted(made) == sorted(kernel["name"] for kernel in context.kernels())
    assert made[0] == request("attend", format, shape, LEVEL, accuracy)


def test_a_request_that_is_none_is_one_sentence():
    for text in ("", "attend", request("attend", "kvq-4", SHAPE, LEVEL).replace("dk64", "dk"), "x:k4c32-v4t32:vnni"):
        with pytest.raises(InvalidArgument, match="is not legal: write it as in attend:k4c32"):
            parse(text)


def test_tail_c1_and_the_frontiers_are_those_of_a_cache():
    fields = parse(request("attend", "k4c128-v4t128", Shape(4, 1, 128, 128), LEVEL))
    assert (fields.commit_group, fields.ring, fields.frontiers(1000)) == (128, 288, (768, 768))
    sliding = parse(request("attend", "kivi-4", SHAPE, LEVEL))
    assert (sliding.ring, sliding.frontiers(1000)) == (160, (896, 872))


def items_of(tokens, queries, heads, text, window=0, threads=1):
    plan = Plan(parse(text), (Part(tokens, queries),), heads, window, threads)
    return [dict(zip(ITEM, item, strict=True)) for item in plan.items().tolist()]


@pytest.mark.parametrize("tokens", [1, 500, 1025, 5000, 300_000])
def test_programs_visit_every_key_once(tokens):
    text = request("attend", "k4c32-v4t32", SHAPE, LEVEL)
    packed = parse(text).frontiers(tokens)[0]
    items = [item for item in items_of(tokens, 1, 2, text) if item["kv_head"] == 1]
    ranges = sorted((item["packed_begin"], item["packed_end"]) for item in items if item["packed_end"])
    assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges)][: len(ranges)]
    assert (ranges[-1][1] if ranges else 0) == packed
    raw = [(item["raw_begin"], item["raw_end"]) for item in items if item["raw_end"] > item["raw_begin"]]
    assert raw == [(packed, tokens + 1)]
    assert len(items) <= 64 and len({item["split"] for item in items}) == len(items)


def test_a_window_leaves_pages_out():
    text = request("attend", "k4c32-v4t32", replace(SHAPE, window=256), LEVEL)
    items = items_of(5000, 1, 2, text, window=256)
    assert min(item["packed_begin"] for item in items) == (5000 - 255) // 64 * 64
    plan = Plan(parse(text), (Part(5000, 1),), 2, 256)
    assert plan.pages(Part(5000, 1)) == -(-parse(text).frontiers(5000)[0] // 64) - (5000 - 255) // 64


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_tensors_are_encoded_to_nearest_even(dtype):
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert (encode(values, dtype) == encoded_by_tests(values, dtype)).all()
    assert (encode(decode(encode(values, dtype), dtype), dtype) == encode(values, dtype)).all()


# -- checks ------------------------------------------------------------------------------------------------------------


def test_budgets_are_those_of_the_accuracy_classes():
    """attention_c4"""
    kinds = {"ordinary": PLAIN, "dominant": CheckCase("d", 1, dominant=True), "outliers": CheckCase("o", 1, 2, 10.0),
             "extreme": CheckCase("x", 1, 2, 30.0)}  # fmt: skip
    for accuracy in tolerances.CLASSES:
        for bits in (8, 4, 3, 2):
            text = request("attend", f"k{bits}c32-v8t32", SHAPE, LEVEL, accuracy)
            for kind, case in kinds.items():
                assert budgets.arithmetic(parse(text), case) == tolerances.budget(accuracy, bits, kind)


@pytest.mark.parametrize(("format", "shape", "accuracy"), OTHERS)
def test_the_kernels_of_a_cache_pass(runner, format, shape, accuracy):
    for text in cache_requests(format, shape, LEVEL, accuracy)[:9]:
        wanted = problem(text)
        kernel = default_kernel(runner, wanted)
        for case in CASES:
            found = runner.check(wanted, kernel, case)
            assert found.error <= found.allowed, f"{text}, {case.name}: {found}"


def spoil_o(arrays):
    arrays["o"] *= 1.1  # every tenth of an answer is wrong


def spoil_lse(arrays):
    seen = np.flatnonzero(np.isfinite(arrays["lse"]))
    arrays["lse"].reshape(-1)[seen[len(seen) // 2]] += 2.0


def spoil_unseen(arrays):
    arrays["lse"][np.isnan(arrays["lse"])] = 0.0


def spoil_nan(arrays):
    arrays["o"].reshape(-1)[np.flatnonzero(np.isfinite(arrays["o"]))[0]] = np.nan


@pytest.mark.parametrize("spoil", [spoil_o, spoil_lse, spoil_unseen, spoil_nan])
@pytest.mark.parametrize("accuracy", ["exact", "fast"])
def test_an_attend_kernel_with_a_mistake_does_not_pass(runner, spoil, accuracy):
    wanted = problem(request("attend", "kvq-4", SHAPE, LEVEL, accuracy))
    kernel = default_kernel(runner, wanted)
    runner.check(wanted, kernel, PLAIN)
    spoiled = Spoiled(kernel, runner._wanted[wanted.request, PLAIN].launch, spoil)
    found = runner.check(wanted, spoiled, PLAIN)
    assert not found.error <= found.allowed, found


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each != "attend"])
def test_any_other_kernel_with_a_mistake_does_not_pass(runner, operation):
    wanted = problem(request(operation, "kvq-4", SHAPE, LEVEL))
    kernel = default_kernel(runner, wanted)
    runner.check(wanted, kernel, PLAIN)
    launch = runner._wanted[wanted.request, PLAIN].launch
    for name in launch.outputs:

        def spoil(arrays, name=name):
            flat = arrays[name].reshape(-1)
            raw = flat.view(np.uint8) if operation != "merge" else flat
            raw[raw.size // 2] = 1 if operation == "merge" else raw[raw.size // 2] ^ 1

        found = runner.check(wanted, Spoiled(kernel, launch, spoil), PLAIN)
        assert not found.error <= found.allowed, f"{name}: {found}"


# -- schedules and times -----------------------------------------------------------------------------------------------


def test_a_candidate_has_exactly_its_schedule_and_an_illegal_one_is_infeasible(runner):
    wanted = problem(request("attend", "k4c128-v4t128", Shape(4, 1, 128, 128), LEVEL))
    space = runner.space(wanted)
    assert space.default in space.schedules and len(space.schedules) > 4
    for schedule in (space.default, space.schedules[-1]):
        assert runner.compile(wanted, schedule).schedule == schedule
    with pytest.raises(Infeasible, match="tile_tokens"):
        runner.compile(wanted, "tile_tokens=63,rows=8,vectors=8,prefetch=1")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_copies_of_a_workload_are_memory_of_their_own_and_are_timed(runner, operation):
    wanted = problem(request(operation, "kvq-4", SHAPE, LEVEL), batch=2)
    kernel = default_kernel(runner, wanted)
    workload = runner.workload(wanted, 3)
    pointers = [{each.address for each in launch.arguments if isinstance(each, lowlevel.Buffer)}
                for launch in workload.launches]  # fmt: skip
    assert len(pointers) == 3 and pointers[0] - pointers[1] and pointers[1] - pointers[2]
    begin = time.perf_counter()
    seconds = workload.run(kernel, [0, 1, 2, 0])
    assert 0 < seconds <= time.perf_counter() - begin
    assert runner.workload_bytes(wanted) > 1000
    workload.close()
    assert workload.launches == []


def test_a_longer_context_takes_longer(runner):
    text = request("attend", "kvq-4", SHAPE, LEVEL)
    times = []
    for tokens in (1024, 16384):
        wanted = problem(text, tokens=tokens)
        kernel, workload = default_kernel(runner, wanted), runner.workload(wanted, 2)
        times.append(min(workload.run(kernel, [0, 1]) for _ in range(9)))
    assert times[1] > 5 * times[0]


def test_a_real_kernel_is_tuned_and_the_second_time_nothing_is_compiled(runner, tmp_path):
    text = request("attend", "kvq-4", Shape(1, 1, 64, 64, "f16"), LEVEL, "full", page=32)  # few schedules
    wanted = problem(text, tokens=2048, heads=1)
    space = runner.space(wanted)
    with Database(tmp_path / "tuning.db") as database:
        outcome = tune(wanted, runner, database, settings=Settings(workers=1))
        assert outcome.finished and outcome.entry.schedule in space.schedules and outcome.compiled > 4
        assert not outcome.failures and outcome.entry.seconds > 0
        again = tune(wanted, runner, database)
        assert again.was_there and again.compiled == 0 and again.entry == outcome.entry


# -- a GPU -------------------------------------------------------------------------------------------------------------


def test_the_split_policy_of_predictions_is_an_accelerators():
    assert str(ACCELERATOR) == lowlevel.Context("ptxsim", store_dir="").default_split_policy


def test_a_gpu_that_is_here_is_measured(tmp_path):
    """Through the driver's interface, by the simulator's look-alike; in a process of its own, which loads that."""
    wanted = "attend:k4c32-v4t32:mma:p32:dk32:dv32:g4:f16:rows8:lag0:win0:cap0:exact"
    command = [sys.executable, "-m", "kvq", "tune", "kernel", wanted, "--target", "nvptx:sm_80", "--tokens", "64",
               "--heads", "1", "--cache", "warm", "--db", str(tmp_path / "tuning.db"), "--store", str(tmp_path / "store")]
    ran = subprocess.run(command, env={**os.environ, "LD_LIBRARY_PATH": str(DRIVER)}, capture_output=True, text=True,
                         timeout=300)  # fmt: skip
    assert ran.returncode == 0 and "1 tuned; 1 chosen" in ran.stdout, ran.stdout + ran.stderr
    with Database(tmp_path / "tuning.db", readonly=True) as database:
        (entry,), (machine,) = database.entries(), database.machines().values()
        assert not entry.predicted and entry.samples == ROUNDS and machine.target == "nvptx:sm_80"
        assert machine.vector["kind"] == "accelerator" and {trial.status for trial in database.trials()} == {"ok"}


@pytest.mark.parametrize("dk", [32, 64, 256])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_scores_of_checked_data_are_as_large_as_their_budget_takes_them(case, dk):
    """The budget of a log-sum-exp is a share of them: within a factor of two either way."""
    fields = parse(f"attend:k4c32-v4t32:vnni:p64:dk{dk}:dv{dk}:g4:f32:rows4:lag0:win0:cap0:exact")
    keys, _ = check_data.keys_and_values(case, 2, 2000, dk, dk)
    q = check_data.queries(case, keys, 4).reshape(2, 4, dk)
    scores = np.sort(np.einsum("hrd,htd->hrt", q, keys) * dk**-0.5, axis=2)[:, :, :-1]  # without the dominant one
    size = np.sqrt(np.mean((scores - scores.mean(axis=2, keepdims=True)) ** 2))
    assert 0.5 * size <= budgets.score_size(fields, case) <= 2 * max(size, 1.0)
