# SPDX-License-Identifier: Apache-2.0
"""Tuned schedules that are taken to another machine: a frozen context there runs them, and others the defaults."""

import json

import pytest
from kvq.cli import main
from kvq.tune.capability import accelerator, machine_of, this_cpu
from kvq.tune.compiler import compiler_hash
from kvq.tune.database import Database
from kvq.tune.kernel_requests import Shape, cache_requests, request
from kvq.tune.problem import Conditions, Problem
from kvq.tune.rows import Entry, key_of

import kvq
from kvq import lowlevel

FORMAT = "k4c32-v4t32/w32,block"
SHAPE = Shape(4, 2, 64, 64, "f16")
TEXT = "q_heads=4,kv_heads=2,d=64"


def count(target):
    """Of attend kernels: those with other rows are near to the one that was measured."""
    return sum(text.startswith("attend:") for text in cache_requests(FORMAT, SHAPE, target))


def attend(target):
    return request("attend", FORMAT, SHAPE, target)


@pytest.fixture
def here():
    return this_cpu()


@pytest.fixture
def space(here):
    return lowlevel.Context("cpu", level=here.target, store_dir="").schedule_space(attend(here.target))


def database(path, machine, schedule, default, compiler=None, **fields):
    """With one entry, of a sequence of 8192 tokens."""
    problem = Problem(attend(machine.target), machine.target, Conditions(tokens=8192, heads=2))
    key = key_of(problem, machine.hash, compiler or compiler_hash())
    with Database(path) as written:
        written.record([machine], (), [Entry(key, schedule, default, seconds=1e-3, noise=0.01, samples=32, **fields)])
    return path


def prepared(capsys, tmp_path, target, *options):
    code = main(["prepare", TEXT, FORMAT, "--targets", target, "--store", str(tmp_path / "store"), "-q",
                 *map(str, options)])  # fmt: skip
    screen = capsys.readouterr()
    return code, screen.out, screen.err


def test_a_frozen_store_runs_the_schedule_that_was_measured_on_this_machine(capsys, tmp_path, here, space):
    default, schedules = space
    tuned = next(each for each in schedules if each != default)
    path = database(tmp_path / "tuning.db", here, tuned, default)
    code, out, _ = prepared(capsys, tmp_path, here.target, "--db", path)
    assert code == 0 and out.startswith(f"{count(here.target)} schedules chosen, 0 are not legal here\n")
    frozen = lowlevel.Context("cpu", level=here.target, threads=1, store_dir=str(tmp_path / "store"), frozen=True)
    kernel = lowlevel.open_kernel(frozen, attend(here.target))
    assert kernel.schedule == tuned and {each["source"] for each in frozen.kernels()} == {"store"}
    assert lowlevel.open_kernel(frozen, request("append", FORMAT, SHAPE, here.target)).schedule == ""
    with pytest.raises(kvq.Unsupported):  # nothing else was put there
        lowlevel.open_kernel(frozen, attend(here.target), schedule=next(s for s in schedules if s not in (tuned, default)))


def test_another_machine_has_its_own_choice_and_this_one_the_default(capsys, tmp_path, here, space):
    default, schedules = space
    tuned = next(each for each in schedules if each != default)
    other = machine_of({**here.vector, "name": "Another Processor"})
    path = database(tmp_path / "tuning.db", other, tuned, default)
    assert prepared(capsys, tmp_path, here.target, "--db", path)[0] == 0
    frozen = lowlevel.Context("cpu", level=here.target, threads=1, store_dir=str(tmp_path / "store"), frozen=True)
    assert lowlevel.open_kernel(frozen, attend(here.target)).schedule == ""
    choices = [file.read_text().splitlines() for file in (tmp_path / "store").glob("*.schedule")]
    assert len(choices) == count(here.target)
    assert all(f"machine: {other.text}" in lines and f"schedule: {tuned}" in lines for lines in choices)
    # This machine is near to that one, for whoever says that it is meant too.
    code, out, _ = prepared(capsys, tmp_path, here.target, "--db", path, "--machine", here.text)
    assert code == 0 and out.startswith(f"{2 * count(here.target)} schedules chosen")
    frozen = lowlevel.Context("cpu", level=here.target, threads=1, store_dir=str(tmp_path / "store"), frozen=True)
    assert lowlevel.open_kernel(frozen, attend(here.target)).schedule == tuned


def test_a_gpu_that_is_named_gets_what_was_predicted(capsys, tmp_path):
    target = "nvptx:sm_90"
    gpu = lowlevel.Context("ptxsim", level="sm_90", store_dir="")
    default, schedules = gpu.schedule_space(attend(target))
    tuned = next(each for each in schedules if each != default)
    path = database(tmp_path / "tuning.db", accelerator(target, "H100"), tuned, default, predicted=True)
    assert prepared(capsys, tmp_path, target, "--db", path)[1].startswith("0 schedules chosen")
    out = prepared(capsys, tmp_path, target, "--db", path, "--machine", gpu.machine)[1]
    assert out.startswith(f"{count(target)} schedules chosen")
    frozen = lowlevel.Context("ptxsim", level="sm_90", store_dir=str(tmp_path / "store"), frozen=True)
    assert lowlevel.open_kernel(frozen, attend(target)).schedule == tuned


def test_what_is_not_legal_or_is_of_a_version_before_leaves_the_default(capsys, tmp_path, here, space):
    default, _ = space
    path = database(tmp_path / "tuning.db", here, "tile_tokens=7,rows=1", default, compiler="another")
    before = machine_of({**here.vector, "features": ["avx2"]})
    database(path, before, "tile_tokens=7,rows=1", default)
    code, out, _ = prepared(capsys, tmp_path, here.target, "--db", path)
    assert code == 0 and out.startswith("0 schedules chosen, ") and " 0 are" not in out
    assert not list((tmp_path / "store").glob("*.schedule"))
    main(["prepare", TEXT, FORMAT, "--targets", here.target, "--store", str(tmp_path / "store"), "--db", str(path)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{attend(here.target)} for {here}: ")]
    assert len(lines) == 1 and lines[0].endswith(f"in {default}"), lines


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--db", "absent.db"], "there is no database absent.db: give one that kvq tune filled"),
        (["--machine", "{}"], "--machine is given without --db"),
        (["--db", __file__, "--machine", '{"target":"x"}'], "describes no machine: give what"),
    ],
)
def test_what_is_refused_leaves_no_store(capsys, tmp_path, here, options, words):
    code, out, err = prepared(capsys, tmp_path, here.target, *options)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1 and not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": "{}"}, "the machine '{}' is none of target"),
        ({"machine": "a\nb"}, "is none of target"),
        ({"schedule": "tile_tokens=7"}, "tile_tokens"),
        ({"request": "attend"}, "attend"),
        ({"target": "x86-64-v9", "machine": '{"target":"x86-64-v9"}'}, "is none that the compiler makes code for"),
    ],
)
def test_a_context_refuses_what_no_machine_would_find(tmp_path, here, space, change, words):
    context = lowlevel.Context("cpu", store_dir=str(tmp_path / "store"))
    given = {"target": here.target, "machine": here.text, "request": attend(here.target), "schedule": space[1][0]}
    with pytest.raises(kvq.InvalidArgument) as found:
        context.prepare_schedule(**{**given, **change})
    assert words in str(found.value) and not list((tmp_path / "store").glob("*.schedule"))
    frozen = lowlevel.Context("cpu", store_dir=str(tmp_path / "store"), frozen=True)
    with pytest.raises(kvq.FailedPrecondition, match="frozen"):
        frozen.prepare_schedule(**given)
    assert json.loads(given["machine"])["target"] == given["target"]
