# SPDX-License-Identifier: Apache-2.0
"""What is tuned and by whom: a problem, the schedules that are legal for it, and what measures one.

A schedule is a text of the compiler, `tile_tokens=64,rows=4`; nothing here knows its knobs. Everything that stands in
the database is such a text: a request, a schedule, conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from kvq.errors import Error, InvalidArgument
from kvq.tune.capability import Machine

CACHES = ("cold", "warm")


@dataclass(frozen=True)
class Conditions:
    """What a time depends on besides kernel and machine. `cold`: every run reads from memory; `warm`: from whatever
    cache the data of one run fits into."""

    cache: str = "cold"
    tokens: int = 4096
    batch: int = 1
    heads: int = 8  # KV heads
    threads: int = 1
    window: int = 0  # tokens that a query sees; 0: all

    def __str__(self) -> str:
        return ":".join([self.cache, *(f"{name}{getattr(self, name)}" for name in NUMBERS)])


NUMBERS = ("tokens", "batch", "heads", "threads", "window")  # of conditions, in their order


def parse_conditions(text: str) -> Conditions:
    fields = text.split(":")
    numbers = [part.removeprefix(name) for part, name in zip(fields[1:], NUMBERS, strict=False)]
    right = len(fields) == 1 + len(NUMBERS) and fields[0] in CACHES and all(number.isdecimal() for number in numbers)
    conditions = Conditions(fields[0], *map(int, numbers)) if right else None
    if conditions is None or str(conditions) != text or 0 in map(int, numbers[:-1]):
        raise InvalidArgument(f"the conditions '{text}' are not legal: write them as in {Conditions()}")
    return conditions


@dataclass(frozen=True)
class Problem:
    """A kernel request (runtime/format/problem.h), the target that it is compiled for, and when it is timed."""

    request: str
    target: str
    conditions: Conditions = field(default_factory=Conditions)

    def __str__(self) -> str:
        return f"{self.request} on {self.target}, {self.conditions}"


@dataclass(frozen=True)
class Space:
    """The legal schedules of a problem, as the compiler publishes them; the default is one of them."""

    default: str
    schedules: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.default not in self.schedules:
            raise InvalidArgument(
                f"the default schedule '{self.default}' is not among the {len(self.schedules)} legal ones: the "
                "compiler must list it (kvqc --list-schedules)"
            )
        if len(set(self.schedules)) != len(self.schedules):
            raise InvalidArgument(
                "a schedule is listed twice: the compiler must list each once (kvqc --list-schedules)"
            )


def knobs(schedule: str) -> dict[str, str]:
    """`tile_tokens=64,rows=4` as a dict; a text without knobs is empty."""
    pairs = [part.split("=") for part in schedule.split(",")] if schedule else []
    if any(len(pair) != 2 or not all(pair) for pair in pairs) or len({pair[0] for pair in pairs}) != len(pairs):
        raise InvalidArgument(f"the schedule '{schedule}' is not legal: write name=value, each name once, with commas")
    return {name: value for name, value in pairs}


# -- failures ----------------------------------------------------------------------------------------------------------


class CandidateFailed(Error):
    """A candidate that is out: expected, counted by its kind, kept with its message. Any other exception of a runner is
    a mistake of the runner and ends the search."""

    status = "failed"


class Infeasible(CandidateFailed):
    """The compiler or the device refuses the schedule."""

    status = "infeasible"


class Wrong(CandidateFailed):
    """It computes something else than the reference."""

    status = "wrong"


class Crashed(CandidateFailed):
    """It ended its process, or its device."""

    status = "crashed"


class TimedOut(CandidateFailed):
    """It did not end in the time that it was given."""

    status = "timed out"


FAILURES = {kind.status: kind for kind in (Infeasible, Wrong, Crashed, TimedOut)}


# -- what measures -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckCase:
    """Data that a candidate is checked on. K and V of normal values, in which `outliers` channels are `factor` times as
    large and stand off zero by as much, and one token dominates each head where `dominant`; kvq.tune.check_data makes
    arrays of it."""

    name: str
    seed: int
    outliers: int = 0
    factor: float = 1.0
    dominant: bool = False


@dataclass(frozen=True)
class Deviation:
    """How far a candidate is from the reference, and how far its accuracy class lets it be, in the same measure."""

    error: float
    allowed: float


class Workload(Protocol):
    """Inputs of one problem, several copies of them; made once and used by all candidates."""

    def run(self, kernel: Any, copies: Sequence[int]) -> float:
        """Runs the kernel on these copies one after the other and returns the seconds of all of them together."""

    def close(self) -> None:
        """Gives the memory back."""


class Runner(Protocol):
    """One machine and one compiler. Methods raise CandidateFailed for what is a candidate's fault."""

    compiler: str  # hash of the compiler: part of every key
    machine: Machine

    def space(self, problem: Problem) -> Space:
        """The legal schedules of a problem."""

    def compile(self, problem: Problem, schedule: str) -> Any:
        """A kernel that the other methods take. Called from several threads at once."""

    def check(self, problem: Problem, kernel: Any, case: CheckCase) -> Deviation:
        """Runs the kernel on the data of a case, and the reference."""

    def workload_bytes(self, problem: Problem) -> int:
        """Bytes that one run reads and writes: of one copy of the inputs."""

    def workload(self, problem: Problem, copies: int) -> Workload:
        """So many copies of the inputs, in memory of their own."""


@runtime_checkable
class Predictor(Protocol):
    """A cost model of a machine that is not there."""

    compiler: str
    machine: Machine

    def space(self, problem: Problem) -> Space:
        """The legal schedules of a problem."""

    def predict(self, problem: Problem, schedule: str) -> float:
        """Seconds of one run by the model; CandidateFailed where the schedule cannot be compiled."""
