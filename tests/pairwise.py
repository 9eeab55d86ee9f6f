# SPDX-License-Identifier: Apache-2.0
"""Pairwise covering arrays: a small set of rows in which every allowed pair of values of any two parameters occurs.

Greedy and deterministic: the same parameters give the same rows in the same order on every machine.
"""

from itertools import combinations


def all_pairs(parameters):
    """Every pair of two parameters' values, as ((name, value), (name, value)), in the order of the parameters."""
    pairs = []
    for a, b in combinations(parameters, 2):
        pairs += [((a, x), (b, y)) for x in parameters[a] for y in parameters[b]]
    return pairs


def pairs_of(row, parameters):
    return [((a, row[a]), (b, row[b])) for a, b in combinations(parameters, 2)]


def _complete(row, parameters, allowed, uncovered):
    """Fills row up, value by value, preferring what covers most; tries others where no allowed row remains."""
    name = next((p for p in parameters if p not in row), None)
    if name is None:
        return dict(row) if allowed(row) else None

    def gain(value):
        return sum(
            (((p, row[p]), (name, value)) in uncovered) or (((name, value), (p, row[p])) in uncovered) for p in row
        )

    for value in sorted(parameters[name], key=gain, reverse=True):
        row[name] = value
        if allowed(row):
            found = _complete(row, parameters, allowed, uncovered)
            if found is not None:
                return found
        del row[name]
    return None


def covering_array(parameters, allowed=lambda row: True):
    """Rows (dicts) that cover all pairs which occur in any allowed row.

    allowed(row) is also asked about rows that lack parameters; it says False once the row can no longer be completed.
    """
    uncovered = dict.fromkeys(all_pairs(parameters))
    rows = []
    while uncovered:
        pair = next(iter(uncovered))
        seed = dict(pair)
        row = _complete(seed, parameters, allowed, uncovered) if allowed(seed) else None
        if row is None:
            del uncovered[pair]
            continue
        row = {name: row[name] for name in parameters}
        rows.append(row)
        for covered in pairs_of(row, parameters):
            uncovered.pop(covered, None)
    return rows


def full_product(parameters, allowed=lambda row: True):
    """All allowed rows."""
    rows = [{}]
    for name, values in parameters.items():
        rows = [row | {name: value} for row in rows for value in values]
        rows = [row for row in rows if allowed(row)]
    return rows
