# SPDX-License-Identifier: Apache-2.0
"""Small caches of one layer and short runs of them, for the oracle's own tests."""

import numpy as np
from kvq_oracle.cache import CacheModel


def tensors(rng, tokens, q_heads=2, kv_heads=1, dk=16, dv=32):
    shapes = ((q_heads, tokens, dk), (kv_heads, tokens, dk), (kv_heads, tokens, dv))
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def small(cache, **options):
    return CacheModel(cache, layers=1, q_heads=2, kv_heads=1, dk=16, dv=32, **options)


def run(model, sequence, q, k, v, cuts):
    """Appends k, v in steps that end at `cuts`; returns o and lse of all queries."""
    outputs, begin = [], 0
    for end in cuts:
        (layer,) = model.step([sequence], [([q[:, begin:end]], [k[:, begin:end]], [v[:, begin:end]])], 0.25)
        outputs.append(layer[0])
        begin = end
    return tuple(np.concatenate([part[i] for part in outputs], axis=1) for i in range(2))


def filled(cache, tokens, seed=0, **options):
    """(model, sequence, q, k, v) after one step of so many random tokens."""
    model = small(cache, **options)
    q, k, v = tensors(np.random.default_rng(seed), tokens)
    sequence = model.add()
    run(model, sequence, q, k, v, [tokens])
    return model, sequence, q, k, v


def grow(model, sequence, count, seed, raw=False):
    """A step of so many random tokens: its (o, lse)."""
    q, k, v = tensors(np.random.default_rng(seed), count)
    (layer,) = model.step([sequence], [([q], [k], [v])], 0.25, raw)
    return layer[0]


def frontiers(model, sequence):
    state = model.state(sequence)
    return state["k_frontier"], state["v_frontier"]
