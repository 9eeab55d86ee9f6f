# SPDX-License-Identifier: Apache-2.0
"""How each problem of a sweep is searched: the table [search] of its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvq.errors import InvalidArgument
from kvq.tune.estimator import ROUNDS
from kvq.tune.halving import Halving
from kvq.tune.problem import Space
from kvq.tune.search import SMALL, Budget, Exhaustive, Random, Strategy

AUTO = "auto"  # exhaustive where the space is small, else halving
STRATEGIES = (AUTO, "exhaustive", "halving", "random", "optuna-tpe", "optuna-gp", "optuna-random")
COUNT = 64  # candidates of the strategies that need a number


@dataclass(frozen=True)
class SearchOptions:
    """`seconds` and `trials` bound one problem. `workers` compile at once. `isolate`: a candidate is tried in a process
    of its own first, which may crash or hang."""

    seconds: float | None = None
    trials: int | None = None
    strategy: str = AUTO
    seed: int = 0
    workers: int = 2
    isolate: bool = False

    def __post_init__(self) -> None:
        _check("strategy", self.strategy, self.strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}")
        _check("seconds", self.seconds, self.seconds is None or _number(self.seconds, float) > 0, "a number above 0")
        _check("trials", self.trials, self.trials is None or _number(self.trials, int) > 0, "a number from 1")
        _check("workers", self.workers, _number(self.workers, int) > 0, "a number from 1")
        _check("seed", self.seed, _number(self.seed, int) >= 0, "a number from 0")
        _check("isolate", self.isolate, isinstance(self.isolate, bool), "true or false")

    def budget(self) -> Budget:
        return Budget(self.seconds, self.trials)

    def make_strategy(self) -> Strategy | None:
        """None for the one that suits the space."""
        if self.strategy == AUTO:
            return None
        if self.strategy == "exhaustive":
            return Exhaustive()
        if self.strategy == "halving":
            return Halving(most=self.trials)
        if self.strategy == "random":
            return Random(self.trials or COUNT)
        from kvq.tune.optuna_search import OptunaSearch

        return OptunaSearch(self.trials or COUNT, self.strategy.removeprefix("optuna-"), rounds=ROUNDS)


def choose(space: Space, most: int | None = None, first: Sequence[str] = ()) -> Strategy:
    """The strategy for a space of that size, of which at most so many candidates may be compiled."""
    if len(space.schedules) <= min(SMALL, most or SMALL):
        return Exhaustive()
    return Halving(most=most, first=tuple(first))


def _number(value: Any, kind: type) -> float:
    """-1 for what is none."""
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return value if right else -1


def _check(name: str, value: Any, right: bool, what: str) -> None:
    if not right:
        raise InvalidArgument(f"{name} is {value!r}: it must be {what}")
