# SPDX-License-Identifier: Apache-2.0
"""Dominators and natural loops, against their definitions on random graphs, and on graphs whose answer is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvq.inspect import graph


def reachable(successors, without=None):
    seen, stack = set(), [0] if without != 0 else []
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [t for t in successors[node] if t != without]
    return seen


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    node = st.integers(0, count - 1)
    return [tuple(dict.fromkeys(draw(st.lists(node, max_size=3)))) for _ in range(count)]


@given(graphs())
def test_dominators_by_definition(successors):
    found, alive = graph.immediate_dominators(successors), reachable(successors)
    assert {n for n, d in enumerate(found) if d is not None} == alive
    for node in alive:
        above = {a for a in alive if a == node or node not in reachable(successors, without=a)}
        assert {a for a in alive if graph.dominates(found, a, node)} == above
        if node:  # the nearest of them is dominated by all the others
            assert all(a == node or graph.dominates(found, a, found[node]) for a in above)


@given(graphs())
def test_loops_by_definition(successors):
    alive = reachable(successors)
    found = {loop.header: loop for loop in graph.natural_loops(successors)}
    back = {}
    for node in alive:
        for target in successors[node]:
            if node == target or node not in reachable(successors, without=target):
                back.setdefault(target, set()).add(node)
    assert {header: set(loop.latches) for header, loop in found.items()} == back
    for header, loop in found.items():
        for node in alive:
            # In the body: from it a latch can be reached without passing the header.
            below, stack = set(), [node]
            while stack:
                at = stack.pop()
                if at not in below and at != header:
                    below.add(at)
                    stack += successors[at]
            assert (node in loop.body) == (node == header or bool(below & back[header]))


def test_nested_loops():
    loops = graph.natural_loops([(1,), (2, 5), (3,), (2, 4), (1,), ()])
    found = [(loop.header, loop.latches, set(loop.body)) for loop in loops]
    assert found == [(1, (4,), {1, 2, 3, 4}), (2, (3,), {2, 3})]
    assert graph.innermost(loops, 3).header == 2 and graph.innermost(loops, 4).header == 1
    assert graph.innermost(loops, 5) is None


@pytest.mark.parametrize(
    "successors, why",
    [
        ([(1, 2), (2,), (1,)], "two ways into it: neither node dominates the other"),
        ([(1,), (2, 3), (4,), (2,), ()], "code further down that goes back to the middle of a straight line"),
        ([(2,), (1, 2), ()], "a loop that is never reached"),
    ],
)
def test_a_branch_backwards_is_not_a_loop(successors, why):
    assert graph.natural_loops(successors) == [], why


def test_two_latches_are_one_loop():
    (loop,) = graph.natural_loops([(1,), (2, 3), (1,), (1, 4), ()])
    assert loop.latches == (2, 3) and loop.body == {1, 2, 3}
