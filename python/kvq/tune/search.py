# SPDX-License-Identifier: Apache-2.0
"""Strategies: which candidates are sampled next, and how often.

A strategy has no memory. It is asked with what is known, which is what the database holds, and the same knowledge and
seed give the same answer: a search that was cut off goes on where it stopped. It answers with a rung, candidates and
the number of samples that each shall have; all of a rung are sampled in the same rounds, or they could not be compared.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kvq.errors import InvalidArgument
from kvq.tune.estimator import LEAST_ROUNDS, ROUNDS, estimate_all, late
from kvq.tune.problem import Space
from kvq.tune.rows import OK, Trial

SMALL = 16  # candidates: a space that is no larger is tried as a whole


@dataclass(frozen=True)
class Rung:
    schedules: tuple[str, ...]
    samples: int  # that each of them shall have, those counted that it has


Trials = Mapping[str, Trial]  # by schedule


class Strategy(Protocol):
    def next(self, space: Space, trials: Trials, seed: int) -> Rung | None:
        """What to sample now; None: nothing more."""


def drawn(space: Space, seed: int, first: Sequence[str] = ()) -> list[str]:
    """The candidates in a random order behind the default schedule and those that are said to be good."""
    ahead = list(dict.fromkeys(name for name in (space.default, *first) if name in space.schedules))
    rest = sorted(set(space.schedules) - set(ahead))
    random.Random(seed).shuffle(rest)
    return ahead + rest


@dataclass(frozen=True)
class Exhaustive:
    """Every candidate; those that are late are left out of the later rounds."""

    rounds: int = ROUNDS

    def next(self, space: Space, trials: Trials, seed: int) -> Rung | None:
        alive = drawn(space, seed)
        for samples in [n for n in (LEAST_ROUNDS, 2 * LEAST_ROUNDS) if n < self.rounds] + [self.rounds]:
            alive = working(alive, trials)
            if short := lacking(alive, trials, samples):
                return Rung(tuple(short), samples)
            dropped = late(samples_of(alive, trials, 0, samples))
            alive = [name for name in alive if name not in dropped]
        return None


@dataclass(frozen=True)
class Random:
    """So many candidates, drawn at random, each with all samples: what another strategy must be better than."""

    count: int
    rounds: int = ROUNDS

    def next(self, space: Space, trials: Trials, seed: int) -> Rung | None:
        alive = working(drawn(space, seed)[: self.count], trials)
        short = lacking(alive, trials, self.rounds)
        return Rung(tuple(short), self.rounds) if short else None


def working(names: Sequence[str], trials: Trials) -> list[str]:
    """Those of which it is not known that they fail."""
    return [name for name in names if name not in trials or trials[name].status == OK]


def lacking(names: Sequence[str], trials: Trials, samples: int) -> list[str]:
    return [name for name in names if name not in trials or len(trials[name].samples) < samples]


def samples_of(names: Sequence[str], trials: Trials, begin: int, end: int) -> dict[str, tuple[float, ...]]:
    """Of so many rounds: what came later must not change what was decided then."""
    return {name: trials[name].samples[begin:end] for name in names}


def estimated(names: Sequence[str], trials: Trials, begin: int = 0, end: int = ROUNDS) -> dict[str, float]:
    """Seconds by the samples of these rounds."""
    found = estimate_all(samples_of(names, trials, begin, end)) if names else {}
    return {name: each.seconds for name, each in found.items()}


def ranked(names: Sequence[str], trials: Trials, begin: int = 0, end: int = ROUNDS) -> list[str]:
    """The fastest first."""
    found = estimated(names, trials, begin, end)
    return sorted(names, key=lambda name: (found[name], name))


# -- what a search may cost --------------------------------------------------------------------------------------------


@dataclass
class Budget:
    """Seconds, or candidates that are compiled, or both; None is no limit. The clock is read before each sample and each
    batch of candidates, with what that is known to cost: a search ends later than its seconds only where these do not
    suffice for the first batch, and always with an answer where one candidate works."""

    seconds: float | None = None
    trials: int | None = None
    clock: Callable[[], float] = time.monotonic
    taken: int = 0
    _begin: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        for name in ("seconds", "trials"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidArgument(f"the budget of {name} is {value}: give more than 0, or nothing for no limit")
        self._begin = self.clock()

    def take(self, count: int, ahead: float = 0.0) -> int:
        """How many of so many candidates may be compiled, which takes so many seconds; they count as taken."""
        allowed = count if self.trials is None else max(0, min(count, self.trials - self.taken))
        allowed = 0 if self.is_over(ahead) else allowed
        self.taken += allowed
        return allowed

    def is_over(self, ahead: float = 0.0) -> bool:
        """Whether it will be, when so many seconds more have passed. A clock that stands at infinity ends it."""
        return self.seconds is not None and not self.clock() - self._begin + ahead < self.seconds
