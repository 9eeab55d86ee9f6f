# SPDX-License-Identifier: Apache-2.0
"""Which layers of a model are alike under the formats that a user asked for, and the pools that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.hf.formats import Formats
from kvq.hf.model import ModelLayout, partition
from kvq.hf.pool import LayerKind, Pool


@dataclass(frozen=True)
class PoolMaker:
    """layout None: a model of which no more is known than what its tensors show."""

    context: lowlevel.Context
    formats: Formats
    page_tokens: int
    layout: ModelLayout | None
    accuracy: str

    def partition(self, layers: int, k: torch.Tensor, v: torch.Tensor) -> list[list[int]]:
        """Numbers of the layers that share a pool, given K and V of one of them."""
        sizes = k.shape[-1], v.shape[-1]
        known = self.layout.layers if self.layout else [None] * layers
        return partition([(layer, self.formats.of(index, *sizes)) for index, layer in enumerate(known)])

    def make(self, part: Sequence[int], layer: int, q_heads: int, k: torch.Tensor, v: torch.Tensor) -> Pool:
        """The pool of the layers `part`, given K and V of one of them."""
        text = self.formats.of(layer, k.shape[-1], v.shape[-1])
        check_page_tokens(text, self.page_tokens)
        layout = self.layout
        kind = LayerKind(
            format=text,
            q_heads=q_heads,
            kv_heads=k.shape[1],
            dk=k.shape[-1],
            dv=v.shape[-1],
            attention_window=layout.layers[layer].window if layout else 0,
            score_cap=layout.score_cap if layout else 0.0,
        )
        most = layout.max_tokens if layout else 0
        return Pool(self.context, kind, len(part), k.dtype, self.page_tokens, k.shape[0], most, self.accuracy)


def check_page_tokens(text: str | None, page_tokens: int) -> None:
    if page_tokens and text is not None and page_tokens not in lowlevel.format_page_tokens(text):
        raise InvalidArgument(f"page_tokens is {page_tokens}: {text} takes {lowlevel.format_page_tokens(text)}")
