# SPDX-License-Identifier: Apache-2.0
"""The steady-state loop of a kernel, and what one iteration of it costs a warp.

The rule: loops are natural loops, by dominators. A block belongs to the smallest loop around it. With executions of
PTX lines (from the simulator, mapped by line information), the steady-state loop is the one whose own blocks executed
the most instructions; without, or where no loop's lines were executed, the one whose own blocks have the most matrix
instructions, then the most instructions.

A block that does not lie on every way through the loop counts by how often it was executed; without executions it
counts in full, and the report says how many instructions lie in such blocks.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from kvq.inspect import graph, opcodes, sass

BY_EXECUTIONS = "executions of PTX lines"
BY_MATRIX = "matrix instructions"


@dataclass(frozen=True)
class SteadyLoop:
    flow: sass.Flow
    loop: graph.Loop
    blocks: tuple[int, ...]  # its own
    weights: dict[int, float]  # executions of an own block in one iteration
    iterations: float | None  # of all warps together
    chosen_by: str
    depth: int  # 1: no loop around it

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
    def sometimes(self) -> int:
        """Instructions of own blocks that an iteration may leave out."""
        dominators = graph.immediate_dominators(self.flow.successors)
        return sum(len(self.flow.instructions(b)) for b in self.blocks if not _always(dominators, self.loop, b))

    @property
    def unknown(self) -> list[str]:
        """Opcodes of the loop that the table of classes does not have."""
        found = (i.opcode for _, i in self._weighted() if opcodes.cost_of(i).group == opcodes.UNKNOWN)
        return sorted(set(found))

    def _weighted(self):
        for block in self.blocks:
            for instruction in self.flow.instructions(block):
                yield self.weights[block], instruction


def steady_loop(function: sass.Function, lines: Mapping[int, int] | None = None) -> SteadyLoop | None:
    """`lines`: how often warps executed each PTX line; None: nothing was executed. Without a loop: None."""
    flow = sass.flow_of(function)
    loops = graph.natural_loops(flow.successors)
    # A block that only branches to itself is what stands behind the end of a kernel.
    loops = [loop for loop in loops if any(len(flow.instructions(block)) > 1 for block in loop.body)]
    if not loops:
        return None
    own = {loop: tuple(b for b in sorted(loop.body) if graph.innermost(loops, b) is loop) for loop in loops}
    executed = {loop: _executed(flow, own[loop], lines) for loop in loops}
    matrix = {loop: _matrix(flow, own[loop]) for loop in loops}
    size = {loop: sum(len(flow.instructions(block)) for block in own[loop]) for loop in loops}
    by = BY_EXECUTIONS if any(executed.values()) else BY_MATRIX
    best = max(loops, key=lambda loop: (executed[loop], matrix[loop], size[loop], -loop.header))
    depth = sum(best.body <= loop.body for loop in loops)
    weights, iterations = _weights(flow, best, own[best], lines if by == BY_EXECUTIONS else None)
    return SteadyLoop(flow, best, own[best], weights, iterations, by, depth)


def _executed(flow: sass.Flow, blocks: tuple[int, ...], lines: Mapping[int, int] | None) -> int:
    return sum((lines or {}).get(i.line, 0) for block in blocks for i in flow.instructions(block) if i.line is not None)


def _matrix(flow: sass.Flow, blocks: tuple[int, ...]) -> int:
    return sum(opcodes.cost_of(i).pipe == "tensor" for block in blocks for i in flow.instructions(block))


def _always(dominators: list[int | None], loop: graph.Loop, block: int) -> bool:
    return all(graph.dominates(dominators, block, latch) for latch in loop.latches)


def _weights(
    flow: sass.Flow, loop: graph.Loop, blocks: tuple[int, ...], lines: Mapping[int, int] | None
) -> tuple[dict[int, float], float | None]:
    """Of each own block, and the iterations: how often what lies on every way was executed.

    The scheduler moves single instructions to other blocks, with their lines; a block's executions are the median.
    """
    if lines is None:
        return dict.fromkeys(blocks, 1.0), None
    dominators = graph.immediate_dominators(flow.successors)

    def counts(block: int) -> list[int]:
        return [lines.get(i.line, 0) for i in flow.instructions(block) if i.line is not None]

    always = [block for block in blocks if _always(dominators, loop, block)]
    iterations = float(statistics.median_high([count for block in always for count in counts(block)] or [0]))
    weights = {}
    for block in blocks:
        found = counts(block)
        known = block not in always and found and iterations
        weights[block] = min(1.0, statistics.median_high(found) / iterations) if known else 1.0
    return weights, iterations or None
