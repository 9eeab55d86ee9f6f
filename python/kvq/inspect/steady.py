# SPDX-License-Identifier: Apache-2.0
"""The steady-state loop of a kernel, and what one iteration of it costs a warp.

The rule: loops are natural loops, by dominators. A block belongs to the smallest loop around it. With executions of
PTX lines (from the simulator, mapped by line information), the steady-state loop is the one whose own blocks executed
the most instructions: its iterations times the instructions of one. Without, or where none of its lines was executed,
it is the one whose own blocks do most work in matrix instructions, then the one with the most instructions.

Iterations are counted by what lies on every way through the loop: executions of the lines of its matrix products, or
else of its loads, or else of all lines, each over its copies there; of these the median. The branches back do not
count: of a loop that tests at its top ptxas gives them the line of the test, which each warp executes once more than the
loop. Nor do lines that stand in a loop inside as well, as those of what is left over when it was unrolled.

A block that does not lie on every way through the loop counts by how often it was executed; without executions it
counts in full, and the report says how many instructions lie in such blocks.

ptxas may unroll a loop. An iteration here is one of the machine code, which has so many of the PTX as it has copies of
the PTX's matrix products, or else of its loads; a loop without either is taken as not unrolled.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace

from kvq.inspect import graph, opcodes, sass

BY_EXECUTIONS = "executions of PTX lines"
BY_MATRIX = "matrix instructions"
# Of which ptxas makes one instruction from one of the PTX.
MATRIX_CLASSES = ("HMMA", "IMMA", "FP8 MMA")
LOAD_CLASSES = ("LDG", "async copy")


@dataclass(frozen=True)
class SteadyLoop:
    flow: sass.Flow
    loop: graph.Loop
    blocks: tuple[int, ...]  # its own
    weights: dict[int, float]  # executions of an own block in one iteration
    iterations: float | None  # of all warps together
    copies: int  # iterations of the PTX in one
    chosen_by: str
    depth: int  # 1: no loop around it
    nest: tuple[SteadyLoop, ...] = ()  # all loops of the outermost loop around it, itself among them

    @property
    def classes(self) -> dict[str, float]:
        """Warp instructions of one iteration by class."""
        result: dict[str, float] = {}
        for weight, instruction in self._weighted():
            group = opcodes.cost_of(instruction).group
            result[group] = result.get(group, 0.0) + weight
        return dict(sorted(result.items(), key=lambda item: (-item[1], item[0])))

    @property
    def pipes(self) -> dict[str, float]:
        """What one iteration takes of each pipe, in the units of opcodes.Cost."""
        result: dict[str, float] = {}
        for weight, instruction in self._weighted():
            cost = opcodes.cost_of(instruction)
            result[cost.pipe] = result.get(cost.pipe, 0.0) + weight * cost.amount
        result.pop("none", None)
        return result

    @property
    def issue_slots(self) -> float:
        return sum(weight for weight, _ in self._weighted())

    @property
    def executed(self) -> float:
        """Instructions by all warps together; 0 where nothing is known."""
        return (self.iterations or 0.0) * self.issue_slots

    @property
    def nest_issue_slots(self) -> float:
        """Of one iteration with its share of the loops around it and inside of it; its own where nothing is known."""
        return sum(share * loop.issue_slots for share, loop in self._shares())

    @property
    def nest_pipes(self) -> dict[str, float]:
        result: dict[str, float] = {}
        for share, loop in self._shares():
            for pipe, amount in loop.pipes.items():
                result[pipe] = result.get(pipe, 0.0) + share * amount
        return result

    @property
    def sometimes(self) -> int:
        """Instructions of own blocks that an iteration may leave out."""
        dominators = graph.immediate_dominators(self.flow.successors)
        return sum(len(self.flow.instructions(b)) for b in self.blocks if not _always(dominators, self.loop, b))

    @property
    def unknown(self) -> list[str]:
        """Opcodes of the loop that the table of classes does not have."""
        found = (i.opcode for _, i in self._weighted() if opcodes.cost_of(i).group == opcodes.UNKNOWN)
        return sorted(set(found))

    def _shares(self) -> Iterator[tuple[float, SteadyLoop]]:
        """Iterations of each loop of the nest in one of this."""
        if not self.iterations:
            yield 1.0, self
            return
        for loop in self.nest:
            yield (loop.iterations or 0.0) / self.iterations, loop

    def _weighted(self) -> Iterator[tuple[float, sass.Instruction]]:
        for block in self.blocks:
            for instruction in self.flow.instructions(block):
                yield self.weights[block], instruction


def steady_loop(function: sass.Function, lines: Mapping[int, int] | None = None) -> SteadyLoop | None:
    """`lines`: how often warps executed each PTX line; None: nothing was executed. Without a loop: None.

    A loop is measured by its own blocks alone; `nest` has the loops that it stands among.
    """
    flow = sass.flow_of(function)
    loops = graph.natural_loops(flow.successors)
    # A block that only branches to itself is what stands behind the end of a kernel.
    loops = [loop for loop in loops if any(len(flow.instructions(block)) > 1 for block in loop.body)]
    for by, counts in ((BY_EXECUTIONS, lines), (BY_MATRIX, None)):
        if by == BY_EXECUTIONS and not counts:
            continue
        found = [_measured(flow, loops, loop, counts, by) for loop in loops]
        best = max(found, key=_rank, default=None)
        if best is not None and (best.executed or by == BY_MATRIX):
            outermost = max((loop.loop.body for loop in found if best.loop.body <= loop.loop.body), key=len)
            return replace(best, nest=tuple(loop for loop in found if loop.loop.body <= outermost))
    return None


def _rank(loop: SteadyLoop) -> tuple[float, float, float]:
    return loop.executed, loop.pipes.get("tensor", 0.0), loop.issue_slots


def _measured(
    flow: sass.Flow, loops: list[graph.Loop], loop: graph.Loop, lines: Mapping[int, int] | None, by: str
) -> SteadyLoop:
    own = tuple(block for block in sorted(loop.body) if graph.innermost(loops, block) is loop)
    inside = {i.line for block in loop.body - set(own) for i in flow.instructions(block)}
    copies = _copies(flow, own, inside)
    iterations = _iterations(flow, loop, own, inside, lines) if lines else None
    weights = _weights(flow, loop, own, lines, iterations * copies) if lines and iterations else dict.fromkeys(own, 1.0)
    depth = sum(loop.body <= around.body for around in loops)
    return SteadyLoop(flow, loop, own, weights, iterations, copies, by, depth)


def _iterations(
    flow: sass.Flow, loop: graph.Loop, blocks: tuple[int, ...], inside: Set[int | None], lines: Mapping[int, int]
) -> float:
    """Of the machine code; 0 where nothing says. The median: the scheduler moves instructions from blocks that are
    executed more or less often."""
    dominators = graph.immediate_dominators(flow.successors)
    always = [block for block in blocks if _always(dominators, loop, block)]
    for groups in (MATRIX_CLASSES, LOAD_CLASSES):
        copies = _copies_of_lines(flow, always, inside, groups)
        counts = [lines[line] / n for (line, _), n in copies.items() if line in lines]
        if counts:
            return statistics.median_low(counts)
    found = {i.line for block in always for i in flow.instructions(block)} - inside
    return float(statistics.median_low([lines[line] for line in found if line in lines] or [0]))


def _weights(
    flow: sass.Flow, loop: graph.Loop, blocks: tuple[int, ...], lines: Mapping[int, int], iterations: float
) -> dict[int, float]:
    """A block's executions are the median of its lines'; what lies on every way is executed in every iteration.
    `iterations`: of the PTX."""
    dominators = graph.immediate_dominators(flow.successors)
    weights = {}
    for block in blocks:
        counts = [lines[i.line] for i in flow.instructions(block) if i.line in lines]
        sometimes = counts and not _always(dominators, loop, block)
        weights[block] = min(1.0, statistics.median_high(counts) / iterations) if sometimes else 1.0
    return weights


def _copies(flow: sass.Flow, blocks: tuple[int, ...], inside: Set[int | None]) -> int:
    for groups in (MATRIX_CLASSES, LOAD_CLASSES):
        if copies := _copies_of_lines(flow, blocks, inside, groups):
            return statistics.median_low(copies.values())
    return 1


def _copies_of_lines(
    flow: sass.Flow, blocks: Iterable[int], inside: Set[int | None], groups: tuple[str, ...]
) -> Counter[tuple[int, str]]:
    """How often instructions of these classes stand there, by PTX line and opcode. `inside`: lines of loops inside."""
    return Counter(
        (i.line, i.opcode)
        for block in blocks
        for i in flow.instructions(block)
        if i.line is not None and i.line not in inside and opcodes.cost_of(i).group in groups
    )


def _always(dominators: list[int | None], loop: graph.Loop, block: int) -> bool:
    return all(graph.dominates(dominators, block, latch) for latch in loop.latches)
