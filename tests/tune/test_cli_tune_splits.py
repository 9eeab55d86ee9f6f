# SPDX-License-Identifier: Apache-2.0
"""`kvq tune splits` with real caches."""

import re

import pytest
from kvq import lowlevel
from kvq.tune import winners
from kvq.tune.capability import this_cpu
from kvq.tune.database import Database
from kvq.tune.kernel_requests import Shape
from kvq.tune.measure import CASES
from kvq.tune.problem import Conditions, Problem
from kvq.tune.rows import Entry, Key
from kvq.tune.split_policy import exactly, split_request
from kvq.tune.split_runner import SplitRunner
from tune_command import run

LEVEL = lowlevel.shared_context().level
REQUEST = split_request("kvq-4", Shape(2, 1, 64, 64, "f16"), LEVEL)
TINY = ["splits", "q_heads=2,kv_heads=1,d=64", "kvq-4", "--contexts", "512,1k", "--batches", "1", "--threads", "1,2"]


def made(store):
    """The policy of a cache that is made now."""
    context = lowlevel.Context("cpu", level=LEVEL, threads=1, store_dir=str(store))
    shape = dict(layers=1, q_heads=2, kv_heads=1, dk=64, dv=64, dtype="float16", blocks=1)
    return lowlevel.Cache(context, "kvq-4", **shape).split_policy


def test_a_policy_is_tuned_and_chosen_and_not_again(folder, capsys):
    code, out, err = run(capsys, *TINY, "--seconds", 3)
    assert code == 0 and re.fullmatch(r"1 tuned; 1 chosen; \d+ s\n", out), out
    assert "prices: step " in err and f"{REQUEST}\n  tuned: tokens=" in err
    with Database(folder / "tuning.db", readonly=True) as database:
        (entry,) = database.entries("split:")
        rows = database.trials()
    assert entry.key.request == REQUEST and entry.key.machine == this_cpu(LEVEL).hash
    assert entry.key.conditions == "cold:tokens1024:batch1:heads1:threads2:window0"
    assert made(folder / "store") == entry.schedule
    assert run(capsys, *TINY, "--seconds", 3, "-q") == (0, "already tuned: 1 split policies, 0 s\n", "")
    with Database(folder / "tuning.db", readonly=True) as database:
        assert database.trials() == rows
    assert entry.schedule in run(capsys, "show", "--request", "split:")[1]
    assert run(capsys, "export", folder / "rows.jsonl")[0] == 0
    assert run(capsys, "import", folder / "rows.jsonl", "--db", folder / "other.db")[0] == 0
    with Database(folder / "other.db", readonly=True) as database:
        assert database.entries() == [entry] and database.trials() == rows and database.verify() == []
    assert run(capsys, "report", folder / "report.html")[0] == 0


def test_what_won_is_what_caches_are_made_with_and_a_default_forgets_it(folder):
    context = lowlevel.Context("cpu", level=LEVEL, threads=1, store_dir=str(folder / "s"))
    default = context.default_split_policy
    won = Entry(Key(REQUEST, "machine", "compiler", str(Conditions())), str(exactly(128)), default, seconds=1e-3)
    assert winners.choose(context, won) and made(folder / "s") == str(exactly(128))
    assert winners.choose(context, Entry(won.key, default, default, seconds=1e-3)) and made(folder / "s") == default


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
@pytest.mark.parametrize(("format", "window"), [("kvq-4", 0), ("kivi-2", 0), ("kvq-4", 300)])
def test_steps_are_checked_against_the_reference_and_timed(dtype, format, window):
    text = split_request(format, Shape(4, 2, 64, 64, dtype, window), LEVEL)
    problem = Problem(text, LEVEL, Conditions("cold", 600, 2, 2, 2, window))
    runner = SplitRunner("cpu", LEVEL)
    for policy in (runner.default, str(exactly(64)), str(exactly(4096))):
        for case in CASES:
            found = runner.check(problem, policy, case)
            assert 0 <= found.error <= found.allowed < 1, (policy, case.name)
    work = runner.workload(problem, 3)
    assert all(work.run(policy, [0, 1, 2]) > 0 for policy in (runner.default, str(exactly(64))))
    assert {cache.split_policy for cache, _ in work.steps.values()} == {runner.default, str(exactly(64))}
    work.close()


def test_a_wrong_answer_shows(monkeypatch):
    """Five hundredths too much."""
    from kvq.tune import split_runner

    problem = Problem(REQUEST, LEVEL, Conditions("cold", 600, 1, 1, 1, 0))
    runner = SplitRunner("cpu", LEVEL)
    answer = split_runner.checked_answer
    monkeypatch.setattr(split_runner, "checked_answer",
                        lambda kind, context, *rest: answer(kind, context, *rest)
                        * (1.0 if context.level == "ref" else 1.05))  # fmt: skip
    found = runner.check(problem, runner.default, CASES[0])
    assert found.error > found.allowed


def test_all_kernels_of_a_model_and_its_policy_share_a_budget(folder, capsys):
    arguments = ["model", "q_heads=2,kv_heads=1,d=64", "kvq-4", "--tokens", "256", "-q"]
    code, out, _ = run(capsys, *arguments, "--seconds", "0.1")
    assert code == 0 and "left" in out
    assert run(capsys, *TINY, "-q")[0] == 0  # has another key: other conditions
    with Database(folder / "tuning.db", readonly=True) as database:
        assert {entry.key.request for entry in database.entries("split:")} == {REQUEST}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["q_heads=3,kv_heads=2,d=64", "kvq-4"], "3 query heads over 2 KV heads are not supported"),
        (["q_heads=2,kv_heads=1,d=64", "nonsense"], "nonsense"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--contexts", "4x"], "'4x' is no list of numbers from 1"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--threads", "0"], "'0' is no list of numbers from 1"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--target", "nvptx:sm_90", "--threads", "1,2"], "leave --threads out"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--target", "nvptx:sm_1"], "there is no target 'nvptx:sm_1'"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--gpu", "H1"], "there is no GPU 'H1': use one of A100, H100"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--gpu", "A100", "--target", "nvptx:sm_90"],
         "there is no GPU 'A100' that runs nvptx:sm_90: use one of H100"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--gpu", "A100", "--device", "cuda"],
         "--gpu A100 is predicted for and --device cuda is measured: give one of them"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--device", "cpu", "--target", "nvptx:sm_90"], "cannot run on this host"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--target", "x86-64", "--gpu", "A100"], "there is no target 'x86-64'"),
        (["q_heads=2,kv_heads=1,d=64", "kvq-4", "--target", "x86-64-v9"], "x86-64-v9"),
    ],
)
def test_what_is_wrong_is_one_sentence(folder, capsys, arguments, words):
    code, out, err = run(capsys, "splits", *arguments)
    assert code in (1, 2) and words in err + out and "Traceback" not in err
