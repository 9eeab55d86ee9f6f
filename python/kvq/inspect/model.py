# SPDX-License-Identifier: Apache-2.0
"""What a kernel would take on a GPU if one thing alone held it up: a prediction, never a measurement.

Each resource is taken at its peak rate, over all multiprocessors, each full of warps in the steady-state loop all the
time; they overlap perfectly, so that the slowest one is the time. Launching, the code outside of the loop, uneven work,
dependences between instructions, caches that are hit and clocks that are throttled are not in it: a real time is
longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvq.inspect.gpus import ARCHITECTURES, Gpu
from kvq.inspect.occupancy import PARTITIONS

# How the report names what each resource is.
MEMORY, ISSUE, LATENCY = "memory", "issue", "latency"
LIMITERS = {
    MEMORY: MEMORY,
    ISSUE: ISSUE,
    LATENCY: "latency (bytes in flight)",
    "alu": "ALU",
    "fma": "FP32",
    "fmaheavy": "integer multiply",
    "half": "half",
    "xu": "MUFU",
    "lsu": "load/store",
    "tensor": "tensor",
}


@dataclass(frozen=True)
class Cost:
    """Of one element of K or V, by the whole GPU."""

    bytes: float  # from memory
    issue_slots: float  # warp instructions
    pipes: dict[str, float]  # in the units of opcodes.Cost


@dataclass(frozen=True)
class Prediction:
    gpu: str
    seconds: dict[str, float]  # of each resource alone
    limiter: str  # a key of LIMITERS
    time: float  # seconds: the largest
    bandwidth_share: float  # of the memory's peak
    in_flight: float  # bytes a multiprocessor has asked for
    in_flight_needed: float  # by Little's law: bandwidth times latency
    one_warp: float  # seconds of a single warp on a GPU that does nothing else, as below


def predict(gpu: Gpu, cost: Cost, elements: int, warps: int, bytes_in_flight: float) -> Prediction:
    """`warps` stand on a multiprocessor, each with so many bytes asked for."""
    architecture = ARCHITECTURES[gpu.architecture]
    clocks = gpu.clock_mhz * 1e6 * gpu.multiprocessors
    bandwidth = gpu.bandwidth_gb_s * 1e9
    needed = bandwidth * gpu.latency_ns * 1e-9 / gpu.multiprocessors
    in_flight = warps * bytes_in_flight
    rates = {
        "alu": architecture.alu, "fma": architecture.fma, "fmaheavy": architecture.fmaheavy, "half": architecture.half,
        "xu": architecture.xu, "lsu": architecture.lsu, "tensor": gpu.tensor,
    }  # fmt: skip
    work = dict(cost.pipes)
    # Integer multiply-adds go through one half of the FP32 pipe, where that has two.
    work["fma"] = work.get("fma", 0.0) + work.get("fmaheavy", 0.0)
    seconds = {MEMORY: cost.bytes / bandwidth, ISSUE: cost.issue_slots / (architecture.issue * clocks)}
    seconds |= {pipe: work.get(pipe, 0.0) / (rate * clocks) for pipe, rate in rates.items()}
    if architecture.half_in_fma:
        seconds["fma"] += seconds["half"]
    seconds[LATENCY] = seconds[MEMORY] * needed / in_flight if in_flight else float("inf")
    seconds = {name: value * elements for name, value in seconds.items()}
    # Among equals the first one: enough bytes in flight are a matter of memory.
    limiter = max(seconds, key=lambda name: (seconds[name], name == MEMORY))
    time = seconds[limiter]
    # One warp waits for what it asked for, and has the pipes and the issue slots of a partition for itself. It never
    # comes near the memory's bandwidth.
    waits = elements * cost.bytes * gpu.latency_ns * 1e-9 / bytes_in_flight if bytes_in_flight else float("inf")
    works = max(value for name, value in seconds.items() if name not in (MEMORY, LATENCY))
    one_warp = max(waits, works * gpu.multiprocessors * PARTITIONS)
    return Prediction(gpu.name, seconds, limiter, time, seconds[MEMORY] / time, in_flight, needed, one_warp)
