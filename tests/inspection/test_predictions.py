# SPDX-License-Identifier: Apache-2.0
"""Predicted times against computing by hand, and the table of GPUs against the figures that its sources name."""

import re
from pathlib import Path

import pytest
from kvq.errors import InvalidArgument
from kvq.inspect.gpus import ARCHITECTURES, GPUS, Gpu, architecture_of, gpus_of
from kvq.inspect.model import LATENCY, MEMORY, Cost, predict

# 10 multiprocessors of sm_80 at 1 GHz: 10^10 clocks of multiprocessors a second.
TOY = Gpu("toy", "sm_80", 10, 1000, 1000.0, 100.0, {}, latency_ns=1000.0)
ELEMENTS = 10**6


def limits(cost, warps=8, in_flight=4096.0, gpu=TOY):
    return predict(gpu, cost, ELEMENTS, warps, in_flight)


def test_memory():
    found = limits(Cost(0.5, 0.01, {}))
    # 0.5 MB at 100 GB/s; 8 * 4096 bytes in flight against 100 GB/s * 1000 ns / 10.
    assert found.limiter == MEMORY and found.time == pytest.approx(5e-6) and found.bandwidth_share == 1
    assert (found.in_flight, found.in_flight_needed) == (32768, pytest.approx(10000))
    assert found.seconds["issue"] == pytest.approx(0.01 * ELEMENTS / (4 * 1e10))


def test_bytes_in_flight():
    found = limits(Cost(0.5, 0.01, {}), warps=2, in_flight=1250.0)
    assert found.limiter == LATENCY and found.time == pytest.approx(5e-6 * 10000 / 2500)
    assert found.bandwidth_share == pytest.approx(0.25)
    # Exactly enough is a matter of memory; none at all has no end.
    assert limits(Cost(0.5, 0.0, {}), warps=8, in_flight=1250.0).limiter == MEMORY
    assert limits(Cost(0.5, 0.0, {}), warps=0).time == float("inf")


@pytest.mark.parametrize(
    "pipes, issue, limiter, clocks",
    [
        ({}, 8.0, "issue", 8 / 4),
        ({"alu": 128.0}, 0.1, "alu", 128 / 64),
        ({"xu": 32.0}, 0.1, "xu", 32 / 16),
        ({"half": 256.0}, 0.1, "half", 256 / 128),
        ({"lsu": 2.0}, 0.1, "lsu", 2.0),
        ({"tensor": 2000.0}, 0.1, "tensor", 2000 / 1000),
        # Integer multiply-adds share the pipe of FP32.
        ({"fma": 64.0, "fmaheavy": 64.0}, 0.1, "fma", 128 / 64),
    ],
)
def test_pipes(pipes, issue, limiter, clocks):
    found = limits(Cost(0.001, issue, pipes))
    assert found.limiter == limiter and found.time == pytest.approx(clocks * ELEMENTS / 1e10)


def test_one_warp_waits_for_what_it_asked_for_or_has_a_quarter_of_a_multiprocessor():
    """The bandwidth is nothing to it, nor how many there could be."""
    waits = Cost(0.5, 0.01, {})
    assert limits(waits).one_warp == pytest.approx(ELEMENTS * 0.5 / 4096 * 1000e-9)
    assert limits(waits, in_flight=2048.0).one_warp == 2 * limits(waits).one_warp == 2 * limits(waits, warps=2).one_warp
    works = limits(Cost(0.001, 1.0, {"alu": 32.0}))
    assert works.one_warp == pytest.approx(ELEMENTS * 32 / (64 / 4) / 1e9)
    assert limits(Cost(0.001, 8.0, {"alu": 32.0})).one_warp == pytest.approx(ELEMENTS * 8 / 1e9)  # one a clock
    assert limits(waits, in_flight=0.0).one_warp == limits(waits, in_flight=0.0).time == float("inf")


def test_halves_take_the_pipe_of_fp32_but_on_sm_80():
    cost = Cost(0.001, 0.1, {"fma": 64.0, "half": 64.0})
    assert limits(cost).time == pytest.approx(1.0 * ELEMENTS / 1e10)
    ada = Gpu("ada", "sm_89", 10, 1000, 1000.0, 100.0, {})
    assert limits(cost, gpu=ada).time == pytest.approx((64 / 128 + 64 / 64) * ELEMENTS / 1e10)


def test_as_it_was_worked_out_for_decode_attention():
    """4 bits, 0.53 bytes an element, 76 matrix products, 490 slots and 16384 elements a tile: memory-bound on A100."""
    pipes = {"alu": 300 * 32 / 16384, "tensor": 76 * 2048 / 16384}
    found = predict(GPUS["A100"], Cost(136 / 256, 490 / 16384, pipes), 10**9, 12, 4096)
    clocks = {name: value * 1e-9 * 1410e6 * 108 * 16384 for name, value in found.seconds.items()}
    # Clocks a tile and multiprocessor; a partition has a fourth of the tiles. Memory: 8,704 bytes at 13.4 a clock.
    assert found.limiter == MEMORY and clocks[MEMORY] == pytest.approx(8704 / 13.4, rel=0.01)
    assert clocks["issue"] == pytest.approx(490 / 4) and clocks["tensor"] == pytest.approx(76 * 2)
    assert clocks["alu"] == pytest.approx(150)


# What the named sources say: dense TFLOPS of halves with FP32 sums, FP32 TFLOPS.
PUBLISHED = {
    "A100": (312, 19.5), "RTX 4090": (165.2, 82.6), "L4": (121, 30.3), "RTX 5090": (209.5, 104.8),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_are_those_published(name):
    gpu, (tensor, fp32) = GPUS[name], PUBLISHED[name]
    clocks = gpu.clock_mhz * 1e6 * gpu.multiprocessors
    assert 2 * gpu.tensor * clocks == pytest.approx(tensor * 1e12, rel=0.01)
    assert 2 * ARCHITECTURES[gpu.architecture].fma * clocks == pytest.approx(fp32 * 1e12, rel=0.01)


def test_hopper_and_b200_say_that_they_are_assumed():
    for name in ("H100", "H200", "B200"):
        assert "assumed" in GPUS[name].sources["tensor"]
    assert 2 * 2048 * 1830e6 * 132 == pytest.approx(989.4e12, rel=0.001)
    assert GPUS["H100"].tensor < 2048 and GPUS["H200"].tensor == GPUS["H100"].tensor


def test_every_figure_has_a_source():
    for gpu in GPUS.values():
        assert set(gpu.sources) == {"multiprocessors", "clock_mhz", "tensor", "bandwidth_gb_s", "latency_ns",
                                    "second_level_ns"}  # fmt: skip
        assert gpu.second_level_ns == gpu.latency_ns / 2  # as the source says
        assert all(len(text) > 5 for text in gpu.sources.values()) and gpu.architecture in ARCHITECTURES
        number = re.search(r"([\d.,]+) ?([GT])B/s", gpu.sources["bandwidth_gb_s"])
        assert gpu.bandwidth_gb_s == float(number[1].replace(",", "")) * (1000 if number[2] == "T" else 1)
    assert all(a.source for a in ARCHITECTURES.values())


def test_documented_table_is_this_one():
    text = (Path(__file__).resolve().parents[2] / "docs/nvidia.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.search(r"\| sm_\d+ \|", line)]
    assert rows == [
        [g.name, g.architecture, *map(str, (g.multiprocessors, g.clock_mhz, round(g.tensor), round(g.bandwidth_gb_s)))]
        for g in GPUS.values()
    ]


def test_targets():
    assert architecture_of("nvptx:sm_120").name == "sm_120"
    assert architecture_of("nvptx:sm_80+magic").name == "sm_80"
    for wrong in ("sm_80", "nvptx:sm_81", "nvptx:", "x86-64-v3"):
        with pytest.raises(InvalidArgument, match=f"there is no target '{wrong}': use one of nvptx:sm_80, nvptx:sm_86"):
            architecture_of(wrong)
    assert [g.name for g in gpus_of("sm_100")] == ["B200", "RTX 5090"] and gpus_of("sm_80") == list(GPUS.values())
