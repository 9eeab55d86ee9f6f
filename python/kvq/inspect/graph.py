# SPDX-License-Identifier: Apache-2.0
"""Dominators and natural loops of a control-flow graph. Nodes are numbers from 0, and 0 is the entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Loop:
    """A natural loop: the header dominates the body, and from every node of the body a latch can be reached."""

    header: int
    latches: tuple[int, ...]
    body: frozenset[int]


def predecessors(successors: Sequence[Sequence[int]]) -> list[list[int]]:
    result: list[list[int]] = [[] for _ in successors]
    for node, targets in enumerate(successors):
        for target in targets:
            result[target].append(node)
    return result


def reverse_postorder(successors: Sequence[Sequence[int]]) -> list[int]:
    """The nodes that can be reached from the entry, each before those that come after it on every path."""
    seen, order = {0}, []
    stack = [(0, iter(successors[0]))]
    while stack:
        node, rest = stack[-1]
        for target in rest:
            if target not in seen:
                seen.add(target)
                stack.append((target, iter(successors[target])))
                break
        else:
            order.append(node)
            stack.pop()
    return order[::-1]


def immediate_dominators(successors: Sequence[Sequence[int]]) -> list[int | None]:
    """Of each node; the entry's is itself, that of a node which cannot be reached None.

    Cooper, Harvey and Kennedy, A Simple, Fast Dominance Algorithm (2001).
    """
    order = reverse_postorder(successors)
    place = {node: index for index, node in enumerate(order)}
    before = predecessors(successors)
    result: list[int | None] = [None] * len(successors)
    result[0] = 0

    def meet(a: int, b: int) -> int:
        while a != b:
            while place[a] > place[b]:
                a = result[a]  # type: ignore[assignment]
            while place[b] > place[a]:
                b = result[b]  # type: ignore[assignment]
        return a

    changed = True
    while changed:
        changed = False
        for node in order[1:]:
            known = [p for p in before[node] if result[p] is not None]
            new = known[0]
            for other in known[1:]:
                new = meet(new, other)
            if result[node] != new:
                result[node], changed = new, True
    return result


def dominates(dominators: Sequence[int | None], above: int, node: int) -> bool:
    """Whether every path from the entry to `node` passes `above`. False where `node` cannot be reached."""
    if dominators[node] is None:
        return False
    while node != above and node != 0:
        node = dominators[node]  # type: ignore[assignment]
    return node == above


def natural_loops(successors: Sequence[Sequence[int]]) -> list[Loop]:
    """By header; back edges to the same header make one loop. An edge backwards in the text to a node that does not
    dominate its source, as from code behind the loop into its middle, makes none."""
    dominators = immediate_dominators(successors)
    before = predecessors(successors)
    latches: dict[int, list[int]] = {}
    for node, targets in enumerate(successors):
        for target in targets:
            if dominates(dominators, target, node) and node not in latches.get(target, []):
                latches.setdefault(target, []).append(node)
    loops = []
    for header, ends in sorted(latches.items()):
        body, stack = {header}, [node for node in ends if node != header]
        while stack:
            node = stack.pop()
            if node not in body:
                body.add(node)
                stack += [p for p in before[node] if dominators[p] is not None]
        loops.append(Loop(header, tuple(ends), frozenset(body)))
    return loops


def innermost(loops: Sequence[Loop], node: int) -> Loop | None:
    """The smallest loop that has the node in its body."""
    return min((loop for loop in loops if node in loop.body), key=lambda loop: len(loop.body), default=None)
