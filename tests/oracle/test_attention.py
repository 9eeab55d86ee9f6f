# SPDX-License-Identifier: Apache-2.0
"""Attention and merge of the oracle, by hand and by their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvq_oracle import attention


def test_attention_worked_by_hand():
    # Scores ln 1, ln 3: probabilities 1/4 and 3/4.
    k = np.log([[1.0], [3.0]])
    o, lse = attention.attend_keys(np.array([2.0]), k, np.array([[4.0, 0.0], [0.0, 8.0]]), 0.5)
    assert np.allclose(o, [1.0, 6.0], rtol=1e-14) and np.isclose(lse, np.log(4), rtol=1e-14)


def test_attention_c1_below_and_above_the_frontier():
    rng = np.random.default_rng(1)
    q = rng.standard_normal((4, 2, 8))
    k, v, k_packed, v_packed = (rng.standard_normal((2, 6, 8)) for _ in range(4))
    o, lse = attention.attend(q, k, v, k_packed, v_packed, [4, 5], [(2, 1), (4, 0)], 0.3)
    for index, (t, fk, fv) in enumerate([(4, 2, 1), (5, 4, 0)]):
        for head in range(4):
            scores, values = [], []
            for j in range(t + 1):
                key = (k_packed if j < fk else k)[head // 2, j]
                scores.append(0.3 * sum(q[head, index, c] * key[c] for c in range(8)))
                values.append((v_packed if j < fv else v)[head // 2, j])
            weights = np.exp(scores)
            assert np.allclose(o[head, index], weights @ values / weights.sum(), rtol=1e-12)
            assert np.isclose(lse[head, index], np.log(weights.sum()), rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_merge_c1_equals_attention_over_all_keys(seed, sizes):
    rng = np.random.default_rng(seed)
    sizes = sizes + [3]
    q, k, v = rng.standard_normal(8), rng.standard_normal((sum(sizes), 8)) * 4, rng.standard_normal((sum(sizes), 8))
    edges = np.cumsum([0] + sizes)
    parts = [attention.attend_keys(q, k[a:b], v[a:b], 1.0) for a, b in zip(edges, edges[1:])]
    o, lse = attention.merge([o for o, _ in parts], [l for _, l in parts])
    whole_o, whole_lse = attention.attend_keys(q, k, v, 1.0)
    assert np.allclose(o, whole_o, rtol=1e-9, atol=1e-12) and np.isclose(lse, whole_lse, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, 1e30])
def test_merge_c1_a_part_without_keys_weighs_nothing(rubbish):
    o, lse = attention.merge([[rubbish, rubbish], [1.0, 2.0]], [-np.inf, 0.5])
    assert o.tolist() == [1.0, 2.0] and lse == 0.5


def test_merge_c1_no_part_saw_a_key():
    o, lse = attention.merge([[5.0], [6.0]], [-np.inf, -np.inf])
    assert o.tolist() == [0.0] and lse == -np.inf
