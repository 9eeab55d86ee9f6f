# SPDX-License-Identifier: Apache-2.0
"""A model of a whole cache (spec sections 5 to 7): sequences, steps, windows, bytes. Dense inside, no pages moved.

Values come and go as f32 arrays that hold what the cache's dtype can hold; attention answers in f64. A step's tensors
are lists with one entry per sequence, [heads, tokens, channels]. What the C API adds (workspaces, padding, chunks of
32) is not modelled: none of it may change a result.
"""

from dataclasses import dataclass

import numpy as np

from . import attention
from .page import Page
from .quantize import F32, Quantized, bad_values, dequantize, quantize, round_to
from .text import as_cache, cache_bytes, check_shape, default_page_tokens, frontier, page_bytes, tail_capacity


class CacheError(Exception):
    """A step or a sequence that the cache must refuse."""


class CacheFull(CacheError):
    """step_c1: found by plan, or by add for tail slots."""


class BadValue(CacheError):
    """step_c2."""


@dataclass
class _Rows:
    """K or V of one sequence and layer: what is quantized, then the window as it came."""

    quantized: Quantized
    window: np.ndarray

    @staticmethod
    def empty(heads, head_dim):
        shape = (heads, 0, head_dim)
        none = Quantized(np.zeros(shape, np.uint8), np.zeros(shape, np.float16), np.zeros(shape, np.float16))
        return _Rows(none, np.zeros(shape, F32))

    @property
    def frontier(self):
        return self.quantized.q.shape[1]

    def extended(self, new, to, side):
        """The same rows with new tokens and the frontier moved to `to`. Already quantized values stay (commit_c5)."""
        window = np.concatenate([self.window, new], axis=1)
        leaving = to - self.frontier
        if leaving == 0:
            return _Rows(self.quantized, window)
        moved = Quantized.concatenate([self.quantized, quantize(window[:, :leaving], side)])
        return _Rows(moved, window[:, leaving:])

    def dense(self):
        return np.concatenate([dequantize(self.quantized), self.window], axis=1)


class CacheModel:
    """blocks, sequences: the pools' capacities; None: without limit."""

    def __init__(
        self, cache, layers, q_heads, kv_heads, dk, dv, dtype="f32", page_tokens=0, blocks=None, sequences=None
    ):
        self.cache = as_cache(cache)
        self.pair = self.cache.pair
        self.layers, self.q_heads, self.kv_heads = layers, q_heads, kv_heads
        self.head_dim = {"K": dk, "V": dv}
        self.dtype = dtype
        self.page_tokens = page_tokens or default_page_tokens(self.pair)
        check_shape(self.pair, dk, dv, self.page_tokens)
        self.blocks, self.capacity = blocks, sequences
        self.open_step = None
        self._states = {}  # sequence -> per layer {"K": _Rows, "V": _Rows}
        self._lengths = {}

    def add(self):
        if self.capacity is not None and len(self._states) == self.capacity:
            raise CacheFull(f"All {self.capacity} tail slots are in use; remove a sequence.")
        sequence = next(i for i in range(len(self._states) + 1) if i not in self._states)
        rows = lambda which: _Rows.empty(self.kv_heads, self.head_dim[which])
        self._states[sequence] = [{which: rows(which) for which in "KV"} for _ in range(self.layers)]
        self._lengths[sequence] = 0
        return sequence

    def remove(self, sequence):
        if self.open_step is not None:
            raise CacheError("A step is open; commit or abort it before removing a sequence.")
        del self._states[sequence], self._lengths[sequence]

    def length(self, sequence):
        return self._lengths[sequence]

    def blocks_of(self, tokens):
        """step_c3."""
        return -(-max(frontier(self.cache, tokens)) // self.page_tokens)

    def plan(self, sequences, new_tokens):
        if self.open_step is not None:
            raise CacheError("A step is open; commit or abort it before planning another.")
        after = dict(self._lengths)
        for sequence, count in zip(sequences, new_tokens, strict=True):
            after[sequence] += count
        need = sum(map(self.blocks_of, after.values()))
        if self.blocks is not None and need > self.blocks:
            raise CacheFull(f"The step needs {need} blocks of {self.blocks}; remove sequences or grow the pool.")
        self.open_step = Step(self, list(sequences), list(new_tokens))
        return self.open_step

    def step(self, sequences, tensors, scale):
        """One whole step: tensors[layer] = (q, k, v). Returns per layer and sequence (o, lse)."""
        step = self.plan(sequences, [k.shape[1] for k in tensors[0][1]])
        try:
            results = [step.forward(layer, *tensors[layer], scale) for layer in range(self.layers)]
        except CacheError:
            step.abort()
            raise
        step.commit()
        return results

    def read(self, sequence, layer):
        """K and V of all tokens as dense rows in the cache's dtype, [Hkv, tokens, D] each."""
        rows = self._states[sequence][layer]
        return tuple(round_to(rows[which].dense(), self.dtype) for which in "KV")

    def window_tokens(self, sequence, layer=0):
        """Tokens of K and of V that are kept as they came."""
        return tuple(self._states[sequence][layer][which].window.shape[1] for which in "KV")

    def quantized(self, sequence, layer, which):
        return self._states[sequence][layer][which].quantized

    def page(self, sequence, layer, head, index, profile="vnni"):
        """Page number `index` of a sequence; what is not quantized yet is zero."""
        page = Page(self.pair, self.page_tokens, self.head_dim["K"], self.head_dim["V"], profile)
        for which in "KV":
            quantized = self.quantized(sequence, layer, which)
            part = quantized.tokens(index * self.page_tokens, (index + 1) * self.page_tokens)
            if part.q.shape[1]:
                page.write_quantized(which, 0, Quantized(part.q[head], part.s[head], part.m[head]))
        return page

    def report(self):
        """tail_c2, *used*; the same figures as kvq_cache_report."""
        dk, dv = self.head_dim["K"], self.head_dim["V"]
        tokens = sum(self._lengths.values())
        blocks = sum(map(self.blocks_of, self._lengths.values()))
        total = cache_bytes(
            self.cache, self.layers, self.kv_heads, dk, dv, self.dtype, self.page_tokens, blocks, len(self._states)
        )
        pages = blocks * self.layers * self.kv_heads * page_bytes(self.pair, self.page_tokens, dk, dv)
        elements = tokens * self.layers * self.kv_heads * (dk + dv)
        return {
            "tokens": tokens,
            "sequences": len(self._states),
            "blocks_used": blocks,
            "page_bytes_used": pages,
            "tail_bytes_used": total - pages,
            "bytes_used": total,
            "bits_per_element": 8 * total / elements if elements else 0.0,
            "tail_capacity": tail_capacity(self.cache),
        }


class Step:
    """step_c1. Nothing of the cache changes before commit."""

    def __init__(self, model, sequences, new_tokens):
        self.model, self.sequences, self.new_tokens = model, sequences, new_tokens
        self._new = {}  # layer -> per sequence {"K": rows, "V": rows}

    def append(self, layer, k, v):
        model = self.model
        if layer in self._new:
            raise CacheError(f"Layer {layer} was appended in this step; append each layer once.")
        added = []
        for sequence, count, k_rows, v_rows in zip(self.sequences, self.new_tokens, k, v, strict=True):
            rows = {}
            for which, x in (("K", k_rows), ("V", v_rows)):
                if x.shape != (model.kv_heads, count, model.head_dim[which]):
                    raise CacheError(
                        f"{which} of sequence {sequence} has shape {x.shape}; give {count} tokens as planned."
                    )
                rows[which] = round_to(x, model.dtype)
            self._refuse_bad(sequence, rows)
            added.append(rows)
        self._new[layer] = added

    def _refuse_bad(self, sequence, rows):
        """step_c2: the first bad value in the order token, K before V, head, channel; the token by its position."""
        found = []
        for order, which in enumerate("KV"):
            by_token = np.argwhere(np.moveaxis(bad_values(rows[which]), 1, 0))
            if len(by_token):
                token, head, channel = map(int, by_token[0])
                found.append((token, order, which, head, channel))
        if found:
            token, _, which, head, channel = min(found)
            position = self.model.length(sequence) + token
            raise BadValue(
                f"{which} holds {rows[which][head, token, channel]} at sequence {sequence}, token {position}, "
                f"head {head}, channel {channel}; allowed are finite values of magnitude at most 65504."
            )

    def _after(self, layer, index, which):
        model, sequence = self.model, self.sequences[index]
        total = model.length(sequence) + self.new_tokens[index]
        to = frontier(model.cache, total)["KV".index(which)]
        rows = model._states[sequence][layer][which]
        return rows.extended(self._new[layer][index][which], to, model.pair.side(which))

    def attend(self, layer, q, scale):
        """commit_c4: per sequence (o [Hq, T, Dv], lse [Hq, T]), each query in the state of its position."""
        if layer not in self._new:
            raise CacheError(f"Layer {layer} was not appended in this step; append before attending.")
        results = []
        for index, sequence in enumerate(self.sequences):
            start, count = self.model.length(sequence), self.new_tokens[index]
            if count == 0:
                shape = (self.model.q_heads, 0)
                results.append((np.zeros((*shape, self.model.head_dim["V"])), np.zeros(shape)))
                continue
            came, packed = {}, {}
            for which in "KV":
                rows = self.model._states[sequence][layer][which]
                # Below the frontier of `start` no query of this step sees a value as it came.
                gone = np.full(rows.quantized.q.shape, np.nan, F32)
                came[which] = np.concatenate([gone, rows.window, self._new[layer][index][which]], axis=1)
                packed[which] = dequantize(self._after(layer, index, which).quantized)
            positions = range(start, start + count)
            frontiers = [frontier(self.model.cache, t) for t in positions]
            results.append(
                attention.attend(
                    q[index], came["K"], came["V"], packed["K"], packed["V"], positions, frontiers, scale
                )
            )
        return results

    def forward(self, layer, q, k, v, scale):
        self.append(layer, k, v)
        return self.attend(layer, q, scale)

    def commit(self):
        model = self.model
        missing = [layer for layer in range(model.layers) if layer not in self._new]
        if missing:
            raise CacheError(f"Layers {missing} were not appended in this step; append every layer, then commit.")
        for index, sequence in enumerate(self.sequences):
            for layer in range(model.layers):
                model._states[sequence][layer] = {which: self._after(layer, index, which) for which in "KV"}
            model._lengths[sequence] += self.new_tokens[index]
        model.open_step = None

    def abort(self):
        self.model.open_step = None
