# SPDX-License-Identifier: Apache-2.0
"""What a step of attention costs on this machine, as a function of how its keys are split, and the policy that is best
by it.

    seconds = step + wake * launches + program * programs + token * tokens + read * all tokens + merge * results

A step takes what its busiest worker takes. Workers are what runs programs at once: the threads of a host, and on a GPU
as many programs as all of its multiprocessors have room for. They take programs one by one, the longest first, so that
the busiest has some number of programs, each with a price of its own (argument lists, the first page, the partial
result that it writes), and so many tokens to attend over. What all read together counts besides: once the memory is
busy, more workers bring nothing. Merges are programs too, one for each query on a host and one for each head of a query
on a GPU; they read the partial result of each split. `wake` is for launches that are worth a host's other threads at
all (runtime/cache/run.cpp); on a GPU launches are all alike, and in the price of a step. Each term is a count that the
planner's rule gives for any length, batch and number of workers; what is measured are the six prices. They are never
negative, and are found by least squares of relative errors in which points that the others contradict weigh less.

A policy must not depend on batch or threads, or results would; so the one is taken whose times are the shortest on
average, over the batches and threads that were measured, and lengths from the shortest to beyond the longest. What it
loses in any of them beyond a tenth counts in full: gains elsewhere are no comfort to those who run just that. NumPy is
imported by the first call.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING

from kvq.tune.attend_launch import Part, Plan
from kvq.tune.estimator import Estimate
from kvq.tune.problem import Conditions, knobs
from kvq.tune.request_fields import Fields
from kvq.tune.split_policy import SplitPolicy, at_most, exactly

if TYPE_CHECKING:
    import numpy as np

SERIAL_WORK = 4096  # below so many keys of all programs, or results of a merge, the caller's thread does all
LEAST_NOISE = 0.02  # of a point: the model itself is no better
PASSES, OUTLIER = 8, 1.5  # of the fit; deviations beyond which a point weighs less
BEYOND = 4  # times the longest context: lengths that the model is asked for
WORST = 1.1  # times the default's seconds, that a policy may take in any condition
ALIKE = 0.003  # relative: of policies that are so close the one that is nearest to the default is taken
TOKENS = [1 << power for power in range(6, 15)]  # of the shortest split
SPLITS = [1 << power for power in range(9)]


@dataclass(frozen=True)
class Load:
    """What the terms of the model count."""

    steps: float
    launches: float
    programs: float
    tokens: float
    read: float
    results: float


@dataclass(frozen=True)
class Prices:
    """Seconds of one of each."""

    step: float
    wake: float
    program: float
    token: float
    read: float
    merge: float

    def seconds(self, load: Load) -> float:
        return sum(price * count for price, count in zip(astuple(self), astuple(load), strict=True))

    def __str__(self) -> str:
        units = {"step": 1e-6, "wake": 1e-6, "program": 1e-6, "token": 1e-9, "read": 1e-9, "merge": 1e-9}
        values = (f"{name} {getattr(self, name) / unit:.3g} {'us' if unit == 1e-6 else 'ns'}"
                  for name, unit in units.items())  # fmt: skip
        return ", ".join(values)


@dataclass(frozen=True)
class CacheShape:
    """Of a cache: the fields of its attention's request, and its KV heads. `resident`: programs of that kernel which
    run at once on the GPU; 0: on a host, where the conditions say how many threads there are."""

    fields: Fields
    heads: int
    resident: int = 0

    def workers(self, conditions: Conditions) -> int:
        return self.resident or conditions.threads

    def load(self, conditions: Conditions, policy: SplitPolicy) -> Load:
        """Of a step of one token in each sequence."""
        length = self._plan(conditions, policy).splits(Part(conditions.tokens, 1)).length
        return _load(self, conditions, length)

    def splits(self, conditions: Conditions, policy: SplitPolicy) -> list[int]:
        """Of a sequence: what each costs, in tokens."""
        return self._plan(conditions, policy).costs(Part(conditions.tokens, 1))

    def _plan(self, conditions: Conditions, policy: SplitPolicy) -> Plan:
        return Plan(self.fields, (), self.heads, conditions.window or conditions.tokens, policy=policy)


def warps_of_program(schedule: str) -> int:
    return int(knobs(schedule).get("warps", 1))


def resident_programs(warps: int, schedule: str) -> int:
    """Programs of a kernel with this schedule that so many warps are: where those run at once on a GPU, so do they."""
    return max(1, warps // warps_of_program(schedule))


@lru_cache(maxsize=4096)  # of the policies that are tried most make the same splits
def _load(shape: CacheShape, conditions: Conditions, length: int) -> Load:
    costs = shape.splits(conditions, exactly(length))
    fields, workers, on_host = shape.fields, shape.workers(conditions), not shape.resident
    copies = conditions.batch * shape.heads * -(-fields.ratio // fields.rows)
    read = sum(costs) * copies
    q_heads = shape.heads * fields.ratio
    merged = conditions.batch * q_heads * len(costs)
    parallel, merges_in_parallel = (workers > 1 and (not on_host or work >= SERIAL_WORK) for work in (read, merged))
    programs, tokens = busiest(costs, copies, workers if parallel else 1)
    heads = q_heads if on_host else 1  # of a query, that one merge takes
    merges = -(-conditions.batch * q_heads // heads // (workers if merges_in_parallel else 1))
    launches = parallel + merges_in_parallel if on_host else 0
    return Load(1, launches, programs, tokens, read, merges * heads * len(costs))


def busiest(costs: Sequence[int], copies: int, workers: int) -> tuple[int, int]:
    """Programs and tokens of the worker that has the most to do, where each cost stands for so many programs and
    workers take them one by one, the longest first."""
    loads = [(0, 0)] * workers
    for cost in sorted(costs, reverse=True):
        for _ in range(copies):
            tokens, programs = loads[0]
            heapq.heapreplace(loads, (tokens + cost, programs + 1))
    return max(programs for _, programs in loads), max(tokens for tokens, _ in loads)


# -- the fit -----------------------------------------------------------------------------------------------------------

Point = tuple[Load, Estimate]


def fit(points: Sequence[Point]) -> Prices:
    """Prices that explain what was measured."""
    import numpy as np

    loads = np.array([astuple(load) for load, _ in points], float)
    seconds = np.array([found.seconds for _, found in points])
    relative = loads / seconds[:, None]
    certain = 1 / np.array([max(found.noise, LEAST_NOISE) for _, found in points])
    weights = certain
    for _ in range(PASSES):
        prices = _not_negative(relative * weights[:, None], weights)
        off = np.abs(relative @ prices - 1) * certain
        spread = max(float(np.median(off)) / 0.6745, 1e-9)  # a standard deviation, were they normal
        weights = certain * np.sqrt(np.minimum(1, OUTLIER * spread / np.maximum(off, 1e-12)))
    return Prices(*map(float, prices))


def _not_negative(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The x from 0 with the least squares of rows @ x - wanted. It is the unbounded solution of some of the columns, of
    which there are few enough to try them all."""
    import numpy as np

    best, least = np.zeros(rows.shape[1]), math.inf
    scale = np.maximum(np.linalg.norm(rows, axis=0), 1e-300)
    for count in range(1, rows.shape[1] + 1):
        for columns in map(list, itertools.combinations(range(rows.shape[1]), count)):
            part = np.linalg.lstsq(rows[:, columns] / scale[columns], wanted, rcond=1e-9)[0]
            off = float(np.sum((rows[:, columns] / scale[columns] @ part - wanted) ** 2))
            if (part >= 0).all() and off < least * (1 - 1e-9):
                least, best = off, np.zeros(rows.shape[1])
                best[columns] = part / scale[columns]
    return best


# -- the choice --------------------------------------------------------------------------------------------------------


def choose(
    prices: Prices, shape: CacheShape, conditions: Iterable[Conditions], default: SplitPolicy
) -> tuple[SplitPolicy, float]:  # fmt: skip
    """The policy whose steps are the shortest by the model, and how many times as long as the default's they are, on
    average over the conditions and lengths between and beyond."""
    asked = lengths(list(conditions))
    score = _score(prices, shape, asked, default)
    scores = {policy: score(policy) for policy in candidates(shape, default)}
    best = min(scores.values())
    close = [policy for policy, value in scores.items() if value <= best + ALIKE]
    chosen = min(close, key=lambda policy: (_distance(policy, default), str(policy)))
    return chosen, math.exp(scores[chosen])


def candidates(shape: CacheShape, default: SplitPolicy) -> list[SplitPolicy]:
    """The default, and what differs in the tokens of the shortest split or in how many splits may be had."""
    tokens = [each for each in TOKENS if each >= shape.fields.page] or [shape.fields.page]
    found = (at_most(each, splits, shape.heads, default) for each in tokens for splits in SPLITS)
    return list(dict.fromkeys([default, *found]))


def lengths(conditions: Sequence[Conditions]) -> list[Conditions]:
    """Batches and threads as they are, with lengths that double from the shortest to BEYOND the longest."""
    least, most = (function(each.tokens for each in conditions) for function in (min, max))
    tokens = [least << doublings for doublings in range(64) if least << doublings <= BEYOND * most]
    return list(dict.fromkeys(
        Conditions(each.cache, many, each.batch, each.heads, each.threads, each.window)
        for each in conditions for many in tokens
    ))  # fmt: skip


def _score(
    prices: Prices, shape: CacheShape, asked: Sequence[Conditions], default: SplitPolicy
) -> Callable[[SplitPolicy], float]:  # fmt: skip
    """The mean logarithm of a policy's seconds over the default's, and what the largest is beyond WORST."""
    usual = [prices.seconds(shape.load(each, default)) for each in asked]

    def score(policy: SplitPolicy) -> float:
        found = (prices.seconds(shape.load(each, policy)) for each in asked)
        logs = [math.log(seconds / other) for seconds, other in zip(found, usual, strict=True)]
        return fmean(logs) + max(0.0, max(logs) - math.log(WORST))

    return score


def _distance(policy: SplitPolicy, other: SplitPolicy) -> float:
    """In doublings."""
    return sum(abs(math.log2(one / two)) for one, two in zip(astuple(policy), astuple(other), strict=True))
