# SPDX-License-Identifier: Apache-2.0
"""Which tokens of a batch are padding: those so far, and new ones, read from the attention mask that transformers hands to
the attention function.

Only masks that are causal, within the layer's window, and hide the same keys from every query are understood; padding
in front of the new tokens of a row is stripped before anything is stored. Everything else is refused.
"""

from __future__ import annotations

import numpy as np
import torch

from kvq.errors import Unsupported

_CHANGED = (
    "the attention mask hides a token that is stored in the cache, or shows one that was padding when it came: keep the "
    "attention_mask of earlier tokens as it was, and let one generate() end before another uses the cache"
)


class KeptTokens:
    """Which of the tokens that came were stored, [rows, tokens] bool; the others were padding. It grows as a list does, so
    that a new token costs the same however many there are."""

    def __init__(self, stored: torch.Tensor) -> None:
        self._buffer = _buffer(*stored.shape).copy_(stored)
        self.tokens = stored.shape[1]
        self.padding = _false_of(stored)  # of each row, how many

    @property
    def rows(self) -> int:
        return self._buffer.shape[0]

    @property
    def stored(self) -> torch.Tensor:
        """The tensor itself, to read: valid until the next change."""
        return self._buffer[:, : self.tokens]

    def append(self, tokens: int, pads: list[int]) -> None:
        """So many tokens came to each row, of which the first pads[row] were padding."""
        begin, end = self.tokens, self.tokens + tokens
        if end > self._buffer.shape[1]:
            larger = _buffer(self.rows, max(64, 2 * end))
            larger[:, :begin] = self.stored
            self._buffer = larger
        self._buffer[:, begin:end] = True
        for row, pad in enumerate(pads):
            if pad:
                self._buffer[row, begin : begin + pad] = False
        self.tokens = end
        self.padding = [old + pad for old, pad in zip(self.padding, pads, strict=True)]

    def cropped_padding(self, tokens: int) -> list[int]:
        """`padding` as it was when so many tokens had come."""
        gone = _false_of(self._buffer[:, tokens : self.tokens])
        return [padding - more for padding, more in zip(self.padding, gone, strict=True)]

    def crop(self, tokens: int) -> None:
        self.padding = self.cropped_padding(tokens)
        self.tokens = tokens

    def select(self, indices: list[int]) -> None:
        self._buffer = _buffer(len(indices), self.tokens).copy_(self.stored[indices])
        self.padding = [self.padding[index] for index in indices]

    def copy(self) -> KeptTokens:
        return KeptTokens(self.stored)


def _buffer(rows: int, tokens: int) -> torch.Tensor:
    with torch.inference_mode(False):  # a tensor made in that mode could not be written to outside of it
        return torch.empty(rows, tokens, dtype=torch.bool)


def _false_of(tensor: torch.Tensor) -> list[int]:
    return (~tensor).sum(dim=1).tolist()


def leading_pads(mask: torch.Tensor | None, kept: KeptTokens, tokens: int, window: int = 0) -> list[int]:
    """How many of the `tokens` new tokens of each row are padding.

    The mask is None (no padding, in the past neither) or bool [rows, 1, tokens, past + tokens], True where a query may
    attend; under an attention `window` it shows a query the last `window` keys only.
    """
    rows, past = kept.rows, kept.tokens
    if mask is None:
        if any(kept.padding):
            raise Unsupported(_CHANGED)
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
    # The one look at every earlier token, a byte for each: a mask that hides other tokens than it did would otherwise be
    # ignored in silence. transformers has made the tensor for this call, in several passes over as many entries. NumPy's
    # comparison takes a quarter of torch.equal's time.
    if not np.array_equal(mask[:, 0, seen:past].numpy(), kept.stored[:, seen:].numpy()):
        raise Unsupported(_CHANGED)
    pads = tokens - new.sum(dim=-1)
    if tokens > 1:
        _check_shape(mask, torch.cat([kept.stored, new], dim=1), pads, window)
    return pads.tolist()


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
