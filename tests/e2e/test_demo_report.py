# SPDX-License-Identifier: Apache-2.0
"""The demo on a tiny random model: its report has the promised schema and says plausible things."""

import json
import math
import subprocess
import sys

import pytest

ROW = {"format", "bytes_per_token", "bits_per_element", "perplexity", "kl", "top1", "tokens_per_s"}


def run_demo(folder, device):
    command = [sys.executable, "-m", "kvq.demo", "--tiny", "--device", device, "--out", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def demo(device, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return run_demo(folder, device), folder


@pytest.fixture(scope="module")
def report(demo):
    return json.loads((demo[1] / "report.json").read_text(encoding="utf-8"))


def test_schema(report):
    assert set(report) == {"machine", "baselines", "rows"}
    assert all(set(row) == ROW for row in report["rows"])
    lengths = list(report["rows"][0]["tokens_per_s"])
    for row in report["rows"]:
        assert list(row["tokens_per_s"]) == lengths
        numbers = [row[name] for name in ROW - {"format", "tokens_per_s"}] + list(row["tokens_per_s"].values())
        assert all(isinstance(number, float) and math.isfinite(number) for number in numbers)
        assert all(speed > 0 for speed in row["tokens_per_s"].values())
    assert set(report["baselines"]) == {"DynamicCache", "QuantizedCache quanto int4", "fp16"}


def test_full_precision_is_the_first_row(report):
    full, half = report["rows"][0], report["baselines"]["fp16"]
    assert full["format"] == "full precision"
    assert (full["kl"], full["top1"], full["bits_per_element"]) == (0.0, 1.0, 32.0)
    assert full["bytes_per_token"] == 2 * half["bytes_per_token"] == 2 * 2 * 2 * 32 * 2  # layers, heads, Dk + Dv, f16


def test_fewer_bits_say_less(report):
    eight, two = report["rows"][1:]
    assert eight["format"].startswith("k8") and two["format"].startswith("k2")
    assert 0 < eight["kl"] < two["kl"] / 10
    assert eight["top1"] >= two["top1"]
    assert two["bytes_per_token"] < eight["bytes_per_token"]
    assert eight["perplexity"] == pytest.approx(report["rows"][0]["perplexity"], rel=1e-3)


def test_machine_says_what_figures_depend_on(report):
    machine = report["machine"]
    assert machine["torch_threads"] >= 1 and machine["cores"] >= 1
    assert machine["allocator"]["MALLOC_MMAP_MAX_"] == "0"
    assert machine["dtype"] == "float32"


def test_picture_is_a_png(demo):
    assert (demo[1] / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_screen_shows_kernels_answers_and_rows(demo, report):
    screen = demo[0]
    assert "attend:" in screen and "quantize_k:" in screen
    assert "differs from token" in screen or "the same to the end" in screen
    assert all(row["format"] in screen for row in report["rows"])
