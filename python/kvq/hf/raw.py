# SPDX-License-Identifier: Apache-2.0
"""Attention among the new tokens of one call as they came: the half of raw prefill (format-spec prefill_c2) that has
nothing to do with packed pages. Plain matrix products over blocks of queries, so that scratch stays bounded."""

from __future__ import annotations

import torch

BLOCK_BYTES = 1 << 24  # of the scores of one block of queries


def attend_new(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    pads: list[int],
    window: int = 0,
    score_cap: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, Hq, T, Dk], k and v [B, Hkv, T, D]: causal attention of each row over its own tokens, padding in front left
    out. Returns o [B, Hq, T, Dv] and lse [B, Hq, T] in float32; queries of padding have lse -inf and o 0."""
    rows, q_heads, tokens, _ = q.shape
    kv_heads = k.shape[1]
    keys = k.float().transpose(-1, -2)
    values = v.float()
    o = torch.zeros(rows, q_heads, tokens, v.shape[-1])
    lse = torch.full((rows, q_heads, tokens), -torch.inf)
    first = torch.tensor(pads)[:, None, None]
    step = max(1, BLOCK_BYTES // (4 * rows * q_heads * tokens))
    for begin in range(0, tokens, step):
        end = min(begin + step, tokens)
        low = max(0, begin - window + 1) if window else 0
        grouped = q[:, :, begin:end].float().reshape(rows, kv_heads, -1, q.shape[-1])
        scores = (grouped @ keys[..., low:end]).mul_(scale)
        if score_cap:
            scores.div_(score_cap).tanh_().mul_(score_cap)
        scores = scores.view(rows, q_heads, end - begin, end - low)
        distance = torch.arange(begin, end)[:, None] - torch.arange(low, end)
        seen = (distance >= 0) & (distance < window) if window else distance >= 0
        seen = seen & (torch.arange(low, end) >= first)
        scores.masked_fill_(~seen[:, None], -torch.inf)
        part = scores.logsumexp(dim=-1)
        weights = (scores - part[..., None]).exp_().nan_to_num_(0.0)  # a query of padding sees nothing: -inf - -inf
        product = weights.view(rows, kv_heads, -1, end - low) @ values[..., low:end, :]
        o[:, :, begin:end] = product.view(rows, q_heads, end - begin, -1)
        lse[:, :, begin:end] = part
    return o, lse


def merge(a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Combines two partial results over disjoint keys (format-spec merge_c1); a part that saw no key weighs nothing."""
    lse = torch.logaddexp(a[1], b[1])
    weight_a, weight_b = ((part[1] - lse).exp().nan_to_num(0.0)[..., None] for part in (a, b))
    return a[0] * weight_a + b[0] * weight_b
