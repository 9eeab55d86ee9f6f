# SPDX-License-Identifier: Apache-2.0
"""The memory of layers that are alike: one lowlevel.Cache, and the sequences that rows of one or more KVQCaches own.

Address space is taken for as many tokens as the model can have; the system gives memory only where pages are written.
Where there is less address space than that, or a sequence becomes longer, the pool grows by copying.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

import torch

from kvq import lowlevel
from kvq.errors import ResourceExhausted

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
GROW_TOKENS = 256  # the least that a pool has and grows by, for each row
MOST_BYTES = 1 << 38  # of address space


@dataclass(frozen=True)
class LayerKind:
    """What layers have in common that share a pool (format-spec tail_c3)."""

    format: str
    q_heads: int
    kv_heads: int
    dk: int
    dv: int
    attention_window: int = 0
    score_cap: float = 0.0

    @property
    def keep(self) -> int:
        """Tokens that are kept in full precision (format-spec text_c8)."""
        found = re.search(r",keep(\d+)", self.format)
        return int(found[1]) if found else 0


def default_page_tokens(text: str) -> int:
    legal = lowlevel.format_page_tokens(text)
    return next((tokens for tokens in legal if tokens >= 64), legal[-1])


class Pool:
    """The pool of `layers` layers of one kind. Not safe for several threads but where `lock` is held."""

    def __init__(
        self,
        context: lowlevel.Context,
        kind: LayerKind,
        layers: int,
        dtype: torch.dtype,
        page_tokens: int,
        rows: int,
        max_tokens: int,
        accuracy: str,
    ) -> None:
        self.kind = kind
        self.accuracy = accuracy  # no part of the kind: what is stored does not depend on it
        self.layers = layers
        self.dtype = dtype
        self.page_tokens = page_tokens or default_page_tokens(kind.format)
        self.lock = threading.RLock()  # steps and sequences of all caches that share the pool
        self._sinks: dict[int, tuple[int, int]] = {}
        self.cache = self._create(context, rows, max_tokens)

    def _create(self, context: lowlevel.Context, rows: int, max_tokens: int) -> lowlevel.Cache:
        kind = self.kind
        if kind.attention_window:
            max_tokens = min(max_tokens, 2 * (kind.attention_window + GROW_TOKENS))
        page_bytes = lowlevel.format_page_bytes(kind.format, kind.dk, kind.dv, self.page_tokens)
        most = MOST_BYTES // (page_bytes * kind.kv_heads * self.layers)
        least = self.blocks_of(GROW_TOKENS) * rows
        blocks = max(least, min(most, self.blocks_of(max_tokens) * rows))
        while True:
            try:
                return lowlevel.Cache(
                    context,
                    kind.format,
                    layers=self.layers,
                    q_heads=kind.q_heads,
                    kv_heads=kind.kv_heads,
                    dk=kind.dk,
                    dv=kind.dv,
                    dtype=DTYPES[self.dtype],
                    blocks=blocks,
                    sequences=rows,
                    page_tokens=self.page_tokens,
                    attention_window=kind.attention_window,
                    score_cap=kind.score_cap,
                    accuracy=self.accuracy,
                )
            except ResourceExhausted:  # a limit on address space
                if blocks == least:
                    raise
                blocks = max(least, blocks // 2)

    def blocks_of(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    # -- sequences ---------------------------------------------------------------------------------------------------

    def free_slots(self) -> int:
        return self.cache.sequences - int(self.cache.report()["sequences"])

    def need_slots(self, count: int) -> None:
        """Makes room for `count` more sequences. Old and new memory exist together while it grows."""
        missing = count - self.free_slots()
        if missing > 0:
            self.cache.grow(self.cache.blocks, self.cache.sequences + missing)

    def need_blocks(self, rows: list[int], new_tokens: list[int]) -> None:
        """Makes room for a step that found too few blocks: by an eighth, and by 256 tokens a row, at least."""
        missing = self.cache.plan_blocks(rows, new_tokens) - self._free_blocks()
        if missing > 0:
            step = max(self.blocks_of(GROW_TOKENS) * len(rows), -(-self.cache.blocks // 8))
            self.cache.grow(self.cache.blocks + max(missing, step), self.cache.sequences)

    def _free_blocks(self) -> int:
        report = self.cache.report()
        return int(report["blocks_capacity"] - report["blocks_used"])

    def set_sinks(self, layer: int, logits: torch.Tensor) -> None:
        """Sink logits of a layer; a tensor that did not change since the last call costs nothing."""
        stamp = (logits.data_ptr(), logits._version)
        if self._sinks.get(layer) != stamp:
            self.cache.set_sinks(layer, logits.detach().float().flatten().tolist())
            self._sinks[layer] = stamp
