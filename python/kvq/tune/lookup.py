# SPDX-License-Identifier: Apache-2.0
"""Which schedule a kernel takes: that of its own key, else that of the nearest one, else the default; and which it was.

Numbers are as far apart as their binary logarithms, names one step or more. So the entry of half as many tokens is one
step away, as is the same problem tuned with another compiler. The weights are judgement, not measurement: what they
decide is tried again by whoever tunes, and an answer says how far it went.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kvq.tune.capability import Machine
from kvq.tune.database import Database
from kvq.tune.problem import NUMBERS, Problem, parse_conditions
from kvq.tune.rows import OK, Entry, key_of

EXACT, NEAREST, DEFAULT = "exact", "nearest", "default"
FARTHEST = 6.0  # steps; beyond them nothing is said to be near

# Of a request's fields: runtime/format/problem.h.
_FIELDS = ("operation", "format", "profile", "p", "dk", "dv", "g", "type", "rows", "lag", "win", "cap", "accuracy")
_NAMED = {"profile": 4.0, "type": 1.0, "lag": 0.25, "win": 0.25, "cap": 0.25, "accuracy": 1.0}
_TARGET, _COMPILER, _CACHE, _DEVICE, _UNSAID, _FORM = 4.0, 1.0, 1.0, 0.5, 0.25, 1.0
_NONE = 1.0  # a number that the other has not: a window
_SIDE = re.compile(r"([kv])(\d+)([a-z]+)(\d*)")

Difference = tuple[str, float]  # in words, and its steps


@dataclass(frozen=True)
class Answer:
    """`how`: exact, nearest or default. `schedule` is None for the default one, which the caller knows. `entry` is
    where the schedule comes from, `distance` and `differences` how it differs from what was asked."""

    how: str
    schedule: str | None = None
    entry: Entry | None = None
    distance: float = 0.0
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.entry is None or self.schedule is None:
            return self.how
        what = "predicted" if self.entry.predicted else "measured"
        far = f" at {self.distance:.2f} steps ({'; '.join(self.differences)})" if self.how == NEAREST else ""
        return f"{self.how}, {what}{far}: {self.schedule}"


def lookup(
    database: Database, problem: Problem, machine: Machine, compiler: str,
    is_legal: Callable[[str], bool] = lambda schedule: True,
) -> Answer:  # fmt: skip
    """Changes nothing. `is_legal`: whether a schedule is in the problem's space, asked of those of other keys."""
    exact = database.entry(key_of(problem, machine.hash, compiler))
    if exact is not None and exact.status == OK:
        return Answer(EXACT, exact.schedule, exact)
    machines = database.machines()
    best: tuple[tuple[float, bool, str], Answer] | None = None
    for entry in database.entries(problem.request.split(":")[0] + ":"):
        if entry.status != OK:
            continue
        found = sorted(differences(entry, machines[entry.key.machine], problem, machine, compiler), key=lambda x: -x[1])
        distance = sum(steps for _, steps in found)
        order = (distance, entry.predicted, entry.schedule)
        if distance <= FARTHEST and (best is None or order < best[0]) and is_legal(entry.schedule):
            best = order, Answer(NEAREST, entry.schedule, entry, distance, tuple(words for words, _ in found))
    return best[1] if best else Answer(DEFAULT, entry=exact)


def differences(
    entry: Entry, entry_machine: Machine, problem: Problem, machine: Machine, compiler: str
) -> Iterator[Difference]:
    """What differs between an entry and what is asked, each with its distance."""
    yield from _requests(entry.key.request, problem.request)
    yield from _machines(entry_machine.vector, machine.vector)
    if entry.key.compiler != compiler:
        yield f"compiler {entry.key.compiler[:12]}, not {compiler[:12]}", _COMPILER
    theirs, ours = parse_conditions(entry.key.conditions), problem.conditions
    if theirs.cache != ours.cache:
        yield f"cache {theirs.cache}, not {ours.cache}", _CACHE
    for name in NUMBERS:
        yield from _numbers(name, getattr(theirs, name), getattr(ours, name))


def _requests(theirs: str, ours: str) -> Iterator[Difference]:
    if theirs == ours:
        return
    one, other = theirs.split(":"), ours.split(":")
    if len(one) != len(_FIELDS) or len(other) != len(_FIELDS) or one[0] != other[0]:
        yield f"request {theirs}", math.inf
        return
    for name, their, our in zip(_FIELDS, one, other, strict=True):
        if their == our:
            continue
        if name == "format":
            yield f"format {their}, not {our}", _formats(their, our)
        elif name in _NAMED:
            yield f"{name} {their.removeprefix(name)}, not {our.removeprefix(name)}", _NAMED[name]
        else:
            yield from _numbers(name, int(their.removeprefix(name)), int(our.removeprefix(name)))


def _formats(theirs: str, ours: str) -> float:
    """Bits and groups are numbers; per channel and per token are two forms. The distance is the mean of K's and V's:
    what is alike in one of them is half alike."""
    one, other = _SIDE.findall(theirs), _SIDE.findall(ours)
    if len(one) != len(other):
        return math.inf
    steps = 0.0
    for (_, bits, form, group), (_, our_bits, our_form, our_group) in zip(one, other, strict=True):
        steps += abs(math.log2(int(bits) / int(our_bits))) + (_FORM if form != our_form else 0)
        if group and our_group:
            steps += abs(math.log2(int(group) / int(our_group)))
    return max(steps / 2, 0.25)


def _machines(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[Difference]:
    if theirs == ours:
        return
    if theirs.get("kind") != ours.get("kind"):
        yield f"a {theirs.get('kind')}, not a {ours.get('kind')}", math.inf
        return
    if theirs["target"] != ours["target"]:
        yield f"target {theirs['target']}, not {ours['target']}", _TARGET
    if theirs.get("name") != ours.get("name"):
        yield f"{theirs.get('name')}, not {ours.get('name')}", _DEVICE
    for name in sorted(set(theirs) ^ set(ours)):  # as versions before described a machine
        yield f"{name} of a machine are said by one of both alone", _UNSAID
    yield from _numbers("cores", theirs.get("cores", 1), ours.get("cores", 1))
    caches = theirs.get("caches", {}), ours.get("caches", {})
    for name in sorted(set(caches[0]) & set(caches[1])):
        yield from _numbers(f"{name} bytes", caches[0][name], caches[1][name])


def _numbers(name: str, theirs: int, ours: int) -> Iterator[Difference]:
    if theirs != ours:
        steps = abs(math.log2(theirs / ours)) if min(theirs, ours) > 0 else _NONE
        yield f"{name} {theirs}, not {ours}", steps
