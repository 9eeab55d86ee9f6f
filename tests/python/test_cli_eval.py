# SPDX-License-Identifier: Apache-2.0
"""`kvq eval` on a tiny model on disk: its figures against a plain loop, what it keeps, how it resumes and refuses."""

import importlib.util
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_model
import torch
from kvq.cli import main
from kvq.evaluate import evaluation, machine, passkey, records
from kvq.evaluate.caches import PRESETS, parse_cache
from kvq.evaluate.source import find_source
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaConfig, QuantizedCache

import kvq

EIGHT = "k8c32-v8t16/w32,block"
TWO = "k2c32-v2t16/w32,sliding"
# One forward and token-by-token decoding sum in another order; a sum that flips one code moves the KL of a window by
# less than this part of it (measured: 3e-4).
SAME = 5e-3
QUICK = ["--windows", "2", "--tokens", "160", "--context", "224", "--depths", "0,100", "--steps", "2", "--rounds", "1",
         "--threads", "1", "--accuracy", "exact"]


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads that wait for each other at every operation of a tiny model take a busy machine minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "prose.txt"
    file.write_text(tiny_model.PROSE, encoding="utf-8")
    return file


@pytest.fixture
def command(model, text, tmp_path):
    """The arguments of `kvq eval` for some caches."""

    def command(*arguments, out=tmp_path / "out", metrics="quality"):
        options = ["--metrics", metrics, "--text", str(text), "--out", str(out)]
        return ["eval", str(model), *QUICK, *options, *arguments]

    return command


@pytest.fixture
def run(command, tmp_path):
    """Runs `kvq eval` in this process and returns the exit code and the report."""

    def run(*arguments, out=tmp_path / "out", metrics="quality"):
        code = main(command(*arguments, out=out, metrics=metrics))
        report = out / "report.json"
        return code, json.loads(report.read_text(encoding="utf-8")) if code == 0 else None

    return run


@pytest.fixture
def counted(monkeypatch):
    """Which windows are measured with which cache."""
    calls = []
    original = evaluation.window_sums

    def window_sums(subject, reference, ids, kind):
        calls.append(kind.text)
        return original(subject, reference, ids, kind)

    monkeypatch.setattr(evaluation, "window_sums", window_sums)
    return calls


@torch.inference_mode()
def decoded(model, ids, cache):
    """Log-probabilities in f64 of every position, decoding token by token."""
    rows = [model(ids[:, i : i + 1], past_key_values=cache).logits[0, 0] for i in range(ids.shape[1])]
    return torch.log_softmax(torch.stack(rows).double(), dim=-1)[:-1]


def summary(report, cache):
    return next(row for row in report["caches"] if row["cache"] == cache)


# -- figures ----------------------------------------------------------------------------------------------------------


def test_quality_equals_a_loop_that_decodes_token_by_token(run, model, text):
    code, report = run("dynamic", EIGHT, TWO, "quanto-2")
    assert code == 0
    net = AutoModelForCausalLM.from_pretrained(model, attn_implementation="kvq").eval()
    ids = AutoTokenizer.from_pretrained(model)(text.read_text(), return_tensors="pt").input_ids
    starts = [0, ids.shape[1] - 160]
    makers = {
        "dynamic": lambda: DynamicCache(config=net.config),
        EIGHT: lambda: kvq.KVQCache(net.config, EIGHT, accuracy="exact", threads=1),
        TWO: lambda: kvq.KVQCache(net.config, TWO, accuracy="exact", threads=1),
        "quanto-2": lambda: QuantizedCache("quanto", net.config, nbits=2),
    }
    windows = [ids[:, start : start + 160] for start in starts]
    references = [decoded(net, window, DynamicCache(config=net.config)) for window in windows]
    for name, make in makers.items():
        nll = kl = same = tokens = 0
        for window, full in zip(windows, references, strict=True):
            got = decoded(net, window, make())
            nll -= got.gather(1, window[0, 1:, None]).sum().item()
            kl += (full.exp() * (full - got)).sum().item()
            same += (full.argmax(-1) == got.argmax(-1)).sum().item()
            tokens += len(got)
        quality = summary(report, name)["quality"]
        assert quality["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=SAME), name
        assert quality["kl"] == pytest.approx(kl / tokens, rel=SAME, abs=1e-9), name
        assert quality["top1"] == pytest.approx(same / tokens, abs=2.5 / tokens), name
        assert [part["start"] for part in quality["windows"]] == starts


def test_classes_are_measured_side_by_side(run, capsys):
    """Each format in each class, `exact` as what the others are compared with; other caches once."""
    code, report = run("dynamic", EIGHT, TWO, "--accuracy", "exact,fast,exact")
    assert code == 0
    names = [row["cache"] for row in report["caches"]]
    classes = [f"{text} {name}" for text in (EIGHT, TWO) for name in ("exact", "fast")]
    assert names == ["full precision", "dynamic", *classes]
    assert [row["accuracy"] for row in report["caches"]] == [None, None, "exact", "fast", "exact", "fast"]
    assert [row["format"] for row in report["caches"]] == [None, None, EIGHT, EIGHT, TWO, TWO]
    assert report["settings"]["accuracy"] == ["exact", "fast"]
    assert len({row["identity"] for row in report["caches"]}) == 6
    for text in (EIGHT, TWO):
        exact, fast = (summary(report, f"{text} {name}")["quality"] for name in ("exact", "fast"))
        assert exact["kl_over_exact"] == 0 and fast["kl_over_exact"] == pytest.approx(fast["kl"] / exact["kl"] - 1)
    assert summary(report, "dynamic")["quality"]["kl_over_exact"] is None
    assert "more than exact" in capsys.readouterr().out


def test_one_class_needs_no_column(run, capsys):
    _, report = run(TWO, "--accuracy", "fast")
    assert summary(report, TWO)["accuracy"] == "fast" and summary(report, TWO)["quality"]["kl_over_exact"] is None
    assert "more than exact" not in capsys.readouterr().out


def test_an_unknown_class_is_refused(command, capsys):
    assert main(command(EIGHT, "--accuracy", "exact,quick")) == 2
    assert "accuracy is 'quick': use one of \"full\", \"exact\", \"normal\", \"fast\"" in capsys.readouterr().err


def test_dynamic_is_full_precision(run):
    _, report = run("dynamic", TWO)
    full, dynamic = summary(report, "full precision")["quality"], summary(report, "dynamic")["quality"]
    assert dynamic["kl"] < 1e-9 < summary(report, TWO)["quality"]["kl"] and dynamic["top1"] == 1.0
    assert dynamic["perplexity"] == pytest.approx(full["perplexity"], rel=1e-6)


def test_memory_is_what_the_cache_reports(run):
    _, report = run("dynamic", EIGHT, metrics="memory")
    (dynamic,), (eight,) = summary(report, "dynamic")["memory"], summary(report, EIGHT)["memory"]
    size = 224 * 2 * 2 * 2 * 32 * 4  # tokens, layers, heads, K and V, D, f32
    assert dynamic["bytes_used"] == dynamic["bytes_held"] == size
    assert dynamic["bits_per_element"] == 32
    states = [(torch.zeros(1, 2, 224, 32), torch.zeros(1, 2, 224, 32))] * 2
    config = LlamaConfig(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32)
    cache = parse_cache(EIGHT).fill(config, states)
    assert (eight["bytes_used"], eight["bytes_held"]) == tuple(
        int(cache.report()[name]) for name in ("bytes_used", "bytes_touched")
    )


def test_speeds_keep_every_sample_of_every_cache(run):
    _, report = run("dynamic", EIGHT, "--batch", "2", metrics="decode,prefill")
    for name in ("dynamic", EIGHT):
        (decode,), (prefill,) = summary(report, name)["decode"], summary(report, name)["prefill"]
        assert len(decode["samples_ms"]) == 2 and len(prefill["samples_ms"]) == 1
        assert decode["tokens_per_s"] == pytest.approx(2 * 1e3 / decode["ms"])
        assert prefill["tokens_per_s"] == pytest.approx(2 * 224 * 1e3 / prefill["ms"])


def test_passkey_tasks_are_repeatable_and_fit(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    count = lambda text: len(tokenizer(text).input_ids)  # noqa: E731
    tasks = {depth: passkey.make_task(count, 1000, depth, 0) for depth in (0, 50, 100)}
    for depth, task in tasks.items():
        assert task == passkey.make_task(count, 1000, depth, 0)
        assert 850 < count(task.prompt) <= 1000
        before, after = task.prompt.split(f"The pass key is {task.key}. Remember it: {task.key} is the pass key.")
        filler = [len(part) for part in (before.removeprefix(passkey.OPENING), after.removesuffix(passkey.QUESTION))]
        assert filler[0] / sum(filler) == pytest.approx(depth / 100, abs=0.15)
        assert task.key not in before + after
    assert len({task.key for task in tasks.values()}) == 3


@pytest.mark.parametrize(
    ("answer", "right"),
    [(" 12345.", True), ('"12345"', True), ("12345", True), (" 123456", False), (" 1234", False), ("the 12345", False)],
)
def test_passkey_match_is_exact(answer, right):
    assert passkey.matches(answer, "12345") is right


def test_passkey_counts_what_the_model_answers(run, monkeypatch):
    """A model that always answers the key is right everywhere, whatever the depth."""
    monkeypatch.setattr(passkey, "ask", lambda subject, task, kind: f" {task.key}." if task.depth else " 00000")
    _, report = run(EIGHT, metrics="passkey")
    assert [(part["depth"], part["right"], part["trials"]) for part in summary(report, EIGHT)["passkey"]] == [
        (0, 0, 1),
        (100, 1, 1),
    ]


def test_passkey_answer_is_what_generate_says(run, model):
    _, report = run(EIGHT, metrics="passkey")
    net = AutoModelForCausalLM.from_pretrained(model, attn_implementation="kvq").eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    record = next(item for item in report["records"] if item["key"]["setting"]["depth"] == 100)
    task = passkey.make_task(lambda text: len(tokenizer(text).input_ids), 224, 100, 0)
    ids = tokenizer(task.prompt, return_tensors="pt").input_ids
    cache = kvq.KVQCache(net.config, EIGHT, accuracy="exact", threads=1)
    output = net.generate(ids, past_key_values=cache, max_new_tokens=8, do_sample=False)
    answer = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    assert record["result"]["tasks"] == [{"key": task.key, "answer": answer, "right": False}]


# -- what is written ---------------------------------------------------------------------------------------------------


def test_report_has_the_documented_schema_and_all_outputs(run, tmp_path, capsys):
    paths = [tmp_path / "a.json", tmp_path / "a.png"]
    code, report = run("dynamic", TWO, "--json", str(paths[0]), "--png", str(paths[1]), metrics="quality,memory,decode")
    assert code == 0 and report["schema"] == "kvq-eval/1"
    assert set(report) == {"schema", "model", "machine", "settings", "caches", "records", "measured_again"}
    assert json.loads(paths[0].read_text()) == report
    assert {"processor", "cores", "level", "versions", "commit", "allocator", "torch_threads"} <= set(report["machine"])
    assert report["settings"]["windows"] == 2 and report["settings"]["text"] == "prose.txt"
    for row in report["caches"]:
        assert set(row) == {
            "cache", "identity", "format", "accuracy", "quality", "passkey", "memory", "decode", "prefill"
        }  # fmt: skip
    for picture in (paths[1], tmp_path / "out" / "report.png"):
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    screen = capsys.readouterr()
    assert TWO in screen.out and "perplexity" in screen.out
    assert "[9/9]" in screen.err
    assert "\x1b" not in screen.out + screen.err  # plain lines where there is no terminal
    documented = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    parts = [part for row in report["caches"] for part in (row, *row["memory"], *row["decode"])]
    names = set(report) | {name for part in parts for name in part}
    assert not [name for name in names if f"`{name}`" not in documented]


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_repeats_nothing(run, counted, tmp_path):
    _, first = run(EIGHT, TWO)
    assert sorted(counted) == sorted([EIGHT, TWO] * 2)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "records").iterdir()}
    _, second = run(EIGHT, TWO)
    assert len(counted) == 4 and second["records"] == first["records"]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "records").iterdir()} == files
    _, third = run(EIGHT, TWO, "--no-resume")
    assert len(counted) == 8
    assert [r["result"] for r in third["records"]] == [r["result"] for r in first["records"]]


def test_finished_records_are_used_as_they_stand(run, tmp_path):
    """A record with another result, and the checksum for it, is believed: so nothing was measured again."""
    run(EIGHT)
    file = next(f for f in (tmp_path / "out" / "records").glob("quality-*"))
    record = json.loads(file.read_text())
    del record["checksum"]
    record["result"]["kl"] = 159.0
    file.write_text(json.dumps({**record, "checksum": records._checksum(record)}))
    _, report = run(EIGHT)
    assert 159 / 318 <= summary(report, EIGHT)["quality"]["kl"] < 159 / 318 + 0.1


def test_new_caches_and_windows_are_added_to_what_is_there(run, counted):
    run(EIGHT)
    counted.clear()
    run(EIGHT, TWO)
    assert counted == [TWO, TWO]
    counted.clear()
    run(EIGHT, "--windows", "3")  # the middle one is new
    assert counted == [EIGHT]


@pytest.mark.parametrize("change", [["--tokens", "128"], ["--dtype", "bfloat16"], ["--text", "{other}"]])
def test_a_changed_setting_is_not_finished(run, counted, tmp_path, change):
    run(EIGHT)
    counted.clear()
    other = tmp_path / "other.txt"
    other.write_text(tiny_model.PROSE.replace("wide", "tall"), encoding="utf-8")
    code, _ = run(EIGHT, *[word.format(other=other) for word in change])
    assert code == 0 and len(counted) == 2


@pytest.mark.parametrize("part", ["weights", "code", "versions"])
def test_another_model_or_build_is_not_finished(command, counted, model, tmp_path, monkeypatch, part):
    arguments = command(EIGHT)
    assert main(arguments) == 0
    counted.clear()
    if part == "weights":
        arguments[1] = str(tiny_model.save_model(tmp_path / "other", seed=1))
    elif part == "code":
        monkeypatch.setattr(machine, "build_identity", lambda: "another")
    else:
        monkeypatch.setattr(machine, "versions", lambda *names: {name: "another" for name in names})
    assert main(arguments) == 0 and len(counted) == 2


def test_fingerprint_is_of_contents_not_of_places(model, tmp_path):
    twin = tiny_model.save_model(tmp_path / "twin")
    assert find_source(str(twin)).fingerprint() == find_source(str(model)).fingerprint()
    weights = bytearray((twin / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (twin / "model.safetensors").write_bytes(weights)
    assert find_source(str(twin)).fingerprint() != find_source(str(model)).fingerprint()


@pytest.mark.parametrize("damage", ["cut", "edited", "empty", "other"])
def test_corrupt_records_are_measured_again_and_reported(run, counted, tmp_path, capsys, damage):
    _, first = run(EIGHT)
    one, two = sorted((tmp_path / "out" / "records").glob("quality-*"))
    whole = one.read_text()
    damaged = {
        "cut": whole[: len(whole) // 2],
        "edited": whole.replace('"tokens": 159', '"tokens": 158'),
        "empty": "",
        "other": two.read_text(),
    }
    assert damaged[damage] != whole
    one.write_text(damaged[damage])
    counted.clear()
    capsys.readouterr()
    _, report = run(EIGHT)
    assert counted == [EIGHT] and f"{one.name} is not used" in capsys.readouterr().err
    assert [entry["file"] for entry in report["measured_again"]] == [one.name]
    results = lambda report: [record["result"] for record in report["records"]]  # noqa: E731
    assert results(report) == results(first) and json.loads(one.read_text())["result"]["tokens"] == 159


# A process that finishes what it measures with 8 bits and then waits for ever, as one that is killed in the middle.
WAITING = """
import sys, time
from kvq.cli import main
from kvq.evaluate import evaluation
original = evaluation.window_sums
def window_sums(subject, reference, ids, kind):
    if kind.text[1] == "2":
        time.sleep(3600)
    return original(subject, reference, ids, kind)
evaluation.window_sums = window_sums
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_run_goes_on_where_it_was(run, command, counted, tmp_path):
    folder = tmp_path / "out" / "records"

    def done():
        return {file: file.stat().st_mtime_ns for file in folder.glob("*.json")}

    process = subprocess.Popen([sys.executable, "-c", WAITING, *command(EIGHT, TWO)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    try:
        while len(done()) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    before = done()
    assert len(before) == 2  # full precision and 8 bits of the first window
    code, report = run(EIGHT, TWO)
    assert code == 0 and counted == [TWO, EIGHT, TWO]
    assert {file: when for file, when in done().items() if file in before} == before
    _, fresh = run(EIGHT, TWO, out=tmp_path / "fresh")
    assert report["caches"] == fresh["caches"]


# -- refusals ---------------------------------------------------------------------------------------------------------


def refused(capsys, *arguments, code=2):
    """The one sentence of a refusal."""
    capsys.readouterr()
    assert main(["eval", *map(str, arguments)]) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("kvq: ")]
    assert len(lines) == 1, error
    return lines[0]


def test_unknown_caches_name_the_nearest(model, capsys):
    assert "kivi-4" in refused(capsys, model, "kivi4").split("did you mean")[1]
    assert "dynamic" in refused(capsys, model, "dynamik").split("did you mean")[1]
    assert "2 or 4 bits" in refused(capsys, model, "quanto-3")
    assert "32" in refused(capsys, model, "k4c32-v4t32/w120,sliding")


def test_presets_are_those_of_the_library():
    with pytest.raises(kvq.InvalidArgument) as caught:
        kvq.lowlevel.format_canonical("nothing")
    assert all(f"{name}" in str(caught.value) for name in PRESETS)
    assert [kvq.lowlevel.format_canonical(name) for name in PRESETS]


def test_models_that_are_not_there_or_not_whole(model, tmp_path, capsys):
    assert "there is no model" in refused(capsys, tmp_path / "nowhere", "dynamic")
    (tmp_path / "empty").mkdir()
    assert "neither a config.json nor a GGUF file" in refused(capsys, tmp_path / "empty", "dynamic")
    bare = tiny_model.save_model(tmp_path / "bare", tokenizer=False)
    assert "no tokenizer" in refused(capsys, bare, "dynamic")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "empty" / name).write_bytes(b"GGUF")
    assert "2 GGUF files" in refused(capsys, tmp_path / "empty", "dynamic")
    assert "does not end in .gguf" in refused(capsys, model / "config.json", "dynamic")
    broken = tiny_model.save_model(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    assert "cannot be loaded" in refused(capsys, broken, "dynamic", "--text", broken / "config.json", "--context", "64",
                                         "--tokens", "64")


def test_lengths_beyond_the_model_or_the_text(model, text, capsys):
    assert "the model has 512" in refused(capsys, model, "dynamic", "--text", text, "--context", "600")
    assert "the model has 512" in refused(capsys, model, "dynamic", "--text", text, "--tokens", "513")
    short = ["--text", text.parent / "short.txt", "--metrics", "memory", "--context", "64"]
    short[1].write_text("Too short.", encoding="utf-8")
    assert "take a longer text" in refused(capsys, model, "dynamic", *short)
    assert "is not a whole number" in refused(capsys, model, "dynamic", "--text", text, "--context", "1x")
    assert "without filler" in refused(capsys, model, "dynamic", "--metrics", "passkey", "--context", "64")


def test_outputs_and_texts_that_cannot_be_used(model, text, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert "cannot be written" in refused(capsys, model, "dynamic", "--text", text, *QUICK, "--out", file)
    missing = tmp_path / "no" / "a.json"
    assert "does not exist" in refused(capsys, model, "dynamic", "--text", text, *QUICK, "--json", missing)
    assert "cannot be read" in refused(capsys, model, "dynamic", "--text", tmp_path / "none")
    assert "is empty" in refused(capsys, model, "dynamic", "--text", file)
    assert "metrics 'speeed'" in refused(capsys, model, "dynamic", "--metrics", "speeed")


def test_caches_that_a_model_cannot_run(text, tmp_path, capsys):
    odd = tiny_model.save_model(tmp_path / "odd", head_dim=24)
    assert "with odd: " in refused(capsys, odd, "kvq-4", "--text", text, *QUICK)
    assert "does not run with odd" in refused(capsys, odd, "quanto-4", "--text", text, *QUICK)


@pytest.mark.skipif(importlib.util.find_spec("hqq") is not None, reason="hqq is installed here")
def test_baselines_that_are_not_installed(model, capsys):
    assert "pip install" in refused(capsys, model, "hqq-4")


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert main(["eval", str(tmp_path / "nowhere"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_usage_errors_are_clicks(capsys):
    assert main(["eval"]) == 2
    assert "Missing argument 'MODEL'" in capsys.readouterr().err
    assert main(["evil"]) == 2
