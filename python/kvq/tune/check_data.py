# SPDX-License-Identifier: Apache-2.0
"""Arrays of the data that candidates are checked on. Errors that random normal values forgive show on it: a channel
that is large and off zero takes all the bits that a coefficient has, and one key that takes all attention leaves no
average for errors to vanish in. NumPy is imported by the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvq.tune.problem import CheckCase

if TYPE_CHECKING:
    import numpy as np

DOMINANT = 12.0  # of a dominant token's score


def keys_and_values(case: CheckCase, heads: int, tokens: int, dk: int, dv: int) -> tuple[np.ndarray, np.ndarray]:
    """K [heads, tokens, dk] and V [heads, tokens, dv] in float32. Outlier channels are others in each head."""
    import numpy as np

    rng = np.random.default_rng(case.seed)
    k, v = (rng.standard_normal((heads, tokens, d), dtype=np.float32) for d in (dk, dv))
    for values in (k, v):
        for head in range(heads):
            channels = rng.choice(values.shape[2], size=min(case.outliers, values.shape[2]), replace=False)
            values[head][:, channels] = case.factor * (1 + values[head][:, channels])
    return k, v


def queries(case: CheckCase, keys: np.ndarray, ratio: int) -> np.ndarray:
    """q [heads * ratio, dk] in float32. Where the case has a dominant token the queries of a head look at one of its
    keys: its score is DOMINANT above what the others have on average, so that it takes nearly all attention."""
    import numpy as np

    heads, tokens, dk = keys.shape
    rng = np.random.default_rng(case.seed + 1)
    q = rng.standard_normal((heads, ratio, dk), dtype=np.float32)
    if case.dominant:
        for head in range(heads):
            spread = keys[head].std(axis=0)  # without it the key that is largest in an outlier channel would win
            key = ((keys[head] - keys[head].mean(axis=0)) / spread)[rng.integers(tokens)]
            q[head] = key / spread * (DOMINANT * np.sqrt(dk) / float(key @ key))
    return q.reshape(heads * ratio, dk)
