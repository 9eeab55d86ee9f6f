# SPDX-License-Identifier: Apache-2.0
"""Successive halving over candidates that are drawn where the fast ones are likely.

Compiling and checking a candidate costs as much as hundreds of its samples, so what a search must save is candidates. A
sixteenth of the space is drawn at random; what these say of the knobs (kvq.tune.knob_effects) names the next few, and
so on until a fifth is known. Of those the better half gets more samples, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvq.tune.estimator import ROUNDS
from kvq.tune.knob_effects import comparable, promising
from kvq.tune.problem import Space
from kvq.tune.search import SMALL, Rung, Trials, drawn, estimated, lacking, ranked, working

DRAWN, LEAST_DRAWN = 16, 6  # one of so many is drawn at random, at least so many
ADDED, LEAST_ADDED = 30, 2  # in each generation one of so many, at least so many
GENERATIONS = 4


@dataclass(frozen=True)
class Halving:
    """`most`: at most so many candidates; `first`: schedules that are among them, such as those of a neighbour."""

    begin: int = 12  # samples of the first rungs; fewer, with one in three struck by something, mislead the generations
    keep: int = 2  # one of so many stays, and gets so many times the samples; with 3 the best is cut more often
    rounds: int = ROUNDS
    most: int | None = None
    first: tuple[str, ...] = ()

    def next(self, space: Space, trials: Trials, seed: int) -> Rung | None:
        population = [self._drawn(space, seed)]
        while True:
            if short := lacking(working(population[-1], trials), trials, self.begin):
                return Rung(tuple(short), self.begin)
            known = [estimated(working(names, trials), trials, 0, self.begin) for names in population]
            if len(population) > GENERATIONS:
                return self._halved(comparable(known), trials)
            population.append(self._added(space, population, known))

    def _drawn(self, space: Space, seed: int) -> list[str]:
        size = len(space.schedules)
        count = size if size <= SMALL else max(LEAST_DRAWN, size // DRAWN)
        return drawn(space, seed, self.first)[: min(count, self.most or count)]

    def _added(self, space: Space, population: Sequence[list[str]], known: Sequence[dict[str, float]]) -> list[str]:
        """The next generation: those that are likely to be fast by what is known."""
        seen = {name for names in population for name in names}
        rest = sorted(set(space.schedules) - seen)
        count = min(max(LEAST_ADDED, len(space.schedules) // ADDED), (self.most or len(rest)) - len(seen))
        return promising(known, rest, count) if any(known) and count > 0 else []

    def _halved(self, known: dict[str, float], trials: Trials) -> Rung | None:
        """From here on all that are compared were sampled in the same rounds, those behind the first ones."""
        alive, samples, order = list(known), self.begin, sorted(known, key=lambda name: (known[name], name))
        while samples < self.begin + self.rounds and len(alive) > 1:
            alive = order[: max(1, -(-len(order) // self.keep))]
            samples = min(samples * self.keep, self.begin + self.rounds)
            alive = working(alive, trials)
            if short := lacking(alive, trials, samples):
                return Rung(tuple(short), samples)
            order = ranked(alive, trials, self.begin, samples)
        return None
