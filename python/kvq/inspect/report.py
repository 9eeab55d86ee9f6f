# SPDX-License-Identifier: Apache-2.0
"""All that an inspection finds, as one object that JSON can hold. docs/nvidia.md describes its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvq.inspect import in_flight, machine_code, model, steady, workload
from kvq.inspect.gpus import ARCHITECTURES, GPUS, Architecture, Gpu, gpus_of
from kvq.inspect.machine_code import MachineCode
from kvq.inspect.occupancy import occupancy

SCHEMA = 2
SECTOR = 32  # bytes
FROM_WORKLOAD = "workload"
PREDICTED = (
    "predicted from peak rates and static counts, not measured: no dependence, no launch, no imbalance and no cache is "
    "in it, and a real time is longer"
)


def inspect_kernel(
    ptx: str,
    architecture: Architecture,
    *,
    kernel: str | None = None,
    work: workload.Workload | None = None,
    less: workload.Workload | None = None,
    threads: int | None = None,
    elements: int | None = None,
    gpus: Sequence[Gpu] | None = None,
    source: str = "",
) -> dict[str, Any]:
    """`less`: the same launch as `work` over fewer elements; the difference of the two is the steady state, without what
    a launch does once. `threads`: of a block, where neither the workload nor the PTX says. `elements`: those of the predicted time;
    None: the workload's. `gpus`: those that times are predicted for; None: all of the table that the target runs on."""
    kernel = machine_code.choose_kernel(ptx, kernel)
    counts = workload.count(work, ptx, kernel) if work else None
    codes = {architecture.name: machine_code.compile_ptx(ptx, kernel, architecture.name)}
    code = codes[architecture.name]
    threads = (work.threads if work else None) or threads or machine_code.block_threads(ptx, kernel)
    loop = steady.steady_loop(code.function, counts.lines if counts else None)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "kernel": kernel,
        "source": source,
        "target": f"nvptx:{architecture.name}",
        "compiler": code.compiler,
        "resources": _resources(code, work),
        "occupancy": _occupancy(architecture, code, work, threads),
        "workload": _workload(work),
        "counters": _counters(counts, work, less, ptx, kernel) if work and counts else None,
        "loop": _loop(loop, work),
        "predicted": None,
    }
    if work and counts and threads:
        chosen = gpus_of(architecture.name) if gpus is None else gpus
        read = _bytes_of_the_loop(report["counters"])
        report["predicted"] = _predicted(ptx, chosen, codes, work, counts, read, threads, elements or work.elements)
    return report


def _resources(code: MachineCode, work: workload.Workload | None) -> dict[str, Any]:
    return {
        "registers": code.registers, "spill_bytes": code.spill_bytes, "stack_bytes": code.stack_bytes,
        "static_shared_bytes": code.shared_bytes, "dynamic_shared_bytes": work.shared if work else 0,
        "instructions": len(code.function.instructions),
    }  # fmt: skip


def _occupancy(
    architecture: Architecture, code: MachineCode, work: workload.Workload | None, threads: int | None
) -> dict[str, Any] | None:
    if threads is None:
        return None
    found = occupancy(architecture, threads, code.registers, code.shared_bytes + (work.shared if work else 0))
    return {
        "threads": threads, "blocks": found.blocks, "warps": found.warps, "warps_possible": architecture.warps_per_sm,
        "limiter": found.limiter, "blocks_by": found.limits,
    }  # fmt: skip


def _workload(work: workload.Workload | None) -> dict[str, Any] | None:
    if work is None:
        return None
    return {
        "about": work.about, "grid": list(work.grid), "block": list(work.block), "elements": work.elements,
        "elements_per_iteration": work.elements_per_iteration, "bytes_in_flight": work.bytes_in_flight,
    }  # fmt: skip


def _counters(
    counts: workload.Counts, work: workload.Workload, less: workload.Workload | None, ptx: str, kernel: str
) -> dict[str, Any]:
    c, elements = counts.counters, work.elements
    return {
        "status": counts.status,
        "findings": counts.findings,
        **_traffic(c, elements),
        "steady_state": _steady_state(c, work, less, ptx, kernel) if less else None,
        "ptx_instructions_per_element": 32 * c["warp_instructions"] / elements,
        "ptx_instructions_per_element_by_class": {
            name: 32 * count / elements for name, count in c["classes"].items() if count
        },
        "coverage": {"lines": counts.lines_of_kernel, "executed": counts.lines_executed},
    }


def _traffic(c: Mapping[str, Any], elements: int) -> dict[str, Any]:
    asked = c.get("global_bytes")
    return {
        "bytes_per_element": {
            "read_unique": c["unique_global_bytes_read"] / elements,
            "written_unique": c["unique_global_bytes_written"] / elements,
            "requested": SECTOR * c["global_sectors"] / elements,
        },
        "sectors_per_request": c["global_sectors"] / c["global_requests"] if c["global_requests"] else None,
        "sector_share_used": asked / (SECTOR * c["global_sectors"]) if asked and c["global_sectors"] else None,
        "shared_requests": c["shared_requests"],
        "bank_conflicts": c["bank_conflicts"],
    }


def _steady_state(
    c: Mapping[str, Any], work: workload.Workload, less: workload.Workload, ptx: str, kernel: str
) -> dict[str, Any]:
    """Of the elements that `work` has more than `less`."""
    elements = work.elements - less.elements
    before = workload.count(less, ptx, kernel).counters
    more = {name: value - before[name] for name, value in c.items() if name != "classes"}
    return {"elements": elements, **_traffic(more, elements)}


def _bytes_of_the_loop(counters: Mapping[str, Any]) -> float:
    """That an element takes from memory in the loop: in the steady state, if that was counted, else in the launch."""
    return (counters["steady_state"] or counters)["bytes_per_element"]["read_unique"]


def _loop(loop: steady.SteadyLoop | None, work: workload.Workload | None) -> dict[str, Any] | None:
    if loop is None:
        return None
    per_iteration, origin = _elements_per_iteration(loop, work)
    # Elements over iterations visit all elements, whatever the count of iterations: that says nothing.
    known = loop.iterations and origin == FROM_WORKLOAD
    covered = per_iteration * loop.iterations / work.elements if known and work and per_iteration else None
    first = loop.flow.instructions(loop.loop.header)[0]
    return {
        "chosen_by": loop.chosen_by,
        "offset": first.offset,
        "line": first.line,
        "depth": loop.depth,
        "blocks": len(loop.blocks),
        "iterations": loop.iterations,
        "ptx_iterations": loop.copies,
        "issue_slots": loop.issue_slots,
        "instructions_not_always_executed": loop.sometimes,
        "classes": loop.classes,
        "unknown_opcodes": loop.unknown,
        "elements_per_iteration": per_iteration,
        "elements_per_iteration_from": origin,
        "share_of_elements": covered,
        "thread_instructions_per_element": 32 * loop.issue_slots / per_iteration if per_iteration else None,
        "thread_instructions_per_element_of_nest": (
            32 * loop.nest_issue_slots / per_iteration if per_iteration and loop.iterations else None
        ),
    }


def _elements_per_iteration(
    loop: steady.SteadyLoop, work: workload.Workload | None
) -> tuple[float | None, str | None]:
    """Of one warp, and where the number comes from."""
    if work and work.elements_per_iteration:
        return work.elements_per_iteration * loop.copies, FROM_WORKLOAD
    if work and loop.iterations:
        return work.elements / loop.iterations, "elements / iterations"
    return None, None


def _predicted(
    ptx: str,
    gpus: Sequence[Gpu],
    codes: dict[str, MachineCode],
    work: workload.Workload,
    counts: workload.Counts,
    read: float,
    threads: int,
    elements: int,
) -> dict[str, Any] | None:
    """`read`: bytes of an element in the loop. Each GPU by the machine code of its own architecture."""
    rows = []
    for gpu in gpus:
        name = gpu.architecture
        if name not in codes:
            codes[name] = machine_code.compile_ptx(ptx, next(iter(codes.values())).function.name, name)
        code = codes[name]
        loop = steady.steady_loop(code.function, counts.lines)
        per_iteration = _elements_per_iteration(loop, work)[0] if loop else None
        if loop is None or not per_iteration:
            return None
        warps = occupancy(ARCHITECTURES[name], threads, code.registers, code.shared_bytes + work.shared).warps
        rows.append(_row(gpu, loop, per_iteration, work, counts, read, warps, elements))
    return {"note": PREDICTED, "elements": elements, "gpus": rows}


def _bytes_in_flight(loop: steady.SteadyLoop, unique: float, work: workload.Workload) -> tuple[float, str]:
    """Of one warp, and where the number comes from. `unique`: bytes from memory in one iteration."""
    if work.bytes_in_flight:
        return work.bytes_in_flight, "workload"
    waiting = in_flight.waiting_bytes(loop)
    if waiting is None:
        return unique, "one iteration"
    # Lanes that ask for the same bytes, and bytes that caches have, are no traffic.
    loads = waiting * min(1.0, unique / in_flight.asked_bytes(loop))
    # Of a later iteration, which then waits for the second level only.
    ahead = min(unique, in_flight.prefetched_bytes(loop))
    return (ahead, "prefetches of one iteration") if ahead > loads else (loads, "loads until their first use")


def _row(
    gpu: Gpu,
    loop: steady.SteadyLoop,
    per_iteration: float,
    work: workload.Workload,
    counts: workload.Counts,
    read: float,
    warps: int,
    elements: int,
) -> dict[str, Any]:
    c = counts.counters
    of_element = (c["unique_global_bytes_read"] + c["unique_global_bytes_written"]) / work.elements
    pipes = {name: amount / per_iteration for name, amount in loop.nest_pipes.items()}
    pipes["lsu"] = pipes.get("lsu", 0.0) + c["bank_conflicts"] / work.elements
    cost = model.Cost(of_element, loop.nest_issue_slots / per_iteration, pipes)
    asked, origin = _bytes_in_flight(loop, read * per_iteration, work)
    found = model.predict(gpu, cost, elements, warps, asked)
    finite = {name: value for name, value in found.seconds.items() if value != float("inf")}
    return {
        "gpu": gpu.name,
        "architecture": gpu.architecture,
        "warps": warps,
        "predicted_us": found.time * 1e6 if found.limiter in finite else None,
        "predicted_bandwidth_share": found.bandwidth_share,
        "predicted_limiter": model.LIMITERS[found.limiter],
        "predicted_us_by": {model.LIMITERS[name]: value * 1e6 for name, value in finite.items()},
        "predicted_us_of_one_warp": found.one_warp * 1e6 if found.limiter in finite else None,
        "predicted_bytes_in_flight": found.in_flight,
        "predicted_bytes_in_flight_from": origin,
        "predicted_bytes_in_flight_needed": found.in_flight_needed,
        "sources": GPUS[gpu.name].sources,
    }
