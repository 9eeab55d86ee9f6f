# SPDX-License-Identifier: Apache-2.0
"""Filled caches and the steps over them, and the figures that every step of attention is reported with.

A cache has as many layers as exceed what is to be rotated over; a turn is one step through all of them, as a model does
it: plan, and for each layer the new K and V and the attention, and commit. What is reported is one layer.
"""
import functools

import common
from cpu.setting import D, KV_HEADS, Q_HEADS

WINDOW = 128          # tokens that these formats keep in full precision
CHUNK = 4096          # tokens that a cache is filled with at once: the same values again and again
SPARE_STEPS = 256     # that the turns may append: the part `torch` has 3 for each round, and there are MOST_ROUNDS


@functools.lru_cache(maxsize=4)
def random_kv(kv_heads, d, dtype, tokens=CHUNK):
    """K and V [1, kv_heads, tokens, d] of normal values."""
    import torch

    generator = torch.Generator().manual_seed(d)
    return tuple(torch.randn(1, kv_heads, tokens, d, generator=generator).to(getattr(torch, dtype)) for _ in "kv")


def head_format(text, d):
    """A format with its groups along a head of 128 channels turned into groups along one of d channels."""
    return text.replace("t128", f"t{d}")


class Steps:
    """Sequences of `lengths` tokens in a cache, and a turn of one step with `new` tokens each."""

    def __init__(self, context, text, lengths, *, rotate, new=1, q_heads=Q_HEADS, kv_heads=KV_HEADS, d=D,
                 dtype="float32", window=0, keep=True, **options):
        import torch
        from kvq import lowlevel

        self.text, self.lengths, self.new, self.keep = text, list(lengths), new, keep
        self.kv_heads, self.d, self.q_heads, self.window = kv_heads, d, q_heads, window
        self.element = torch.empty(0, dtype=getattr(torch, dtype)).element_size()
        self.page_bytes = lowlevel.format_page_bytes(text, d, d)
        self.page = next(tokens for tokens in lowlevel.format_page_tokens(text)
                         if lowlevel.format_page_bytes(text, d, d, tokens) == self.page_bytes)
        self.layers = common.copies_for(rotate, self.bytes)
        self.cache = lowlevel.Cache(context, text, layers=self.layers, q_heads=q_heads, kv_heads=kv_heads, dk=d, dv=d,
                                    dtype=dtype, blocks=self.blocks(), sequences=len(self.lengths),
                                    attention_window=window, **options)
        self.sequences = [self.cache.add() for _ in self.lengths]
        k, v = random_kv(kv_heads, d, dtype)
        for sequence, tokens in zip(self.sequences, self.lengths):
            self.fill(sequence, tokens, k, v)
        count = len(self.lengths)
        self.q = torch.randn(count, q_heads, new, d).to(k.dtype)
        self.out = torch.empty_like(self.q)
        self.k, self.v = (x[:, :, :new].expand(count, -1, -1, -1).contiguous() for x in (k, v))

    def blocks(self):
        """Pages of all sequences with what the turns append; behind a window they are used in turn."""
        spare = self.new * (SPARE_STEPS if self.keep else 1)
        held = (min(n, CHUNK + self.window) if self.window else n for n in self.lengths)
        # Beside them the window in full precision and a page that is begun.
        return sum((n + spare + WINDOW) // self.page + 2 for n in held)

    def fill(self, sequence, tokens, k, v):
        for begin in range(0, tokens, CHUNK):
            count = min(CHUNK, tokens - begin)
            with self.cache.plan([sequence], [count]) as step:
                for layer in range(self.layers):
                    step.append(layer, k[:, :, :count], v[:, :, :count])

    @property
    def visible(self):
        """Tokens that a query of each sequence sees."""
        return [min(n, self.window) if self.window else n for n in self.lengths]

    @property
    def elements(self):
        """Elements of K and V that one step of one layer attends."""
        return sum(self.visible) * self.kv_heads * 2 * self.d

    @property
    def bytes(self):
        """Bytes of pages and of the window in full precision that one step of one layer reads."""
        from kvq import lowlevel

        total = 0
        for n, seen in zip(self.lengths, self.visible):
            frontier_k, frontier_v = lowlevel.format_frontier(self.text, n)
            kept = 2 * n - frontier_k - frontier_v
            packed = (2 * seen - kept) / 2
            total += self.kv_heads * (packed * self.page_bytes / self.page + kept * self.d * self.element)
        return int(total)

    def run(self):
        """A turn: the number of layers that it went through. keep=False: the step is taken back."""
        with self.cache.plan(self.sequences, [self.new] * len(self.sequences)) as step:
            for layer in range(self.layers):
                step.forward(layer, self.q, self.k, self.v, self.d**-0.5, self.out)
            if not self.keep:
                step.abort()
        return self.layers


def add_step(setting, name, times, elements, size, **case):
    """The record of a step: milliseconds of one layer with what follows from them.

    stream_times: those of the read loop in the same rounds.
    """
    ms, spread = common.median_and_spread(times)
    stream = case.pop("stream_times", None)
    figures = {"ge_s": elements / ms / 1e6, "gb_s": size / ms / 1e6, "bytes": size, "elements": elements,
               "bits": 8 * size / elements, "rounds": len(times)}
    if stream:
        figures["stream_gb_s"] = setting.stream.bytes / common.median_and_spread(stream)[0] / 1e6
        figures["stream_share"] = figures["gb_s"] / figures["stream_gb_s"]
    setting.records.add(name, ms, "ms", spread, **{"baseline": None, "ratio": None, **case}, **figures)
    return ms
