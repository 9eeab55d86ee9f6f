# SPDX-License-Identifier: Apache-2.0
"""Attention in f64 (spec section 7), one query row at a time, and the merge of partial results."""

import numpy as np

F64 = np.float64


def attend_keys(q, k, v, scale):
    """One query row q [Dk] over k [n, Dk], v [n, Dv]: (o, lse). No key: o is zero and lse -inf."""
    if len(k) == 0:
        return np.zeros(v.shape[-1], F64), -np.inf
    scores = F64(scale) * (np.asarray(k, F64) @ np.asarray(q, F64))
    top = scores.max()
    lse = top + np.log(np.exp(scores - top).sum())
    return np.exp(scores - lse) @ np.asarray(v, F64), lse


def attend_query(q, k, v, scale):
    """q [Hq, Dk] over k [Hkv, n, Dk], v [Hkv, n, Dv], all seen: (o [Hq, Dv], lse [Hq])."""
    ratio = len(q) // len(k)
    rows = [attend_keys(q[h], k[h // ratio], v[h // ratio], scale) for h in range(len(q))]
    return np.stack([o for o, _ in rows]), np.array([lse for _, lse in rows])


def attend(q, k, v, k_quantized, v_quantized, positions, frontiers, scale):
    """attention_c1: queries q [Hq, T, Dk] at `positions`, each in the state that its entry of `frontiers` describes.

    k, v [Hkv, n, D] are the values as they came; k_quantized, v_quantized the dequantized ones, at least up to the
    largest frontier. Returns (o [Hq, T, Dv], lse [Hq, T]).
    """
    outputs, lses = [], []
    for index, (t, (fk, fv)) in enumerate(zip(positions, frontiers)):
        seen_k = np.concatenate([k_quantized[:, :fk], k[:, fk : t + 1]], axis=1)
        seen_v = np.concatenate([v_quantized[:, :fv], v[:, fv : t + 1]], axis=1)
        o, lse = attend_query(q[:, index], seen_k, seen_v, scale)
        outputs.append(o)
        lses.append(lse)
    return np.stack(outputs, axis=1), np.stack(lses, axis=1)


def merge(o, lse):
    """merge_c1 over the first axis: o [parts, ..., D], lse [parts, ...]. A part without keys weighs nothing."""
    o, lse = np.asarray(o, F64), np.asarray(lse, F64)
    top = lse.max(axis=0)
    anchor = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        total = anchor + np.log(np.exp(lse - anchor).sum(axis=0))
    weight = np.exp(lse - np.where(np.isneginf(total), 0.0, total))[..., None]
    return np.where(weight > 0, weight * np.where(weight > 0, o, 0.0), 0.0).sum(axis=0), total
