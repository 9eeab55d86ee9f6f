# SPDX-License-Identifier: Apache-2.0
"""A report for reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def render(report: dict[str, Any]) -> str:
    return "\n".join(_lines(report)) + "\n"


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"kernel {report['kernel']}, {report['target']}, {report['compiler']}"
    resources = report["resources"]
    yield _row("registers a thread", resources["registers"])
    yield _row("spilled bytes", resources["spill_bytes"])
    static, dynamic = resources["static_shared_bytes"], resources["dynamic_shared_bytes"]
    yield _row("shared memory of a block", f"{static} + {dynamic} bytes")
    yield from _occupancy(report["occupancy"])
    yield from _counters(report)
    yield from _loop(report["loop"])
    yield from _predicted(report["predicted"])


def _row(name: str, value: object) -> str:
    return f"  {name:34} {value}"


def _occupancy(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield _row("occupancy", "not known: give --block, the threads of a block")
        return
    blocks = f"{found['blocks']} of {found['threads']} threads, limited by {found['limiter']}"
    yield _row("blocks a multiprocessor", blocks)
    yield _row("warps a multiprocessor", f"{found['warps']} of {found['warps_possible']}")


def _counters(report: dict[str, Any]) -> Iterator[str]:
    found, work = report["counters"], report["workload"]
    if found is None:
        yield "counters: none, without --workload nothing is executed"
        return
    yield f"counters of the simulator: {work['about'] or 'workload'}, {work['elements']} elements of K and V"
    if found["status"] != "ok" or found["findings"]:
        end = f"{found['status']}, {found['findings']} findings"
        yield _row("the run ended", f"{end}: the counters are of a faulty run")
    yield from _traffic(found)
    coverage = found["coverage"]
    yield _row("PTX lines executed", f"{coverage['executed']} of {coverage['lines']}")
    yield _row("PTX instructions an element", f"{found['ptx_instructions_per_element']:.3f}")
    groups = sorted(found["ptx_instructions_per_element_by_class"].items(), key=lambda item: -item[1])
    for name, value in groups:
        yield f"    {name:32} {value:.4f}"
    if found["steady_state"] is not None:
        fewer = work["elements"] - found["steady_state"]["elements"]
        yield f"counters of the steady state: the same, less those of a launch over {fewer} elements"
        yield from _traffic(found["steady_state"])


def _traffic(found: dict[str, Any]) -> Iterator[str]:
    size = found["bytes_per_element"]
    yield _row("bytes an element", f"{size['read_unique']:.4f} read, {size['written_unique']:.4f} written")
    yield _row("requested from memory", f"{size['requested']:.4f}")
    if found["sectors_per_request"] is not None:
        used = found["sector_share_used"]
        full = "" if used is None else ", all full" if used == 1 else f", {100 * used:.1f} % of their bytes used"
        yield _row("sectors a request", f"{found['sectors_per_request']:.2f}{full}")
    yield _row("bank conflicts", f"{found['bank_conflicts']} in {found['shared_requests']} requests")


def _loop(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield "steady-state loop: the machine code has no loop"
        return
    line = "" if found["line"] is None else f", PTX line {found['line']}"
    yield f"steady-state loop at 0x{found['offset']:x}{line}, chosen by {found['chosen_by']}"
    yield _row("issue slots an iteration", f"{found['issue_slots']:.1f}")
    if found["instructions_not_always_executed"]:
        weighed = "weighed by executions" if found["iterations"] else "counted in full"
        number = found["instructions_not_always_executed"]
        yield _row("of these not always executed", f"{number} instructions, {weighed}")
    if found["thread_instructions_per_element"] is not None:
        origin = found["elements_per_iteration_from"]
        yield _row("elements a warp and iteration", f"{found['elements_per_iteration']:.1f} ({origin})")
        yield _row("thread instructions an element", f"{found['thread_instructions_per_element']:.3f}")
        nest = found["thread_instructions_per_element_of_nest"]
        if nest is not None and nest != found["thread_instructions_per_element"]:
            yield _row("  with loops around and inside", f"{nest:.3f}")
    if found["share_of_elements"] is not None:
        yield _row("elements that the loop visits", f"{100 * found['share_of_elements']:.1f} %")
    for name, value in found["classes"].items():
        yield f"    {name:32} {value:.1f}"
    if found["unknown_opcodes"]:
        yield _row("opcodes of no known class", ", ".join(found["unknown_opcodes"]))


def _predicted(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield "predicted: nothing, without a workload and a loop there is nothing to predict from"
        return
    yield f"PREDICTED for {found['elements']} elements: {found['note']}"
    origins = sorted({row["predicted_bytes_in_flight_from"] for row in found["gpus"]})
    yield f"  bytes in flight of a warp by {', '.join(origins)}"
    heading = ("GPU", "predicted us", "of bandwidth", "warps", "in flight / needed", "predicted limiter")
    yield "  {:10} {:>12} {:>12}  {:>5} {:>20}  {}".format(*heading)
    for row in found["gpus"]:
        time = "-" if row["predicted_us"] is None else f"{row['predicted_us']:.2f}"
        share = f"{100 * row['predicted_bandwidth_share']:.1f} %"
        flight, needed = (row[f"predicted_bytes_in_flight{end}"] / 1024 for end in ("", "_needed"))
        yield (
            f"  {row['gpu']:10} {time:>12} {share:>12}  {row['warps']:5} {f'{flight:.1f} / {needed:.1f} KiB':>20}  "
            f"{row['predicted_limiter']}"
        )
