# SPDX-License-Identifier: Apache-2.0
"""`kvq tune kernel` and `kvq tune model` with real kernels."""

import json
import re
from dataclasses import replace

import pytest
from kvq import lowlevel
from kvq.tune import winners
from kvq.tune.database import Database
from kvq.tune.kernel_requests import Shape, cache_requests, request
from kvq.tune.problem import Conditions
from kvq.tune.rows import Entry, Key
from tune_command import run

LEVEL = lowlevel.shared_context().level
SHAPE = Shape(2, 1, 64, 64, "f16")
ATTEND = request("attend", "kvq-4", Shape(1, 1, 64, 64, "f16"), LEVEL, "full", page=32)  # few schedules
MERGE = request("merge", "kvq-4", SHAPE, LEVEL)
QUICK = ["--tokens", "256", "--heads", "1"]


def opened(store, text):
    """The schedule that a cache which is opened now would run."""
    context = lowlevel.Context("cpu", level=LEVEL, threads=1, store_dir=str(store))
    return lowlevel.open_kernel(context, text).schedule


def test_a_kernel_is_tuned_and_chosen_and_not_again(folder, capsys):
    store = folder / "chosen"
    code, out, err = run(capsys, "kernel", ATTEND, *QUICK, "--seconds", 20, "--store", store)
    assert code == 0 and re.fullmatch(r"1 tuned; 1 chosen; [1-9]\d* compiles, \d+ s\n", out), out
    assert f"{ATTEND}\n  tuned: tile_tokens=" in err
    with Database(folder / "tuning.db", readonly=True) as database:
        (entry,) = database.entries()
        space = lowlevel.Context("cpu", level=LEVEL, threads=1, store_dir="").schedule_space(ATTEND)
        assert {trial.schedule for trial in database.trials()} <= set(space[1]) and entry.default == space[0]
    assert opened(store, ATTEND) == ("" if entry.schedule == entry.default else entry.schedule)
    again = run(capsys, "kernel", ATTEND, *QUICK, "--seconds", 20, "--store", store, "-q")
    assert again == (0, "already tuned: 1 kernels, 0 compiles, 0 s\n", "")


def test_what_won_is_opened_from_then_on_and_a_default_forgets_it(folder):
    context = lowlevel.Context("cpu", level=LEVEL, threads=1, store_dir=str(folder / "s"))
    default, schedules = context.schedule_space(ATTEND)
    other = next(each for each in schedules if each != default)
    key = Key(ATTEND, "machine", "compiler", str(Conditions()))
    won = Entry(key, other, default, seconds=1e-3)
    assert winners.choose(context, won) and opened(folder / "s", ATTEND) == other
    for entry in (None, replace(won, predicted=True, schedule=schedules[-1]),
                  replace(won, status="wrong", seconds=None)):  # fmt: skip
        assert not winners.choose(context, entry) and opened(folder / "s", ATTEND) == other
    assert winners.choose(context, replace(won, schedule=default)) and opened(folder / "s", ATTEND) == ""


def test_a_strategy_is_obeyed(folder, capsys):
    assert run(capsys, "kernel", ATTEND, *QUICK, "--strategy", "exhaustive", "--store", folder / "s", "-q")[0] == 0
    space = lowlevel.Context("cpu", level=LEVEL, threads=1, store_dir="").schedule_space(ATTEND)
    with Database(folder / "tuning.db", readonly=True) as database:
        assert {trial.schedule for trial in database.trials()} == set(space[1])


def test_all_kernels_of_a_shape_share_a_budget_and_the_next_run_goes_on(folder, capsys):
    arguments = ["model", "q_heads=2,kv_heads=1,d=64", "kvq-4", "--tokens", "256", "--store", folder / "s", "-q"]
    code, out, _ = run(capsys, *arguments, "--seconds", "3")
    requests = cache_requests("kvq-4", SHAPE, LEVEL)
    assert code == 0 and " left" in out and out.endswith(" s\n")
    assert int(out.split()[-2]) < 20, out
    with Database(folder / "tuning.db", readonly=True) as database:
        had = {entry.key.request for entry in database.entries()}
    assert requests[0] in had and had < set(requests)
    code, out, _ = run(capsys, *arguments, "--seconds", "2")
    assert f"{len(had)} there already" in out
    with Database(folder / "tuning.db", readonly=True) as database:
        assert len(database.entries()) > len(had)


def test_a_model_is_its_config(folder, capsys):
    config = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "hidden_size": 128,
              "torch_dtype": "float16", "layer_types": ["full_attention", "sliding_attention"], "sliding_window": 64}
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "model.safetensors"):  # looked for, not read
        (model / name).write_text("{}")
    code, out, err = run(capsys, "model", model, "kvq-4", "--tokens", "256", "--seconds", "0.1", "--store", folder / "s")
    assert code == 0 and "win1" in err and "win0" in err and " left" in out, err


def test_predictions_are_marked_and_not_chosen(folder, capsys, monkeypatch):
    text = request("attend", "kvq-4", SHAPE, "nvptx:sm_90")
    monkeypatch.setenv("KVQ_PTXAS", "/no/such/ptxas")
    code, out, err = run(capsys, "kernel", text, "--target", "nvptx:sm_90", "-q")
    assert code == 1 and "KVQ_PTXAS is /no/such/ptxas, which is no program" in err and "0 chosen" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kernel", "nonsense"], "the request 'nonsense' is not legal: write it as in attend:"),
        (["model", "q_heads=3", "kvq-4"], "the shape 'q_heads=3' lacks kv_heads, dk, dv"),
        (["model", "q_heads=3,kv_heads=2,d=64", "kvq-4"], "3 query heads over 2 KV heads are not supported"),
        (["model", "absent/folder", "kvq-4"], "absent/folder"),
        (["kernel", MERGE, "--target", "x86-64-v9"], "x86-64-v9"),
        (["kernel", MERGE, "--target", "nvptx:sm_1"], "there is no target 'nvptx:sm_1'"),
        (["kernel", MERGE, "--gpu", "H1"], "there is no GPU 'H1': use one of A100, H100"),
        (["model", "q_heads=2,kv_heads=1,d=64", "kvq-4", "--gpu", "H100", "--device", "cpu"], "give one of them"),
    ],
)
def test_what_is_wrong_is_one_sentence(folder, capsys, arguments, words):
    code, out, err = run(capsys, *arguments)
    assert code in (1, 2) and words in err + out and "Traceback" not in err
