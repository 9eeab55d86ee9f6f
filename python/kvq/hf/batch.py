# SPDX-License-Identifier: Apache-2.0
"""The rows of a Hugging Face batch in one paged cache: one sequence a row, memory that grows on demand, and the step
that spans all layers of one forward.

It knows tensors, but neither transformers nor masks.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from kvq import lowlevel
from kvq.errors import FailedPrecondition, InvalidArgument, Unsupported

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
GROW_TOKENS = 256  # the least that a full pool grows by, for each row


@dataclass(frozen=True)
class Shape:
    """What a cache must know about a model."""

    layers: int
    q_heads: int


class PackedBatch:
    def __init__(self, context: lowlevel.Context, text: str, shape: Shape, page_tokens: int) -> None:
        self.context = context
        self.format = lowlevel.format_canonical(text)
        self.page_tokens = page_tokens or _default_page_tokens(self.format)
        if self.page_tokens not in lowlevel.format_page_tokens(self.format):
            raise InvalidArgument(
                f"page_tokens is {page_tokens}: {self.format} takes {lowlevel.format_page_tokens(self.format)}"
            )
        self.shape = shape
        self.cache: lowlevel.Cache | None = None
        self.rows: list[int] = []
        self.dtype: torch.dtype | None = None
        self.step: lowlevel.Step | None = None
        self.layers_done = 0

    # -- memory ------------------------------------------------------------------------------------------------------

    def open(self, k: torch.Tensor, v: torch.Tensor) -> None:
        """Makes the cache for the batch, heads and dtype of these tensors, or checks that they still fit it."""
        if k.dtype not in DTYPES or v.dtype != k.dtype:
            raise Unsupported(
                f"K is {k.dtype} and V is {v.dtype}: load the model with dtype=torch.float32 or torch.bfloat16"
            )
        if k.device.type != "cpu":
            raise Unsupported(
                f"K is on device {k.device}: this version of kvq runs on the CPU, move the model with model.to(\"cpu\")"
            )
        if self.cache is not None and not self.rows and not self._fits(k, v):
            self.cache = None  # it holds nothing that would bind its dtype and sizes
        if self.cache is None:
            self.cache = self._create(k, v)
            self.dtype = k.dtype
        if k.dtype != self.dtype:
            raise InvalidArgument(f"K is {k.dtype} where the cache holds {self.dtype}: call reset() or make a new one")
        if not self.rows:
            if k.shape[0] > self.cache.sequences:
                self.cache.grow(max(self.cache.blocks, self._blocks_of(GROW_TOKENS) * k.shape[0]), k.shape[0])
            self.rows = [self.cache.add() for _ in range(k.shape[0])]
        if k.shape[0] != len(self.rows):
            raise InvalidArgument(
                f"the batch has {k.shape[0]} rows where the cache holds {len(self.rows)}: call reset() or make another"
            )

    def _fits(self, k: torch.Tensor, v: torch.Tensor) -> bool:
        config = self._open_cache().config
        sizes = (config["kv_heads"], config["dk"], config["dv"])
        return k.dtype == self.dtype and sizes == (k.shape[1], k.shape[-1], v.shape[-1])

    def _create(self, k: torch.Tensor, v: torch.Tensor) -> lowlevel.Cache:
        return lowlevel.Cache(
            self.context,
            self.format,
            layers=self.shape.layers,
            q_heads=self.shape.q_heads,
            kv_heads=k.shape[1],
            dk=k.shape[-1],
            dv=v.shape[-1],
            dtype=DTYPES[k.dtype],
            blocks=self._blocks_of(GROW_TOKENS) * k.shape[0],
            sequences=k.shape[0],
            page_tokens=self.page_tokens,
        )

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    def reserve(self, lengths: list[int]) -> None:
        """Grows the pool, if it must, for rows of these lengths: by an eighth, and by 256 tokens a row, at least.
        The old and the new memory exist together while it grows."""
        cache = self._open_cache()
        needed = sum(self._blocks_of(max(lowlevel.format_frontier(self.format, length))) for length in lengths)
        if needed > cache.blocks:
            step = max(self._blocks_of(GROW_TOKENS) * len(lengths), -(-cache.blocks // 8))
            cache.grow(max(needed, cache.blocks + step), cache.sequences)

    def reset(self) -> None:
        self.abort()
        for row in self.rows:
            self._open_cache().remove(row)
        self.rows = []

    # -- steps -------------------------------------------------------------------------------------------------------

    @property
    def lengths(self) -> list[int]:
        return [self._open_cache().length(row) for row in self.rows]

    def plan(self, new_tokens: list[int]) -> None:
        """Opens the step of one forward; row r appends the last new_tokens[r] tokens of its tensors."""
        self.reserve([length + new for length, new in zip(self.lengths, new_tokens, strict=True)])
        self.step = self._open_cache().plan(self.rows, new_tokens)
        self.layers_done = 0

    def forward(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, out: torch.Tensor
    ) -> None:
        """Appends and attends in one layer; the last layer commits. An error takes the whole step back."""
        try:
            self._open_step().forward(layer, q, k, v, scale, out)
            self._layer_done()
        except BaseException:
            self.abort()
            raise

    def append_all(self, states: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Appends all tokens of all rows in every layer, as one step of its own."""
        self.plan([states[0][0].shape[2]] * len(self.rows))
        try:
            for layer, (k, v) in enumerate(states):
                self._open_step().append(layer, k, v)
                self._layer_done()
        except BaseException:
            self.abort()
            raise

    def _layer_done(self) -> None:
        self.layers_done += 1
        if self.layers_done == self.shape.layers:
            self._open_step().commit()
            self.step = None

    def abort(self) -> None:
        """Takes an unfinished step back."""
        if self.step is not None:
            self.step.abort()
            self.step = None

    def begin_forward(self) -> None:
        """A forward that stopped between layers leaves its step open: the next one takes it back and says so."""
        if self.step is not None:
            warnings.warn(
                f"the forward before this one ended after {self.layers_done} of {self.shape.layers} layers: none of "
                "its tokens are in the cache",
                RuntimeWarning,
                stacklevel=2,
            )
            self.abort()

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Dense K and V [rows, heads, tokens, d] of rows of one length."""
        cache = self._open_cache()
        length = cache.length(self.rows[0])
        config = cache.config
        k, v = (
            torch.empty(len(self.rows), config["kv_heads"], length, config[d], dtype=self.dtype) for d in ("dk", "dv")
        )
        for row, sequence in enumerate(self.rows):
            cache.read(sequence, layer, k[row], v[row])
        return k, v

    def _open_cache(self) -> lowlevel.Cache:
        if self.cache is None:
            raise FailedPrecondition("the cache is empty: run the model once, it learns batch, heads and dtype from it")
        return self.cache

    def _open_step(self) -> lowlevel.Step:
        if self.step is None:
            raise FailedPrecondition("no step is open: the first layer's attention opens it, layers run in order")
        return self.step


def _default_page_tokens(text: str) -> int:
    legal = lowlevel.format_page_tokens(text)
    return next((tokens for tokens in legal if tokens >= 64), legal[-1])
