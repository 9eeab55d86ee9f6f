# SPDX-License-Identifier: Apache-2.0
"""Times as a machine gives them: what disturbs samples, each by itself and all at once."""

import math
import random

KINDS = ("plain", "lucky", "spikes", "drift", "busy", "all")
JITTER = 0.01  # of every sample
LUCKY, SPIKES = 0.05, 0.30  # shares of samples


class Disturbances:
    """Called with the moment of a sample, in rounds, it says by what factor the machine stretches it.

    lucky: 5 % are 1.2 to 1.6 times too short. spikes: 30 % are too long, by 20 % up to any factor. drift: 30 % slower
    at the end than at the beginning, and a wave of 10 %. busy: three times a neighbour slows everything 1.2 to 2 times
    for 5 to 20 % of the rounds.
    """

    def __init__(self, kind, seed, rounds):
        self.kind, self.rounds = kind, rounds
        self.rng = random.Random(f"{kind}/{seed}")
        self.phase = self.rng.uniform(0, 2 * math.pi)
        self.busy = [(self.rng.uniform(0, rounds), self.rng.uniform(0.05, 0.2) * rounds, self.rng.uniform(1.2, 2))
                     for _ in range(3)]

    def __call__(self, moment):
        rng, factor = self.rng, math.exp(self.rng.gauss(0, JITTER))
        if self.has("lucky") and rng.random() < LUCKY:
            factor /= rng.uniform(1.2, 1.6)
        if self.has("spikes") and rng.random() < SPIKES:
            factor *= 1 + 0.2 * rng.paretovariate(1.0)
        if self.has("drift"):
            part = moment / self.rounds
            factor *= 1 + 0.3 * part + 0.1 * math.sin(self.phase + 4 * math.pi * part)
        if self.has("busy"):
            for begin, length, slower in self.busy:
                if begin <= moment < begin + length:
                    factor *= slower * math.exp(rng.gauss(0, 0.1))
        return factor

    def has(self, kind):
        return self.kind in (kind, "all")


def sampled(seconds, kind, seed, rounds, order):
    """{name: samples} of candidates {name: true seconds}, each once a round in the order order(names, turn, seed)."""
    stretch = Disturbances(kind, seed, rounds)
    samples = {name: [] for name in seconds}
    for turn in range(rounds):
        names = order(list(seconds), turn, seed)
        for place, name in enumerate(names):
            samples[name].append(seconds[name] * stretch(turn + place / len(names)))
    return samples
