# SPDX-License-Identifier: Apache-2.0
"""Fake-quantized attention in PyTorch: what a model would compute if its cache were quantized by a cache text.

K and V stay dense; every query sees them as the spec's section 5 says. It knows nothing of pages, steps or kernels, and
is what the accuracy of the product is judged against. It refuses padding: it is for whole windows of text.
"""

import torch

from .text import as_cache, cache_at, frontier

QUERY_CHUNK = 256  # bounds the score matrices to a few tens of megabytes


def quantize_groups(x, bits):
    """quantize_c2 along the last axis: (codes, scale, minimum), the latter two f16 with that axis kept."""
    levels = float((1 << bits) - 1)
    x = x.float()
    low = x.amin(-1, keepdim=True) + 0.0
    high = x.amax(-1, keepdim=True) + 0.0
    scale = ((high - low) / levels).to(torch.float16)
    minimum = low.to(torch.float16)
    zero = scale == 0
    inverse = torch.where(zero, 0.0, torch.ones_like(low) / torch.where(zero, 1.0, scale.float()))
    # A code is an integer: it has no negative zero that could survive in the product with the scale.
    codes = torch.round((x - minimum.float()) * inverse).clamp(0, levels) + 0.0
    return codes, scale, minimum


def fake_quantize(x, side):
    """Quantized and dequantized x [..., tokens, channels] in f32."""
    if side.per_channel:
        x = x.transpose(-1, -2)
    codes, scale, minimum = quantize_groups(x.unflatten(-1, (-1, side.group)), side.bits)
    product = codes * scale.float()
    values = (product + minimum.float()).flatten(-2)
    return values.transpose(-1, -2) if side.per_channel else values


def _scores(q, k, k_quantized, frontiers):
    """Scores of a chunk of queries [.., G, rows, keys]: of fake-quantized K below each row's frontier, of K above."""
    low, high = int(frontiers.min()), int(frontiers.max())
    keys = torch.arange(low, high)
    quantized = q @ k_quantized[..., :high, :].transpose(-1, -2)
    raw = q @ k[..., low:, :].transpose(-1, -2)
    mixed = torch.where(keys < frontiers[:, None], quantized[..., low:], raw[..., : high - low])
    return torch.cat([quantized[..., :low], mixed, raw[..., high - low :]], -1)


def _weigh(p, v, v_quantized, frontiers):
    """p @ V, each row's probabilities split between fake-quantized V below its frontier and V above."""
    low, high = int(frontiers.min()), int(frontiers.max())
    below = torch.arange(low, high) < frontiers[:, None]
    quantized = torch.cat([p[..., :low], torch.where(below, p[..., low:high], 0.0)], -1)
    raw = torch.cat([torch.where(below, 0.0, p[..., low:high]), p[..., high:]], -1)
    return quantized @ v_quantized[..., :high, :] + raw @ v[..., low:, :]


def _states(cache, first, tokens, raw):
    """Per query position its frontiers as positions: kept tokens count as below, they are never quantized."""
    asked = [first] * (tokens - first) if raw else range(first, tokens)
    return torch.tensor([[min(t, cache.keep) + f for f in frontier(cache, t)] for t in asked])


def _with_codes(x, end, side, keep):
    """The first `end` tokens of x: kept ones as they came, then fake-quantized."""
    kept = min(end, keep)
    return torch.cat([x[..., :kept, :], fake_quantize(x[..., kept:end, :], side)], -2)


def attention(q, k, v, cache, scale=None, *, window=0, score_cap=0.0, sinks=None, raw=False):
    """q [B, Hq, Tq, Dk] are the last Tq of k, v [B, Hkv, T, D]: [B, Hq, Tq, Dv] in f32.

    window: attention window, 0 is none. score_cap: 0 is none. sinks [Hq]. raw: the queries are one step of raw prefill.
    """
    cache = cache_at(cache, k.shape[-1], v.shape[-1])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    (_, q_heads, queries, _), (kv_heads, tokens) = q.shape, k.shape[1:3]
    q = q.float().unflatten(1, (kv_heads, q_heads // kv_heads))
    first = tokens - queries
    states = _states(cache, first, tokens, raw)
    last_k, last_v = (int(x) for x in states.max(0).values)
    k, v = k.float()[:, :, None], v.float()[:, :, None]
    k_quantized = _with_codes(k, last_k, cache.pair.k, cache.keep)
    v_quantized = _with_codes(v, last_v, cache.pair.v, cache.keep)
    outputs = []
    for begin in range(0, queries, QUERY_CHUNK):
        end = min(begin + QUERY_CHUNK, queries)
        seen = first + end
        scores = scale * _scores(q[..., begin:end, :], k[..., :seen, :], k_quantized, states[begin:end, 0])
        if score_cap:
            scores = score_cap * torch.tanh(scores / score_cap)
        distance = torch.arange(first + begin, seen)[:, None] - torch.arange(seen)
        hidden = distance < 0 if not window else (distance < 0) | (distance >= window)
        scores = scores.masked_fill_(hidden, float("-inf"))
        if sinks is not None:
            column = sinks.detach().float().reshape(kv_heads, -1, 1, 1).expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, column], -1)
        p = torch.softmax(scores, -1)[..., :seen]
        outputs.append(_weigh(p, v[..., :seen, :], v_quantized, states[begin:end, 1]))
    return torch.cat(outputs, -2).flatten(1, 2)


def _refuse_padding(mask, queries, tokens, window):
    if mask is None:
        return
    distance = torch.arange(tokens - queries, tokens)[:, None] - torch.arange(tokens)
    causal = (distance >= 0) & (distance < (window or tokens))
    allowed = mask if mask.dtype == torch.bool else mask == 0
    if not torch.equal(allowed.expand(-1, -1, queries, tokens), causal.expand(mask.shape[0], 1, -1, -1)):
        raise ValueError("The attention mask hides more than the model does; give whole windows without padding.")


def register(name, cache):
    """Installs the attention in transformers: model.set_attn_implementation(name) then uses it, with a DynamicCache
    or none. `name` must not look like a repository (no slash)."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    cache = as_cache(cache)

    def forward(
        module, query, key, value, attention_mask, scaling=None, sliding_window=None, softcap=None, s_aux=None, **kwargs
    ):
        window = sliding_window or 0
        _refuse_padding(attention_mask, query.shape[2], key.shape[2], window)
        options = dict(window=window, score_cap=softcap or 0.0, sinks=s_aux)
        out = attention(query, key, value, cache, scaling, **options)
        return out.transpose(1, 2).contiguous().to(query.dtype), None

    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, sdpa_mask)
