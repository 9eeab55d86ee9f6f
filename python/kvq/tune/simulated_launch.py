# SPDX-License-Identifier: Apache-2.0
"""Launches of a cache's kernels besides attend for the PTX simulator: those of kvq.tune.cache_launches, small. Costs are
by element, of which a launch of any size has the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kvq import lowlevel
from kvq.inspect import machine_code
from kvq.inspect.arguments import Buffers, number
from kvq.inspect.workload import Workload
from kvq.tune.kernels import MERGED_RATIO, merge_splits, workload_launches
from kvq.tune.launch_memory import Launch, LaunchMemory
from kvq.tune.problem import Problem
from kvq.tune.request_fields import parse
from kvq.tune.split_policy import ACCELERATOR

HEADS, SEQUENCES, PAGES = 2, 2, 4  # of K and V; of each sequence
MERGED_TOKENS = 1 << 14  # enough splits for the loop over parts to be what merge spends its time in


def elements_of(problem: Problem) -> int:
    """Elements of K or V that a launch visits: of K and of V for append, of all parts for merge."""
    fields, conditions = parse(problem.request), problem.conditions
    if fields.operation == "merge":
        return sum(merge_splits(problem, fields, ACCELERATOR)) * MERGED_RATIO * conditions.heads * fields.dv
    sizes = {"k": fields.dk, "v": fields.dv}
    rows = conditions.batch * conditions.heads
    if fields.operation == "append":
        return rows * sum(sizes.values())
    tokens = fields.commit_group if fields.operation.startswith("quantize") else conditions.tokens
    return rows * tokens * sizes[fields.operation[-1]]


def small(problem: Problem) -> Problem:
    """The same kernel with few programs."""
    given = problem.conditions
    fields = parse(problem.request)
    tokens = min(given.tokens, MERGED_TOKENS if fields.operation == "merge" else PAGES * fields.page)
    batch, heads = min(given.batch, SEQUENCES), min(given.heads, HEADS)
    return replace(problem, conditions=replace(given, tokens=tokens, batch=batch, heads=heads))


def launch_of(problem: Problem, reference: lowlevel.Context) -> Launch:
    """`reference`: a context of the device ref, whose kernel can run it too."""
    (launch,) = workload_launches(problem, 1, LaunchMemory(reference), reference, ACCELERATOR)
    return launch


def simulated(problem: Problem, ptx: str, launch: Launch, folder: Path) -> Workload:
    """Writes the launch's buffers into the folder."""
    programs = launch.grid[0]
    grid, block = machine_code.of_programs(ptx, programs)
    return Workload(
        grid=grid, block=block, elements=elements_of(problem),
        arguments=(*_arguments(launch, folder), number(programs)), about=str(problem),
    )  # fmt: skip


def _arguments(launch: Launch, folder: Path) -> list[str]:
    import numpy as np

    buffers, texts = Buffers(folder), []
    written = [output.buffer for output in launch.outputs.values()]
    for output in launch.outputs.values():
        output.reset()
    for index, argument in enumerate(launch.arguments):
        if not isinstance(argument, lowlevel.Buffer):
            texts.append(number(int(argument)))
            continue
        raw = np.empty(argument.nbytes, np.uint8)
        argument.download(raw)
        text = buffers.read(str(index), raw.tobytes())
        changed = any(argument is buffer for buffer in written)
        texts.append("inout:" + text.removeprefix("in:") if changed else text)
    return texts
