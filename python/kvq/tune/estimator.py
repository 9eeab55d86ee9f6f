# SPDX-License-Identifier: Apache-2.0
"""How long a candidate takes, from samples of a machine on which other things happen.

Neither of the usual estimators survives what timings look like. The minimum believes lucky shots, samples a fifth to a
third too short that no run can count on: 5 % of them make it name the wrong one of two candidates in every second case.
The mean believes interruptions, and the median of what was measured in a bad hour is that hour's.

Two steps, both on logarithms, where all that a machine does to a time is added to it:

1. Candidates are sampled in rounds, each once a round in an order that changes. What a round did to all of them, drift
   or a busy neighbour, is estimated from the lower part of the round and taken away.
2. Of what is left the half-sample mode: of the samples the half that lies closest together, of that the half again, and
   so on to the last three. Neither 5 % of lucky shots nor 30 % of spikes are in that half.

tests/tune/test_estimator.py tries this, and the estimators above, on such samples.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROUNDS = 32  # after which candidates 3 % apart are told from each other; 16 are not enough where all goes wrong at once
PASSES, SETTLED = 20, 1e-4  # of the two steps over each other: until no round moves by more
ROUND_QUANTILE = 0.35  # of a round: above it lie the samples that something struck
UNKNOWN = 1.0  # relative noise of fewer than three samples
# Noise is this many widths of the closest half over the cube root of the number of samples, which is how fast a mode
# settles: calibrated on the tests' samples so that twice the noise covers the error of a difference in 95 of 100 cases.
NOISE_WIDTHS = 1.8
LATE = 1.25  # times the best: what is so slow is dropped
LEAST_ROUNDS = 8  # before anything is dropped: of five samples three are spikes once in a while


@dataclass(frozen=True)
class Estimate:
    """Seconds of one run; `noise` is relative, about one standard deviation of the estimate."""

    seconds: float
    noise: float
    samples: int


def estimate(samples: Sequence[float]) -> Estimate:
    """Of one candidate by itself: nothing is known of the rounds."""
    return estimate_all({"": samples})[""]


def estimate_all(samples: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Of candidates that were sampled in the same rounds; one that was dropped has fewer samples than the others."""
    for name, values in samples.items():
        if not values or not all(value > 0 and math.isfinite(value) for value in values):
            raise ValueError(f"the samples of '{name}' are {list(values)}: they must be positive seconds, at least one")
    logs = {name: [math.log(value) for value in values] for name, values in samples.items()}
    found = {}
    for name, values in _without_rounds(logs).items():
        found[name] = Estimate(math.exp(half_sample_mode(values)), _noise(values), len(values))
    return found


def half_sample_mode(values: Sequence[float]) -> float:
    """The mean of the last three or fewer of what lies closest together."""
    rest = sorted(values)
    while len(rest) > 3:
        begin, count = _closest_half(rest)
        rest = rest[begin : begin + count]
    return statistics.fmean(rest)


def differ(first: Estimate, second: Estimate, deviations: float = 2.0) -> bool:
    """Whether the two are further apart than their noise explains."""
    apart = abs(math.log(first.seconds / second.seconds))
    return apart > deviations * math.hypot(first.noise, second.noise)


def compare(first: Estimate, second: Estimate, deviations: float = 2.0) -> int:
    """-1: the first is faster; 1: the second is; 0: nobody can tell."""
    if not differ(first, second, deviations):
        return 0
    return -1 if first.seconds < second.seconds else 1


def fastest(estimates: Mapping[str, Estimate], default: str | None = None) -> str:
    """The name of the fastest candidate; the default where the fastest one cannot be told from it."""
    best = min(estimates, key=lambda name: (estimates[name].seconds, name))
    if default in estimates and compare(estimates[best], estimates[default]) == 0:
        return default
    return best


def late(samples: Mapping[str, Sequence[float]]) -> set[str]:
    """Candidates that need no more samples: slower than LATE times the best one, noise allowed for. A candidate with
    few samples is never late: the first rounds of a kernel that is new to the machine are not the later ones."""
    able = {name: values for name, values in samples.items() if len(values) >= LEAST_ROUNDS}
    if len(able) < 2:
        return set()
    estimates = estimate_all(able)
    best = min(estimates.values(), key=lambda each: each.seconds)
    bound = math.log(best.seconds * LATE)
    return {
        name
        for name, each in estimates.items()
        if math.log(each.seconds) - 2 * math.hypot(each.noise, best.noise) > bound
    }


def round_order(names: Sequence[str], turn: int, seed: int) -> list[str]:
    """The order of one round. It is drawn anew each time, so that nobody always follows the same neighbour, and the
    same for the same seed."""
    order = sorted(names)
    random.Random(f"{seed}/{turn}").shuffle(order)
    return order


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _without_rounds(logs: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The logarithms less what their rounds did to all candidates, relative to the round in the middle."""
    rounds = max(map(len, logs.values()))
    effects = [0.0] * rounds
    for _ in range(PASSES if len(logs) > 1 else 0):
        before, effects = effects, _round_effects(logs, effects)
        if max(abs(one - other) for one, other in zip(before, effects, strict=True)) < SETTLED:
            break
    return {name: _less(values, effects) for name, values in logs.items()}


def _round_effects(logs: Mapping[str, list[float]], before: Sequence[float]) -> list[float]:
    levels = {name: half_sample_mode(_less(values, before)) for name, values in logs.items()}
    effects = []
    for turn in range(len(before)):
        rest = [values[turn] - levels[name] for name, values in logs.items() if turn < len(values)]
        effects.append(quantile(rest, ROUND_QUANTILE))
    middle = statistics.median_low(effects)
    return [effect - middle for effect in effects]


def _less(values: Sequence[float], effects: Sequence[float]) -> list[float]:
    return [value - effect for value, effect in zip(values, effects, strict=False)]


def _closest_half(ordered: Sequence[float]) -> tuple[int, int]:
    """Where the half of the values begins that lies closest together, and how many it has."""
    count = (len(ordered) + 1) // 2
    begin = min(range(len(ordered) - count + 1), key=lambda at: ordered[at + count - 1] - ordered[at])
    return begin, count


def _noise(values: Sequence[float]) -> float:
    if len(values) < 3:
        return UNKNOWN
    ordered = sorted(values)
    begin, count = _closest_half(ordered)
    width = ordered[begin + count - 1] - ordered[begin]
    return NOISE_WIDTHS * width / len(values) ** (1 / 3)
