# SPDX-License-Identifier: Apache-2.0
"""The covering arrays cover, also under constraints, and are small."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

import pairwise


@given(st.lists(st.integers(1, 5), min_size=2, max_size=6))
def test_every_pair_is_covered(sizes):
    parameters = {f"p{i}": list(range(size)) for i, size in enumerate(sizes)}
    rows = pairwise.covering_array(parameters)
    covered = {pair for row in rows for pair in pairwise.pairs_of(row, parameters)}
    assert covered == set(pairwise.all_pairs(parameters))
    largest = sorted(sizes)[-2:]
    assert len(rows) <= 2.5 * largest[0] * largest[1] + 2


def test_constraints_hold_and_only_impossible_pairs_are_missing():
    parameters = {"axis": ["c", "t"], "group": [16, 32, 64], "page": [32, 64], "level": ["a", "b", "c"]}

    def allowed(row):
        if row.get("axis") == "c" and row.get("group") == 16:
            return False
        return not (row.get("axis") == "c" and row.get("page", 64) < row.get("group", 0))

    rows = pairwise.covering_array(parameters, allowed)
    assert all(allowed(row) for row in rows)
    every = [dict(zip(parameters, values)) for values in product(*parameters.values())]
    possible = {pair for row in every if allowed(row) for pair in pairwise.pairs_of(row, parameters)}
    assert {pair for row in rows for pair in pairwise.pairs_of(row, parameters)} == possible
    assert sorted(map(str, pairwise.full_product(parameters, allowed))) == sorted(map(str, filter(allowed, every)))


def test_dead_ends_are_left_again():
    """x = 1 forbids every z, which shows only after y was chosen: the pair (x = 1, y) is impossible."""
    parameters = {"x": [0, 1], "y": [0, 1], "z": [0, 1]}
    rows = pairwise.covering_array(parameters, lambda row: not (row.get("x") == 1 and "z" in row))
    assert {row["x"] for row in rows} == {0}
    assert {(row["y"], row["z"]) for row in rows} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_same_rows_every_time():
    parameters = {"a": list("xyz"), "b": [1, 2], "c": [True, False], "d": [0.5, 1.5, 2.5]}
    assert pairwise.covering_array(parameters) == pairwise.covering_array(parameters)
