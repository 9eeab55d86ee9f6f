# SPDX-License-Identifier: Apache-2.0
"""Instructions in which the lanes of a warp exchange registers: shfl, vote, match, redux."""

from functools import reduce

from .bits import mask, signed

FULL = 0xFFFFFFFF


def members(membermask):
    return [lane for lane in range(32) if membermask >> lane & 1]


def shfl_lane(mode, lane, b, c):
    """PTX ISA, "Data Movement and Conversion Instructions: shfl.sync".

    (source lane, predicate) of one lane; c holds the clamp in 4:0, the segment mask in 12:8.
    """
    bval, cval, segment = b & 31, c & 31, c >> 8 & 31
    max_lane = (lane & segment) | (cval & ~segment & 31)
    min_lane = lane & segment
    if mode == "up":
        j = lane - bval
        inside = j >= max_lane
    elif mode == "down":
        j = lane + bval
        inside = j <= max_lane
    elif mode == "bfly":
        j = lane ^ bval
        inside = j <= max_lane
    else:
        j = min_lane | (bval & ~segment & 31)
        inside = j <= max_lane
    return (j if inside else lane), inside


def shfl(mode, a, b, c, membermask=FULL):
    """(d, p) of each lane; None for lanes that do not take part or whose source does not (undefined there)."""
    results = []
    for lane in range(32):
        source, inside = shfl_lane(mode, lane, b[lane], c[lane])
        defined = membermask >> lane & 1 and membermask >> source & 1
        results.append((a[source], inside) if defined else None)
    return results


def vote(mode, predicates, membermask=FULL):
    """PTX ISA, "Parallel Synchronization and Communication Instructions: vote.sync".

    Modes all, any, uni as a truth value; ballot as a mask with 0 for lanes outside membermask.
    """
    values = [bool(predicates[lane]) for lane in members(membermask)]
    if mode == "ballot":
        return sum(1 << lane for lane in members(membermask) if predicates[lane])
    return {"all": all(values), "any": any(values), "uni": len(set(values)) == 1}[mode]


def match_any(a, membermask=FULL):
    """PTX ISA, "Parallel Synchronization and Communication Instructions: match.sync".

    Mode any: for each lane the mask of the lanes in membermask with the same value.
    """
    return [sum(1 << o for o in members(membermask) if a[o] == a[lane]) for lane in range(32)]


def match_all(a, membermask=FULL):
    """PTX ISA, "Parallel Synchronization and Communication Instructions: match.sync".

    Mode all: (membermask, True) if all the values are equal, otherwise (0, False).
    """
    same = len({a[lane] for lane in members(membermask)}) == 1
    return (membermask, True) if same else (0, False)


def redux(operation, kind, values, membermask=FULL):
    """PTX ISA, "Parallel Synchronization and Communication Instructions: redux.sync".

    Operations: add (modulo 2^32), min, max, and, or, xor over the lanes in membermask.
    """
    chosen = [signed(values[lane], 32) if kind == "s32" else values[lane] for lane in members(membermask)]
    function = {
        "add": lambda x, y: x + y, "min": min, "max": max,
        "and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y,
    }[operation]
    return reduce(function, chosen) & mask(32)
