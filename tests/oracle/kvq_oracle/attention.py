# SPDX-License-Identifier: Apache-2.0
"""Attention in f64 (spec section 7), one query at a time, and the merge of partial results."""

import numpy as np

F64 = np.float64


def attend_query(q, k, v, scale, score_cap=0.0, sinks=None):
    """One query q [Hq, Dk] over k [Hkv, n, Dk], v [Hkv, n, Dv], all seen: (o [Hq, Dv], lse [Hq]).

    score_cap: attention_c11, 0 is none. sinks [Hq]: attention_c12. Neither a key nor a sink: o is zero, lse -inf.
    """
    q, k, v = (np.asarray(x, F64) for x in (q, k, v))
    heads, (kv_heads, keys, _) = len(q), k.shape
    grouped = q.reshape(kv_heads, heads // kv_heads, -1)
    scores = (F64(scale) * (grouped @ k.transpose(0, 2, 1))).reshape(heads, keys)
    if score_cap:
        scores = score_cap * np.tanh(scores / score_cap)
    logits = scores if sinks is None else np.concatenate([scores, np.asarray(sinks, F64)[:, None]], axis=1)
    if not logits.shape[1]:
        return np.zeros((heads, v.shape[-1]), F64), np.full(heads, -np.inf)
    top = logits.max(axis=1)
    lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    weights = np.exp(scores - lse[:, None]).reshape(kv_heads, heads // kv_heads, keys)
    return (weights @ v).reshape(heads, -1), lse


def attend_keys(q, k, v, scale):
    """One query row q [Dk] over k [n, Dk], v [n, Dv]: (o, lse)."""
    o, lse = attend_query(np.asarray(q)[None], np.asarray(k)[None], np.asarray(v)[None], scale)
    return o[0], lse[0]


def visible(x, quantized, position, frontier, keep=0, window=0):
    """attention_c1, window_c1, commit_c7: the rows that the query at `position` sees, oldest first.

    x [H, n, D] are the values as they came, by position; quantized [H, m, D] the dequantized ones, by body index.
    """
    kept = x[:, : min(keep, position + 1)]
    recent = x[:, keep + frontier : position + 1]
    seen = np.concatenate([kept, quantized[:, :frontier], recent], axis=1)
    return seen[:, -window:] if window else seen


def attend(
    q, k, v, k_quantized, v_quantized, positions, frontiers, scale, *, keep=0, window=0, score_cap=0.0, sinks=None
):
    """Queries q [Hq, T, Dk] at `positions`, each in the state that its entry (fK, fV) of `frontiers` describes.

    Arrays as in `visible`; the dequantized ones reach at least to the largest frontier. Returns (o [Hq, T, Dv],
    lse [Hq, T]).
    """
    outputs, lses = [], []
    for index, (t, (fk, fv)) in enumerate(zip(positions, frontiers)):
        seen_k = visible(k, k_quantized, t, fk, keep, window)
        seen_v = visible(v, v_quantized, t, fv, keep, window)
        o, lse = attend_query(q[:, index], seen_k, seen_v, scale, score_cap, sinks)
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
