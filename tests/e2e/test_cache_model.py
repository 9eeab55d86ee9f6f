# SPDX-License-Identifier: Apache-2.0
"""The paged cache against the oracle's model of a cache: the same random life of both, compared after every move.

Sequences come, go, grow and are stepped in any mixture, with padding, failures and steps that are taken back. Seeds are
fixed. What else a cache can do is in test_cache_operations.py.
"""

import numpy as np
import pytest
from twins import Case, Twins

CASES = [
    Case("k4c32-v4t16/w32,block", 0, 2, 4, 2, 16, 32, "f32"),
    Case("k2c32-v2t16/w32,sliding", 32, 2, 3, 1, 32, 16, "f32"),
    Case("k8c64-v2c32/w0,block", 128, 1, 2, 2, 16, 16, "bf16"),
    Case("k4t16-v8t32/w45,block", 96, 1, 4, 2, 48, 32, "f32"),
    Case("k3c32-v3t16/w32,block", 0, 1, 4, 2, 48, 32, "bf16"),
    Case("k8th-v3th/w40,block", 0, 1, 2, 1, 80, 48, "f32"),
    Case("k4c32-v8t16/w96,sliding", 0, 1, 2, 1, 16, 48, "bf16"),
]


class RandomLife(Twins):
    """Moves that a seed decides."""

    def random_step(self):
        rng = self.rng
        chosen = [int(s) for s in rng.permutation(self.live)[: rng.integers(1, len(self.live) + 1)]]
        counts = [int(rng.choice([0, 1, 1, 2, 31, 32, 33, rng.integers(3, 31), rng.integers(34, 150)])) for _ in chosen]
        padding = int(rng.integers(0, 3))
        tokens = max(counts) + padding
        firsts = [int(rng.integers(0, tokens - n + 1)) for n in counts] if rng.random() < 0.5 else None
        # Fewer layers: a step that is taken back on its way.
        layers = self.case.layers if rng.random() < 0.8 else int(rng.integers(0, self.case.layers + 1))
        commits = layers == self.case.layers and rng.random() < 0.85
        apart, bad = rng.random() < 0.5, rng.random() < 0.3
        self.step(chosen, counts, padding, firsts, layers, commits, apart, bad)

    def move(self):
        kind = self.rng.random()
        if not self.live or kind < 0.12:
            self.add()
        elif kind < 0.17 or max(map(self.model.length, self.live)) > 500:
            self.remove(self.live[self.rng.integers(len(self.live))])
        elif kind < 0.22:
            self.grow(int(self.rng.integers(1, 5)), int(self.model.capacity < 4))
        else:
            self.random_step()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.format)
def test_a_random_life_is_the_models(context, case):
    seen = set()
    for seed in range(4):
        twins = RandomLife(context, case, seed)
        for _ in range(40):
            twins.move()
            twins.check()
        seen |= twins.seen
    assert seen >= {"plan refused", "add refused", "committed", "aborted", "bad value", "forward", "attend"}


@pytest.mark.parametrize("format", ["k4c32-v4t16/w1300,block", "k2c32-v4t16/w1152,sliding"])
def test_a_window_longer_than_a_split(context, format):
    """More packed keys, and more kept ones, than one work item takes."""
    twins = Twins(context, Case(format, 0, 1, 2, 1, 16, 16, "f32"), 5, blocks=64)
    twins.add()
    twins.add()
    filling = twins.cache.plan([0], [2600])
    model = twins.model.plan([0], [2600])
    k, v = (np.random.default_rng(8).standard_normal((1, 1, 2600, 16)).astype(np.float32) for _ in range(2))
    filling.append(0, k, v)
    model.append(0, k, v)
    filling.commit()
    model.commit()
    twins.check()
    for counts in ([1, 40], [29, 0], [1, 1], [33, 2]):
        twins.step([0, 1], counts)
        twins.check()
