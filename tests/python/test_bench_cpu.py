# SPDX-License-Identifier: Apache-2.0
"""./dev bench cpu: a quick run leaves every record it promises, and its report passes nothing that was not reached.

No figure is compared with another: a test machine may be busy.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import common  # noqa: E402
from cpu import native, report, setting, shapes  # noqa: E402

QUICK = setting.QUICK
CLASSES = ("exact", "fast")


@pytest.fixture(name="run", scope="module")
def quick_run(tmp_path_factory):
    """(the JSON file's content, its path, what was printed) of a quick run of two classes whose buffers are small."""
    file = tmp_path_factory.mktemp("bench") / "cpu.json"
    command = [sys.executable, BENCH / "run.py", "cpu", "--quick", "--rounds", "2", "--rotate-mib", "1", "--json", file]
    command += [f"--accuracy={name}" for name in CLASSES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text(encoding="utf-8")), file, done.stdout


def promised(classes):
    """Names that a quick run must leave, whatever peers there are."""
    for threads in (1, 2):
        yield from (f"stream/{loop}/{threads}" for loop in ("plain", "prefetch", "four-streams"))
    four, eight, n = setting.FOUR_BITS, setting.EIGHT_BITS, QUICK.shapes
    seen, long = QUICK.window
    new, past = QUICK.prefill
    low, high = QUICK.ragged
    for name in classes:
        for text in ("k8t128-v8t128", "k4c128-v4t128", "k4c32-v4t32", "k2c128-v2t128", "k4c128-v2t128"):
            yield from (f"attend/{text}/{name}/{n}/{threads}" for n in QUICK.lengths for threads in (1, 2))
            yield f"cached/{text}/{name}/{QUICK.lengths[0]}/1"
        yield from (f"heads/k4c128-v4t{d}/{name}/{n}/1/d{d}" for d in (64, 80, 96, 128, 192, 256))
        yield from (f"ratios/{four}/{name}/{n}/1/g{ratio}" for ratio in (1, 2, 3, 4, 5, 6, 7, 8, 16))
        yield from (f"queries/{text}/{name}/{n}/1/q{k}" for text in (four, eight) for k in range(1, 9))
        yield from (f"window/{four}/{name}/{long}/1/w{seen}", f"window/{four}/{name}/{seen}/1")
        yield f"prefill/{four}/{name}/{new}+{past}/1"
        yield from (f"ragged/{four}/{name}/8x{low}-{high}/{threads}" for threads in (1, 2))
        yield from (f"attend/{text}/{name}/{QUICK.peers}/1" for text in (four, eight))
    for dtype in ("float16", "float32"):
        sides = ("k8c128", "k8t128", "k4c128", "k4t128", "k4c32", "k2c128", "k2t128")
        yield from (f"quantize/{side}/{dtype}" for side in sides)
        yield from (f"quantize/{side}/{dtype}" for side in ("v8c128", "v8t128", "v4c128", "v4t128", "v4t32", "v2c128"))
        yield from (f"append/{four.replace('c', 't')}/{dtype}/{tokens}" for tokens in (1, 128))
    for route in ("sdpa", "matmul+softmax"):
        yield from (f"peer/torch-{route}-{dtype}/{QUICK.peers}/1" for dtype in ("float32", "bfloat16"))
    yield f"peer/quantizedcache-int4/{QUICK.peers}/1"


@pytest.mark.bench
def test_quick_run_leaves_every_record(run):
    about, names = run[0]["cpu"], {record["name"] for record in run[0]["records"]}
    assert about["classes"] == list(CLASSES)
    assert sorted(set(promised(about["classes"])) - names) == []
    beside = [name for name in names if name.startswith("beside-torch/")]
    assert len(beside) == 8 and all(name.endswith(("-busy", "-parked")) for name in beside)


@pytest.mark.bench
def test_records_have_their_fields_and_positive_figures(run):
    records = run[0]["records"]
    names = {record["name"] for record in records}
    for record in records:
        assert record["suite"] == "cpu" and record["value"] > 0, record
        assert record["unit"] in ("ms", "GB/s", "tokens/s")
        assert (record["baseline"] is None) == (record["ratio"] is None)
        assert record["baseline"] is None or record["baseline"] in names and record["ratio"] > 0, record
        if record["unit"] == "ms":
            assert all(record[field] > 0 for field in ("ge_s", "gb_s", "bytes", "elements", "bits")), record
            assert record["gb_s"] == pytest.approx(record["ge_s"] * record["bits"] / 8)
        if record["name"].startswith(("attend/", "cached/", "peer/")) and record["unit"] == "ms":
            assert record["stream_share"] == pytest.approx(record["gb_s"] / record["stream_gb_s"])


@pytest.mark.bench
def test_bytes_are_those_of_the_format_and_its_window(run):
    wanted = {"k8t128-v8t128": 8.25, "k4c128-v4t128": 4.25, "k2c128-v2t128": 2.25, "k4c32-v4t32": 5.0}
    tokens = QUICK.lengths[-1]
    for text, packed in wanted.items():
        record = next(r for r in run[0]["records"] if r["name"] == f"attend/{text}/exact/{tokens}/1")
        # The newest 128 tokens are in float32 (tail_c1); a scale and a minimum of 16 bits in each group (page_c5).
        assert record["bits"] == pytest.approx(packed + (32 - packed) * 128 / tokens, rel=1e-3)


@pytest.mark.bench
def test_machine_is_described(run):
    about, own = run[0]["machine"], run[0]["cpu"]
    assert {"processor", "features", "level", "levels", "commit", "dirty", "versions", "allocator"} <= about.keys()
    assert own["quick"] and own["failed"] == [] and own["rotated_bytes"] == 2**20
    assert own["peers"].keys() == {"llama-cpp-python", "optimum-quanto"}
    assert {line["verdict"] for line in own["shown"]} >= {"not measured at 131072 tokens"}
    assert about["allocator"] == {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
    peers = set(own["missing"]) | {r["name"].split("/")[1] for r in run[0]["records"]
                                                   if r["name"].startswith("peer/")}
    assert {"ggml-f16", "ggml-q8_0", "ggml-q4_0", "quantizedcache-int8"} <= peers
    assert all(reason and "\n" not in reason for reason in own["missing"].values())


@pytest.mark.bench
def test_picture_and_tables(run):
    _, file, printed = run
    picture = file.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20000
    assert "share of the stream rate" in printed and "what it must show" in printed
    # A quick run has not measured 128k tokens.
    asked = printed.split("exact: shares of the stream\n")[1].splitlines()[0].strip()
    assert asked.startswith("asked 60 % 54 % 45 % 31 % 43 %; got ")
    assert asked.endswith(": not measured at 131072 tokens")


# ---- the report over made-up records --------------------------------------------------------------------------------
ABOUT = {"features": ["avx512_vnni"], "level": "x86-64-v4-vnni", "levels": ["x86-64-v3", "x86-64-v4-vnni"]}


def lines_of(records, about=ABOUT, size=setting.FULL):
    lines = report.Report(records, about, ["exact", "fast"], size).lines()
    return {line.what: line for line in lines}


def shares(*values):
    return [{"name": f"attend/{text}/exact/131072/1", "baseline": None, "stream_share": value, "value": 1.0}
            for text, value in zip(setting.FORMATS, values)]


@pytest.mark.parametrize("last, verdict", [(0.43, "holds"), (0.42, "misses")])
def test_share_of_the_stream_is_held_to_the_bar(last, verdict):
    line = lines_of(shares(0.63, 0.57, 0.47, 0.33, last))["exact: shares of the stream"]
    assert line.verdict == verdict


def test_bar_of_another_processor_is_never_passed():
    records = shares(1.0, 1.0, 1.0, 1.0, 1.0)
    for about in (ABOUT | {"features": ["avx2"]}, ABOUT | {"level": "x86-64-v3"}):
        line = lines_of(records, about)["exact: shares of the stream"]
        assert line.verdict.startswith("cannot be shown here")
    assert lines_of(records)["fast: shares of the stream"].verdict == "not measured at 131072 tokens"


def test_nothing_measured_is_nothing_shown():
    assert not {line.verdict for line in lines_of([]).values()} & {"holds", "misses"}


def against(ratio, share, text=setting.FOUR_BITS, peer="ggml-q4_0", suffix="", level="x86-64-v4-vnni"):
    return {"name": f"attend/{text}/normal/32768/1{suffix}", "baseline": f"peer/{peer}/32768/1", "ratio": ratio,
            "stream_share": share, "dtype": "float32", "level": level, "value": 1.0}


@pytest.mark.parametrize("ratio, share, verdict", [(36, 0.5, "holds"), (34, 0.5, "misses"), (20, 0.71, "holds"),
                                                   (20, 0.69, "misses")])
def test_multiple_gives_way_to_the_share_on_slow_memory(ratio, share, verdict):
    line = lines_of([against(ratio, share)])["normal: k4c128-v4t128 against ggml-q4_0"]
    assert line.verdict == verdict
    assert ("of the stream" in line.asked) == (ratio == 20)


def test_fastest_route_of_torch_is_the_baseline():
    line = lines_of([against(9, 0.1, peer="torch-sdpa-float32"), against(7, 0.1, peer="torch-sdpa-bfloat16")])[
        "normal: k4c128-v4t128 against the fastest route of torch"]
    assert (line.got, line.verdict) == ("7.0x", "misses")


def test_forced_level_is_its_own_case():
    records = [against(40, 0.5), against(4, 0.1, suffix="/x86-64-v3", level="x86-64-v3")]
    lines = lines_of(records)
    assert lines["normal: k4c128-v4t128 against ggml-q4_0"].got == "40.0x"
    assert lines["normal: k4c128-v4t128 at x86-64-v3 against ggml-q4_0 at its native level"].verdict == "misses"


def ratio_record(ratio, element, query_head):
    return {"name": f"ratios/k4c128-v4t128/exact/32768/1/g{ratio}", "accuracy": "exact", "group_ratio": ratio,
            "element_cost_of_ratio_4": element, "query_head_cost_of_ratio_4": query_head, "value": 1.0,
            "baseline": None}


def test_worst_ratio_decides():
    lines = lines_of([ratio_record(3, 1.1, 1.5), ratio_record(4, 1.0, 1.0), ratio_record(7, 2.0, 1.2)])
    above = lines[f"exact: cost of element and query head, ratio 4 to {shapes.RATIOS[-1]}, of ratio 4's"]
    below = lines["exact: cost of element, ratio 1 to 3, of ratio 4's"]
    assert (above.got, above.verdict) == ("1.20 (g7)", "holds")
    assert (below.got, below.verdict) == ("1.10 (g3)", "misses")


# ---- the shared mechanism ------------------------------------------------------------------------------------------
def test_turns_change_their_order_and_what_comes_before_is_not_timed():
    said = []
    times = common.interleave({"a": lambda: said.append("a") or 1, "b": lambda: said.append("b") or 2}, rounds=2,
                              warm_up=1, before={"b": lambda: said.append("before")})
    assert said == ["before", "b", "a", "a", "before", "b", "before", "b", "a"]
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}


def test_suites_of_one_run_share_a_file(tmp_path):
    for suite in ("one", "two"):
        records = common.Records(suite)
        records.add("x", 1.0, "ms", tokens=7)
        records.write(tmp_path / "all.json", {"processor": "P"}, part=suite)
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert [record["suite"] for record in found["records"]] == ["one", "two"]
    assert found["records"][0]["tokens"] == 7
    assert (found["machine"], found["one"], found["two"]) == ({"processor": "P"}, {"part": "one"}, {"part": "two"})


def test_missing_tools_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "PEERS", tmp_path)
    monkeypatch.setattr(native, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(native.Missing, match="kvq_stream cannot be compiled: install cmake and ninja"):
        native.built("kvq_stream")


def test_failing_download_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "PEERS", tmp_path)
    monkeypatch.setattr(native, "GGML_VERSION", "0.0.0")
    monkeypatch.setattr(native, "PIP_OPTIONS", (*native.PIP_OPTIONS, "--no-index"))
    with pytest.raises(native.Missing, match="downloading llama-cpp-python 0.0.0 failed: .*") as raised:
        native.download_ggml()
    assert "\n" not in str(raised.value)


def test_unknown_part_is_refused():
    done = subprocess.run([sys.executable, BENCH / "cpu_suite.py", "--only", "nothing"], capture_output=True, text=True,
                          check=False, env=dict(os.environ), timeout=60)
    assert done.returncode == 2
    assert "invalid choice: 'nothing'" in done.stderr
