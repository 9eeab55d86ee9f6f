# SPDX-License-Identifier: Apache-2.0
"""The rows of a Hugging Face batch in paged caches: one sequence a row in every group of layers that are alike, and the
step that spans all layers of one forward.

It knows tensors, but neither transformers nor masks.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from kvq import lowlevel
from kvq.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unsupported
from kvq.hf.maker import PoolMaker
from kvq.hf.pool import DTYPES, Pool


@dataclass
class _Holding:
    """What a group owns in its pool; given back when the group goes."""

    pool: Pool
    rows: list[int] = field(default_factory=list)
    step: lowlevel.Step | None = None

    def abort(self) -> None:
        if self.step is not None:
            self.step.abort()
            self.step = None

    def release(self) -> None:
        with self.pool.lock:
            self.abort()
            while self.rows:
                self.pool.cache.remove(self.rows.pop())


class LayerGroup:
    """Rows of the layers `layers` (numbers in the model), which are all of one kind and share a pool."""

    def __init__(self, layers: Sequence[int], pool: Pool) -> None:
        self.layers = layers
        self.local = {layer: index for index, layer in enumerate(layers)}
        self.pool = pool
        self.holding = _Holding(pool)
        weakref.finalize(self, _Holding.release, self.holding)

    @property
    def rows(self) -> list[int]:
        return self.holding.rows

    @property
    def cache(self) -> lowlevel.Cache:
        return self.pool.cache

    def add_rows(self, count: int) -> None:
        with self.pool.lock:
            self.pool.need_slots(count)
            for _ in range(count):
                self.rows.append(self.cache.add())

    def fork(self) -> LayerGroup:
        other = LayerGroup(self.layers, self.pool)
        self.pool.need_slots(len(self.rows))
        for row in self.rows:
            other.rows.append(self.cache.fork(row))
        return other

    def select(self, indices: list[int]) -> None:
        """Row i becomes a copy of what row indices[i] was. Rows that nobody needs go first: their slots are free then."""
        old, used = list(self.rows), set(indices)
        self.pool.need_slots(len(indices) - len(old))
        for index, row in enumerate(old):
            if index not in used:
                self.cache.remove(row)
                self.rows.remove(row)
        chosen: list[int] = []
        for index in indices:
            if old[index] in chosen:
                self.rows.append(self.cache.fork(old[index]))
                chosen.append(self.rows[-1])
            else:
                chosen.append(old[index])
        self.rows[:] = chosen

    def restore(self, data: bytes) -> None:
        """One more row, from a snapshot."""
        with self.pool.lock:
            self.pool.need_slots(1)
            try:
                row = self.cache.restore(data)
            except ResourceExhausted:
                self.cache.grow(2 * self.cache.blocks, self.cache.sequences)
                row = self.cache.restore(data)
            self.rows.append(row)

    def crop(self, lengths: list[int]) -> int:
        return sum(self.cache.crop(row, length) for row, length in zip(self.rows, lengths, strict=True))

    def plan(self, new_tokens: list[int], past_only: bool) -> None:
        try:
            self.holding.step = self.cache.plan(self.rows, new_tokens, past_only=past_only)
        except ResourceExhausted:
            self.pool.need_blocks(self.rows, new_tokens)
            self.holding.step = self.cache.plan(self.rows, new_tokens, past_only=past_only)


class PackedBatch:
    """The rows of a batch in all layers. `partition` says which layers are alike; the pool of each part is made when
    its first layer brings K and V. `lengths` are the tokens stored for each row."""

    def __init__(self, partition: Sequence[Sequence[int]], maker: PoolMaker, dtype: torch.dtype, rows: int) -> None:
        self.partition = partition
        self.dtype = dtype
        self.groups: list[LayerGroup] = []
        self._maker = maker
        self._part_of = {layer: part for part in partition for layer in part}
        self._group_of: dict[int, LayerGroup] = {}
        self.layers = len(self._part_of)
        self.lengths = [0] * rows
        self.thawed = 0  # tokens that cropping has dequantized back into the window so far
        self._new: list[int] | None = None  # tokens that each row gets in the step that is open
        self._past_only = False
        self._done = 0
        self._thread: int | None = None

    def group(self, layer: int) -> LayerGroup:
        """The group of a layer that has been opened."""
        if layer not in self._group_of:
            raise FailedPrecondition("the cache has no memory before the first forward: run the model first")
        return self._group_of[layer]

    def open(self, layer: int, q_heads: int, k: torch.Tensor, v: torch.Tensor) -> LayerGroup:
        """The group of a layer, made for these tensors if it is the first of its part."""
        if layer not in self._group_of:
            if not self.is_open and any(self.lengths):
                raise FailedPrecondition(f"layer {layer} took no part in earlier forwards: reset() the cache")
            self.open_empty(layer, q_heads, k, v).add_rows(len(self.lengths))
        self._check_sizes(layer, k, v)
        return self._group_of[layer]

    def open_empty(self, layer: int, q_heads: int, k: torch.Tensor, v: torch.Tensor) -> LayerGroup:
        """The group of a layer that has none yet, without rows."""
        part = self._part_of[layer]
        self._insert(LayerGroup(part, self._maker.make(part, layer, q_heads, k, v)))
        return self._group_of[layer]

    def _insert(self, group: LayerGroup) -> None:
        self.groups.append(group)
        for layer in group.layers:
            self._group_of[layer] = group

    def check(self, k: torch.Tensor) -> None:
        """The tensors fit the batch."""
        if k.dtype != self.dtype:
            raise InvalidArgument(f"K is {k.dtype} where the cache holds {self.dtype}: call reset() or make a new one")
        if k.shape[0] != len(self.lengths):
            raise InvalidArgument(
                f"the batch has {k.shape[0]} rows where the cache holds {len(self.lengths)}: call reset() or make "
                "another"
            )

    def _check_sizes(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        kind = self._group_of[layer].pool.kind
        sizes, held = (k.shape[1], k.shape[3], v.shape[3]), (kind.kv_heads, kind.dk, kind.dv)
        if sizes != held:
            raise InvalidArgument(
                f"layer {layer} has {sizes[0]} KV heads of sizes {sizes[1]} and {sizes[2]} where the cache holds "
                f"{held[0]} of {held[1]} and {held[2]}: make the cache from this model's config, or reset() it"
            )

    # -- steps -------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._new is not None

    def plan(self, new_tokens: list[int], past_only: bool = False) -> None:
        """Begins a step; row r appends the last new_tokens[r] tokens of its tensors in every layer."""
        self._new, self._past_only, self._done = list(new_tokens), past_only, 0
        self._thread = threading.get_ident()

    def forward(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> None:
        """Appends and attends in one layer; the last layer commits. An error takes the whole step back."""
        try:
            group = self.open(layer, q.shape[1], k, v)
            with group.pool.lock:
                self._step(group).forward(group.local[layer], q, k, v, scale, out, lse)
            self._layer_done()
        except BaseException:
            self.abort()
            raise

    def append_all(
        self, states: list[tuple[torch.Tensor, torch.Tensor]], q_heads: int, new_tokens: list[int]
    ) -> None:
        """Appends the last new_tokens[r] tokens of every row r in every layer, as one step of its own."""
        self.plan(new_tokens)
        try:
            for layer, (k, v) in enumerate(states):
                group = self.open(layer, q_heads, k, v)
                with group.pool.lock:
                    self._step(group).append(group.local[layer], k, v)
                self._layer_done()
        except BaseException:
            self.abort()
            raise

    def _step(self, group: LayerGroup) -> lowlevel.Step:
        if self._new is None:
            raise FailedPrecondition("no step is open: the first layer's attention opens it, layers run in order")
        if group.holding.step is None:
            group.plan(self._new, self._past_only)
        assert group.holding.step is not None
        return group.holding.step

    def _layer_done(self) -> None:
        self._done += 1
        if self._done < self.layers:
            return
        with self._locked():
            for group in self.groups:
                assert group.holding.step is not None
                group.holding.step.commit()
                group.holding.step = None
        assert self._new is not None
        self.lengths = [length + new for length, new in zip(self.lengths, self._new, strict=True)]
        self._new = None

    def abort(self) -> None:
        """Takes an unfinished step back."""
        for group in self.groups:
            with group.pool.lock:
                group.holding.abort()
        self._new = None

    def begin_forward(self) -> None:
        """A forward that stopped between layers leaves its step open: the next one takes it back and says so. One that
        still runs in another thread must not be disturbed."""
        if not self.is_open:
            return
        if self._thread != threading.get_ident() and _is_alive(self._thread):
            raise FailedPrecondition(
                "a forward of another thread uses this cache: let its generate() end first, or give each its own cache "
                "(cache.fork() shares what is stored)"
            )
        warnings.warn(
            f"the forward before this one ended after {self._done} of {self.layers} layers: none of its tokens are in "
            "the cache",
            RuntimeWarning,
            stacklevel=2,
        )
        self.abort()

    # -- rows --------------------------------------------------------------------------------------------------------

    def fork(self) -> PackedBatch:
        other = PackedBatch(self.partition, self._maker, self.dtype, len(self.lengths))
        with self._locked():
            self._check_closed("forked")
            for group in self.groups:
                other._insert(group.fork())
        other.lengths = list(self.lengths)
        return other

    def select(self, indices: list[int]) -> None:
        with self._locked():
            self._check_closed("reordered")
            for group in self.groups:
                group.select(indices)
        self.lengths = [self.lengths[index] for index in indices]

    def crop(self, lengths: list[int]) -> int:
        """Takes the rows back to these lengths; returns how many tokens were thawed, the most of any group."""
        with self._locked():
            self._check_closed("cropped")
            for group in self.groups:  # before anything changes
                for row, length in enumerate(lengths):
                    state = group.cache.state(group.rows[row])
                    # Without a body token nothing is needed that was dropped (format-spec crop_c4).
                    if group.pool.kind.keep < length < min(state["length"], state["least_tokens"]):
                        group.cache.crop(group.rows[row], length)  # raises the reason
            thawed = max((group.crop(lengths) for group in self.groups), default=0)
        self.lengths = list(lengths)
        self.thawed += thawed
        return thawed

    def read(self, layer: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Dense K and V [rows, heads, tokens, d] of rows of one length, tokens from `first` on."""
        group = self.group(layer)
        kind, tokens = group.pool.kind, self.lengths[0] - first
        k, v = (torch.empty(len(group.rows), kind.kv_heads, tokens, d, dtype=self.dtype) for d in (kind.dk, kind.dv))
        with group.pool.lock:
            for row, sequence in enumerate(group.rows):
                group.cache.read(sequence, group.local[layer], k[row], v[row], first)
        return k, v

    def _check_closed(self, what: str) -> None:
        if self.is_open:
            raise FailedPrecondition(f"the cache cannot be {what} while a forward runs: let it end first")

    def _locked(self) -> _Locks:
        return _Locks([group.pool.lock for group in self.groups])


class _Locks:
    """Holds the locks of all pools, always taken in the same order."""

    def __init__(self, locks: list[threading.RLock]) -> None:
        self.locks = sorted(locks, key=id)

    def __enter__(self) -> None:
        for lock in self.locks:
            lock.acquire()

    def __exit__(self, *_: object) -> None:
        for lock in reversed(self.locks):
            lock.release()


def _is_alive(thread: int | None) -> bool:
    return any(other.ident == thread for other in threading.enumerate())


def check_tensors(k: torch.Tensor, v: torch.Tensor) -> None:
    """Whether a cache can hold such tensors at all."""
    if k.dtype not in DTYPES or v.dtype != k.dtype:
        raise Unsupported(
            f"K is {k.dtype} and V is {v.dtype}: load the model with dtype torch.float32, torch.bfloat16 or "
            "torch.float16"
        )
    if k.device.type != "cpu":
        raise Unsupported(
            f"K is on device {k.device}: this version of kvq runs on the CPU, move the model with model.to(\"cpu\")"
        )
