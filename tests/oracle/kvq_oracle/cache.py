# SPDX-License-Identifier: Apache-2.0
"""A model of a whole cache (spec sections 5 to 9): sequences, steps, blocks, bytes. Dense inside, no pages moved.

Values come and go as f32 arrays that hold what the cache's dtype can hold; attention answers in f64. A step's tensors
are lists with one entry per sequence, [heads, tokens, channels]. What the C API adds (workspaces, padding, chunks of
32) is not modelled: none of it may change a result.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from . import attention
from .page import Page
from .quantize import Quantized, bad_values, dequantize, round_to
from .sequence import CutRefused, Rules, Sequence
from .text import body_tokens, cache_at, cache_bytes, check_shape, default_page_tokens, page_bytes, tail_capacity


class CacheError(Exception):
    """A step, a sequence or a cut that the cache must refuse."""


class CacheFull(CacheError):
    """step_c1: found by plan, or by add, fork and restore."""


class BadValue(CacheError):
    """step_c2."""


@dataclass(frozen=True)
class Snapshot:
    """snapshot_c1: a sequence's state, and for which cache it is."""

    of: tuple
    state: Sequence


class CacheModel:
    """blocks, sequences: the pools' capacities; None: without limit. attention_window, score_cap: 0 is none.

    sinks: None or one logit per query head, [layers, q_heads].
    """

    def __init__(
        self, cache, layers, q_heads, kv_heads, dk, dv, dtype="f32", page_tokens=0, blocks=None, sequences=None,
        attention_window=0, score_cap=0.0, sinks=None,
    ):  # fmt: skip
        self.cache = cache_at(cache, dk, dv)
        self.pair = self.cache.pair
        self.layers, self.q_heads, self.kv_heads = layers, q_heads, kv_heads
        self.head_dim = {"K": dk, "V": dv}
        self.dtype = dtype
        self.page_tokens = page_tokens or default_page_tokens(self.pair)
        check_shape(self.pair, dk, dv, self.page_tokens)
        self.blocks, self.capacity = blocks, sequences
        self.score_cap, self.sinks = score_cap, sinks
        self.rules = Rules(self.cache, dtype, self.page_tokens, attention_window)
        self.open_step = None
        self._states = {}  # sequence -> Sequence
        self._tables = {}  # sequence -> {number of a page: block}
        self._blocks_made = 0

    # -- sequences ---------------------------------------------------------------------------------------------------

    @property
    def sequences(self):
        return sorted(self._states)

    def add(self):
        return self._enter(Sequence.empty(self.rules, self.layers, self.kv_heads, self.head_dim), {})

    def _enter(self, state, table):
        if self.capacity is not None and len(self._states) == self.capacity:
            raise CacheFull(f"All {self.capacity} tail slots are in use; remove a sequence.")
        sequence = next(i for i in range(len(self._states) + 1) if i not in self._states)
        self._states[sequence], self._tables[sequence] = state, table
        return sequence

    def _refuse_open(self, act):
        if self.open_step is not None:
            raise CacheError(f"A step is open; commit or abort it before {act}.")

    def remove(self, sequence):
        self._refuse_open("removing a sequence")
        del self._states[sequence], self._tables[sequence]

    def fork(self, sequence):
        """fork_c1."""
        self._refuse_open("forking a sequence")
        return self._enter(self._states[sequence], dict(self._tables[sequence]))

    def crop(self, sequence, tokens):
        """Section 8: back to `tokens` tokens, kept ones included. Returns how many were thawed."""
        self._refuse_open("taking tokens back")
        try:
            state, thawed = self._states[sequence].cut(tokens)
        except CutRefused as reason:
            raise CacheError(f"Sequence {sequence} cannot be taken back: {reason}") from reason
        self._states[sequence] = state
        self._tables[sequence] = {page: self._tables[sequence][page] for page in state.pages}
        return thawed

    def _identity(self):
        shape = (self.layers, self.q_heads, self.kv_heads, self.head_dim["K"], self.head_dim["V"])
        return (*shape, self.rules)

    def clone_state(self, sequence):
        """What a snapshot holds."""
        self._refuse_open("taking a snapshot")
        return Snapshot(self._identity(), self._states[sequence])

    def restore(self, snapshot):
        self._refuse_open("restoring a snapshot")
        if snapshot.of != self._identity():
            raise CacheError(f"The snapshot is of {snapshot.of}; this cache is {self._identity()}.")
        pages = snapshot.state.pages
        self._refuse_full(self.blocks_used() + len(pages), "The snapshot")
        return self._enter(snapshot.state, {page: self._new_block() for page in pages})

    def length(self, sequence):
        return self._states[sequence].length

    def state(self, sequence):
        state = self._states[sequence]
        names = ("length", "k_frontier", "v_frontier", "first_block", "blocks", "least_tokens")
        return dict(zip(names, (state.length, *state.frontiers, state.first, len(state.pages), state.least_tokens)))

    def fingerprint(self, sequence):
        """Equal for two sequences in the same state, bit for bit."""
        return self._states[sequence].fingerprint()

    # -- blocks ------------------------------------------------------------------------------------------------------

    def table(self, sequence):
        """The blocks of the pages that a sequence owns, as numbers that only say which are shared."""
        return [self._tables[sequence][page] for page in self._states[sequence].pages]

    def blocks_used(self):
        """tail_c2: a shared block counts once."""
        return len({block for table in self._tables.values() for block in table.values()})

    def _new_block(self):
        self._blocks_made += 1
        return self._blocks_made

    def _refuse_full(self, need, what):
        if self.blocks is not None and need > self.blocks:
            raise CacheFull(f"{what} needs {need} blocks of {self.blocks}; remove sequences or grow the pool.")

    def _after_lengths(self, sequences, new_tokens):
        """Per sequence (frontiers, first page) after so many more tokens."""
        for sequence, count in zip(sequences, new_tokens, strict=True):
            state = self._states[sequence]
            length = state.length + count
            body, frontiers = body_tokens(self.cache, length), state.frontiers_at(length)
            yield sequence, state, frontiers, max(state.first, self.rules.first_page(body, frontiers))

    def _written(self, state, frontiers):
        """The pages that moving the frontiers writes to."""
        pages = set()
        for old, new in zip(state.frontiers, frontiers):
            if new > old:
                pages.update(range(old // self.page_tokens, -(-new // self.page_tokens)))
        return pages

    def tables_after(self, sequences, new_tokens):
        """step_c3, fork_c1: the tables when the step has committed: every page that is written is its writer's own."""
        tables = {sequence: dict(table) for sequence, table in self._tables.items()}
        owners = Counter(block for table in tables.values() for block in table.values())
        for sequence, state, frontiers, first in self._after_lengths(sequences, new_tokens):
            old, written = tables[sequence], self._written(state, frontiers)
            new = {}
            for page in range(first, -(-max(frontiers) // self.page_tokens)):
                block = old.get(page)
                if block is None or (page in written and owners[block] > 1):
                    block = self._new_block()
                new[page] = block
            owners.subtract(old.values())
            owners.update(new.values())
            tables[sequence] = new
        return tables

    def step_blocks(self, sequences, new_tokens):
        """(least, most) blocks in use while such a step is open.

        Blocks of before stay, for an abort, beside those of after: that is the least. At most, no page is dropped on
        the way and each of several writers copies a page that they share.
        """
        before = {block for table in self._tables.values() for block in table.values()}
        after = {block for table in self.tables_after(sequences, new_tokens).values() for block in table.values()}
        owners = Counter(block for table in self._tables.values() for block in table.values())
        most = len(before)
        for sequence, state, frontiers, _ in self._after_lengths(sequences, new_tokens):
            table, written = self._tables[sequence], self._written(state, frontiers)
            for page in range(state.first, -(-max(frontiers) // self.page_tokens)):
                most += page not in table or (page in written and owners[table[page]] > 1)
        return len(before | after), most

    # -- steps -------------------------------------------------------------------------------------------------------

    def plan(self, sequences, new_tokens, raw=False):
        """prefill_c1, or prefill_c2 with raw."""
        self._refuse_open("planning another")
        self._refuse_full(self.step_blocks(sequences, new_tokens)[0], "The step")
        self.open_step = Step(self, list(sequences), list(new_tokens), raw)
        return self.open_step

    def step(self, sequences, tensors, scale, raw=False):
        """One whole step: tensors[layer] = (q, k, v). Returns per layer and sequence (o, lse)."""
        step = self.plan(sequences, [k.shape[1] for k in tensors[0][1]], raw)
        try:
            results = [step.forward(layer, *tensors[layer], scale) for layer in range(self.layers)]
        except CacheError:
            step.abort()
            raise
        step.commit()
        return results

    # -- looking -----------------------------------------------------------------------------------------------------

    def read(self, sequence, layer, first=0):
        """K and V of the tokens from `first` on as dense rows in the cache's dtype, [Hkv, tokens, D] each."""
        rows = self._states[sequence].layers[layer]
        dense = [rows[which].dense(self.cache.keep)[:, first:] for which in "KV"]
        if any(np.isnan(x).any() for x in dense):
            raise CacheError(f"Sequence {sequence} has dropped pages after token {first}; read later tokens only.")
        return tuple(round_to(x, self.dtype) for x in dense)

    def first_left(self, sequence):
        """The first token from which on all can be read."""
        first = self._states[sequence].first
        return self.cache.keep + first * self.page_tokens if first else 0

    def window_tokens(self, sequence, layer=0):
        """Body tokens of K and of V that are not quantized."""
        state = self._states[sequence]
        return tuple(state.body - state.layers[layer][which].frontier for which in "KV")

    def quantized(self, sequence, layer, which):
        return self._states[sequence].layers[layer][which].quantized

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
        tokens = sum(state.length for state in self._states.values())
        blocks = self.blocks_used()
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

    def __init__(self, model, sequences, new_tokens, raw):
        self.model, self.sequences, self.new_tokens, self.raw = model, sequences, new_tokens, raw
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

    def attend(self, layer, q, scale):
        """attention_c1, prefill_c1 or c2: per sequence (o [Hq, T, Dv], lse [Hq, T])."""
        if layer not in self._new:
            raise CacheError(f"Layer {layer} was not appended in this step; append before attending.")
        model, results = self.model, []
        sinks = None if model.sinks is None else model.sinks[layer]
        for index, sequence in enumerate(self.sequences):
            state, count = model._states[sequence], self.new_tokens[index]
            if count == 0:
                shape = (model.q_heads, 0)
                results.append((np.zeros((*shape, model.head_dim["V"])), np.zeros(shape)))
                continue
            positions = range(state.length, state.length + count)
            frontiers = [state.frontiers if self.raw else state.frontiers_at(t) for t in positions]
            rows = {
                which: state.layers[layer][which]
                .appended(self._new[layer][index][which])
                .committed(frontiers[-1]["KV".index(which)], model.pair.side(which), model.cache.keep)
                for which in "KV"
            }
            results.append(
                attention.attend(
                    q[index], rows["K"].came, rows["V"].came, dequantize(rows["K"].quantized),
                    dequantize(rows["V"].quantized), positions, frontiers, scale, keep=model.cache.keep,
                    window=model.rules.attention_window, score_cap=model.score_cap, sinks=sinks,
                )
            )  # fmt: skip
        return results

    def forward(self, layer, q, k, v, scale):
        self.append(layer, k, v)
        return self.attend(layer, q, scale)

    def commit(self):
        model = self.model
        missing = [layer for layer in range(model.layers) if layer not in self._new]
        if missing:
            raise CacheError(f"Layers {missing} were not appended in this step; append every layer, then commit.")
        tables = model.tables_after(self.sequences, self.new_tokens)
        for index, sequence in enumerate(self.sequences):
            new = [self._new[layer][index] for layer in range(model.layers)]
            model._states[sequence] = model._states[sequence].grown(new)
        model._tables = tables
        model.open_step = None

    def abort(self):
        self.model.open_step = None
