# SPDX-License-Identifier: Apache-2.0
"""One sequence (spec sections 5, 6 and 8): what of it is quantized, what the tail holds as it came, what cutting does.

A state is never changed: growing and cutting return new ones, so a fork or a snapshot is the same object again. What
the product no longer has is NaN here, so that an answer that needs it is NaN too.
"""

from dataclasses import dataclass, replace

import numpy as np

from .quantize import F32, Quantized, dequantize, quantize, round_to
from .text import body_frontier, body_tokens, cut_unit, tail_capacity


class CutRefused(ValueError):
    """crop_c4: the number of tokens is not one that the sequence can be taken back to."""


@dataclass(frozen=True)
class Rules:
    """What a sequence obeys: the cache's text and type, tokens of a page, attention window (0: none)."""

    cache: object
    dtype: str
    page_tokens: int
    attention_window: int

    def first_page(self, body, frontiers):
        """window_c2: the first page that a step to so many body tokens and these frontiers does not drop."""
        if not self.attention_window:
            return 0
        # Page i is dropped when its last token, (i + 1) * P - 1, is at most body - 32 - Wa and below both frontiers.
        return min(max(0, body - 31 - self.attention_window), *frontiers) // self.page_tokens


@dataclass(frozen=True)
class Rows:
    """K or V of one layer."""

    came: np.ndarray  # [H, tokens, D] by position; NaN where the tail has no row of the token
    quantized: Quantized  # [H, frontier, D] by body index; NaN in pages that were dropped

    @staticmethod
    def empty(heads, head_dim):
        shape = (heads, 0, head_dim)
        none = Quantized(np.zeros(shape, np.uint8), np.zeros(shape, np.float16), np.zeros(shape, np.float16))
        return Rows(np.zeros(shape, F32), none)

    @property
    def frontier(self):
        return self.quantized.q.shape[1]

    def appended(self, new):
        return replace(self, came=np.concatenate([self.came, new], axis=1))

    def committed(self, to, side, keep):
        """The frontier moved up to `to`. What is quantized stays (commit_c5)."""
        if to == self.frontier:
            return self
        leaving = self.came[:, keep + self.frontier : keep + to]
        return replace(self, quantized=Quantized.concatenate([self.quantized, quantize(leaving, side)]))

    def forgotten(self, ring, page_token, keep):
        """NaN for body tokens before `ring` in the tail, and before `page_token` in the pages."""
        came = self.came.copy()
        came[:, keep : keep + ring] = np.nan
        gone = min(page_token, self.frontier)
        if not gone:
            return replace(self, came=came)
        old = self.quantized.tokens(0, gone)
        nothing = np.full(old.s.shape, np.nan, np.float16)
        rest = self.quantized.tokens(gone, self.frontier)
        return Rows(came, Quantized.concatenate([Quantized(old.q, nothing, nothing), rest]))

    def cut(self, tokens, frontier, thaw_end, keep, dtype):
        """crop_c2: back to `tokens` tokens; body tokens from `frontier` up to `thaw_end` go to the ring."""
        came = self.came[:, :tokens].copy()
        if thaw_end > frontier:
            thawed = dequantize(self.quantized.tokens(frontier, thaw_end))
            came[:, keep + frontier : keep + thaw_end] = round_to(thawed, dtype)
        return Rows(came, self.quantized.tokens(0, frontier))

    def dense(self, keep):
        """All tokens as they are known now, f32."""
        kept, body = self.came[:, :keep], self.came[:, keep + self.frontier :]
        return np.concatenate([kept, dequantize(self.quantized), body], axis=1)


@dataclass(frozen=True)
class Sequence:
    rules: Rules
    length: int
    frontiers: tuple  # (FK, FV), body tokens
    ring: tuple  # (rK, rV), body tokens
    first: int  # first page that is left
    layers: tuple  # per layer {"K": Rows, "V": Rows}

    @staticmethod
    def empty(rules, layers, kv_heads, head_dims):
        rows = {which: Rows.empty(kv_heads, head_dims[which]) for which in "KV"}
        return Sequence(rules, 0, (0, 0), (0, 0), 0, (rows,) * layers)

    @property
    def body(self):
        return body_tokens(self.rules.cache, self.length)

    @property
    def pages(self):
        """step_c3: the numbers of the pages that it owns."""
        return range(self.first, -(-max(self.frontiers) // self.rules.page_tokens))

    def frontiers_at(self, position):
        """attention_c1: the frontiers of the query at `position`."""
        rule = body_frontier(self.rules.cache, body_tokens(self.rules.cache, position))
        return tuple(max(own, f) for own, f in zip(self.frontiers, rule))

    def grown(self, layers):
        """commit_c4, section 8: the state after a step; layers: per layer {"K": rows, "V": rows} of the new tokens."""
        rules, keep, pair = self.rules, self.rules.cache.keep, self.rules.cache.pair
        count = layers[0]["K"].shape[1]
        length = self.length + count
        body = body_tokens(rules.cache, length)
        frontiers = self.frontiers_at(length)
        ring = tuple(max(r, body - tail_capacity(rules.cache)) for r in self.ring)
        first = max(self.first, rules.first_page(body, frontiers))
        after = []
        for rows, new in zip(self.layers, layers, strict=True):
            sides = {}
            for which, to, r in zip("KV", frontiers, ring):
                moved = rows[which].appended(new[which]).committed(to, pair.side(which), keep)
                sides[which] = moved.forgotten(r, first * rules.page_tokens, keep)
            after.append(sides)
        return Sequence(rules, length, frontiers, ring, first, tuple(after))

    def _cut_frontiers(self, body):
        """crop_c1, K first."""
        cache, dropped = self.rules.cache, self.first * self.rules.page_tokens
        found = []
        for which, own, r, f in zip("KV", self.frontiers, self.ring, body_frontier(cache, body)):
            u = cut_unit(cache, which)
            x = min(own, max(f, dropped, -(-r // u) * u))
            found.append(x if x <= body else body // u * u)
        return found[0], min(found[1], found[0])

    @property
    def least_tokens(self):
        """crop_c4: the shortest length with body tokens that it can be taken back to."""
        if not self.first:
            return 0
        return self.rules.cache.keep + self.first * self.rules.page_tokens + self.rules.attention_window - 1

    def _refuse_dropped(self, body):
        """crop_c4: the pages of what the next query sees must be left; with no body token there is none."""
        needed = max(0, body - self.rules.attention_window + 1)
        if body and needed < self.first * self.rules.page_tokens:
            raise CutRefused(
                f"Page {needed // self.rules.page_tokens} was dropped behind the attention window; page {self.first} "
                f"is the first that is left, and {self.length - self.least_tokens} tokens can be taken back."
            )

    def cut(self, tokens):
        """Section 8: (the state with `tokens` tokens, how many were thawed)."""
        if not 0 <= tokens <= self.length:
            raise CutRefused(f"{tokens} tokens are asked for; the sequence has {self.length}.")
        if tokens == self.length:
            return self, 0
        rules, keep = self.rules, self.rules.cache.keep
        body = body_tokens(rules.cache, tokens)
        self._refuse_dropped(body)
        frontiers = self._cut_frontiers(body)
        thawed = [(x, max(x, min(r, body))) for x, r in zip(frontiers, self.ring)]
        after = tuple(
            {
                which: rows[which].cut(tokens, x, end, keep, rules.dtype)
                for which, (x, end) in zip("KV", thawed)
            }
            for rows in self.layers
        )  # fmt: skip
        ring = tuple(min(r, x) for r, x in zip(self.ring, frontiers))
        first = self.first if body else 0
        return Sequence(rules, tokens, frontiers, ring, first, after), max(end - x for x, end in thawed)

    def fingerprint(self):
        """Equal for two sequences in the same state, bit for bit."""
        parts = [part for rows in self.layers for which in "KV" for part in self._arrays(rows[which])]
        return self.length, self.frontiers, self.ring, self.first, tuple(part.tobytes() for part in parts)

    @staticmethod
    def _arrays(rows):
        return rows.came, rows.quantized.q, rows.quantized.s, rows.quantized.m
