# SPDX-License-Identifier: Apache-2.0
"""Which tokens of a batch are padding, read from the attention mask that transformers hands to the attention function.

Only masks that are causal, within the layer's window, and hide the same keys from every query are understood; padding
in front of the new tokens of a row is stripped before anything is stored. Everything else is refused.
"""

from __future__ import annotations

import torch

from kvq.errors import Unsupported


def leading_pads(mask: torch.Tensor | None, kept: torch.Tensor, tokens: int, window: int = 0) -> list[int]:
    """How many of the `tokens` new tokens of each row are padding.

    `kept` [rows, past] says which of the earlier tokens were stored. The mask is None (no padding, in the past neither)
    or bool [rows, 1, tokens, past + tokens], True where a query may attend; under an attention `window` it shows a query
    the last `window` keys only.
    """
    rows, past = kept.shape
    if mask is None:
        _check_past(torch.ones_like(kept), kept)
        return [0] * rows
    if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[-2] != tokens or mask.shape[-1] < past + tokens:
        raise Unsupported(
            f"the attention mask is {mask.dtype} {list(mask.shape)} where attn_implementation=\"kvq\" reads a bool "
            f"mask [{rows}, 1, {tokens}, {past + tokens}]: pass the tokenizer's 2-D attention_mask to the model"
        )
    mask = mask[:, 0, :, : past + tokens].expand(rows, -1, -1)
    # A token sees itself unless it is padding, whatever the window.
    new = mask.diagonal(offset=past, dim1=1, dim2=2)
    seen = max(0, past - window + 1) if window else 0  # of the past, what the first query's window shows
    _check_past(mask[:, 0, seen:past], kept[:, seen:])
    pads = tokens - new.sum(dim=-1)
    if tokens > 1:
        _check_shape(mask, torch.cat([kept, new], dim=1), pads, window)
    return pads.tolist()


def _check_past(visible: torch.Tensor, kept: torch.Tensor) -> None:
    if not torch.equal(visible, kept):
        raise Unsupported(
            "the attention mask hides a token that is stored in the cache, or shows one that was padding when it came: "
            "keep the attention_mask of earlier tokens as it was, and let one generate() end before another uses the "
            "cache"
        )


def _check_shape(mask: torch.Tensor, visible: torch.Tensor, pads: torch.Tensor, window: int) -> None:
    tokens, keys = mask.shape[1:]
    past = keys - tokens
    new = visible[:, past:]
    position = torch.arange(tokens)
    if not torch.equal(new, position >= pads[:, None]):
        row = int((new != (position >= pads[:, None])).any(dim=-1).nonzero()[0])
        if past:
            raise Unsupported(
                f"row {row} of the batch has padding behind or between the tokens of a later turn: a later turn must "
                "bring no padding, make its rows of one length or give each row a cache of its own"
            )
        raise Unsupported(
            f"row {row} of the batch has padding behind or between its tokens: set tokenizer.padding_side = \"left\""
        )
    distance = (position[:, None] + past) - torch.arange(keys)
    causal = (distance >= 0) & (distance < window) if window else distance >= 0
    if not torch.equal(mask, causal & visible[:, None, :]):
        raise Unsupported(
            "the attention mask is not causal: attn_implementation=\"kvq\" knows causal attention with left padding "
            "only, load the model with attn_implementation=\"sdpa\" for other masks"
        )
