# SPDX-License-Identifier: Apache-2.0
"""One life of a cache, told the same on any device, and how the answers of two devices are compared.

    python three_devices.py DEVICE REFERENCE     the life of each short case on both, compared
"""

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from device_tensor import DeviceTensor, empty_tensor, random_tensor

import kvq
from kvq import lowlevel

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "oracle")]

import tolerances
from kvq_oracle.page import Page

LAYERS, SCALE = 2, 0.2
TORCH = {"f16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """`bits` are the narrower width of the format. `cap`: of scores."""

    format: str
    bits: int
    d: int
    dtype: str
    q_heads: int = 4
    kv_heads: int = 2
    accuracy: str = "exact"
    window: int = 0
    cap: float = 0.0

    def __str__(self):
        return f"{self.format}-d{self.d}-{self.dtype}-{self.accuracy}" + (f"-window{self.window}" if self.window else "")


def stored(snapshot, case):
    """What a snapshot's pages hold (snapshot_c2), whatever order they have it in: ((layer, side), uint16 [3, heads, tokens,
    channels]), codes, scales and minima as bits, of all tokens that are quantized."""
    (size,) = np.frombuffer(snapshot, np.uint32, 1, 48)
    text = snapshot[52 : 52 + size].decode()
    numbers = np.frombuffer(snapshot, np.int64, 7, 52 + size)
    frontiers, first, blocks = dict(zip("KV", numbers[1:3])), numbers[5], numbers[6]
    tokens = int(re.search(r"page_tokens=(\d+)", text)[1])
    profile = (re.search(r"profile=(\w+)", text) or [None, "vnni"])[1]
    pair, layers = case.format.split("/")[0], np.frombuffer(snapshot, np.uint8, offset=52 + int(size) + 56)
    page_bytes = Page(pair, tokens, case.d, case.d, profile).data.size
    for layer, data in enumerate(np.split(layers, LAYERS)):
        pages = data[: blocks * case.kv_heads * page_bytes].reshape(blocks, case.kv_heads, page_bytes)
        for side in "KV":
            heads = []
            for head in range(case.kv_heads):
                found = [Page(pair, tokens, case.d, case.d, profile, page).read_quantized(side) for page in pages[:, head]]
                parts = [np.concatenate([getattr(page, part) for page in found]) for part in "qsm" if found]
                end = frontiers[side] - first * tokens
                heads.append([part[:end].view(f"u{part.itemsize}").astype(np.uint16) for part in parts])
            yield (layer, side), np.array(heads)


class Life:
    """`exact` has what must be the same on all devices, `answers` pairs of attention's output and its log-sum-exp; both
    with a name of the moment."""

    def __init__(self, context, case):
        self.context, self.case, self.rng = context, case, np.random.default_rng(11)
        self.exact, self.answers = [], []
        self.cache = lowlevel.Cache(
            context, case.format, layers=LAYERS, q_heads=case.q_heads, kv_heads=case.kv_heads, dk=case.d, dv=case.d,
            dtype={"f16": "float16", "bf16": "bfloat16"}[case.dtype], blocks=16, sequences=4, accuracy=case.accuracy,
            attention_window=case.window, score_cap=case.cap,
        )  # fmt: skip

    def _random(self, heads, batch, tokens):
        return random_tensor(self.context, (batch, heads, tokens, self.case.d), self.rng, TORCH[self.case.dtype])

    def _layer(self, opened, name, layer, counts, apart):
        case, batch, tokens = self.case, len(counts), max(counts)
        q = self._random(case.q_heads, batch, tokens)
        k, v = (self._random(case.kv_heads, batch, tokens) for _ in "kv")
        out = empty_tensor(self.context, q.host.shape, q.host.dtype)
        lse = empty_tensor(self.context, q.host.shape[:3], torch.float32)
        if apart:
            opened.append(layer, k.array, v.array)
            opened.attend(layer, q.array, SCALE, out.array, lse.array)
        else:
            opened.forward(layer, q.array, k.array, v.array, SCALE, out.array, lse.array)
        o, lse = out.fetch(), lse.fetch()
        # Shorter sequences stand at the end; nothing is written before them.
        real = np.arange(tokens) >= tokens - np.array(counts)[:, None, None]
        real = np.broadcast_to(real, lse.shape)
        assert not o[~real].any() and not lse[~real].any(), f"{name}: rows of padding were written"
        self.answers.append((f"{name}, layer {layer}", o[real], lse[real]))

    def step(self, name, sequences, counts, apart=False, commits=True):
        with self.cache.plan(sequences, counts) as opened:
            for layer in range(LAYERS if commits else 1):
                self._layer(opened, name, layer, counts, apart)
            if not commits:
                opened.abort()
        self.look(name, sequences)

    def look(self, name, sequences):
        """Lengths, states and everything stored."""
        for sequence in sequences:
            length = self.cache.length(sequence)
            first = self.first_left(sequence)
            self.exact += [(f"{name}: length", length), (f"{name}: state", self.cache.state(sequence))]
            for place, bits in stored(self.cache.snapshot(sequence), self.case):
                self.exact.append((f"{name}: codes of {place}, sequence {sequence}", bits))
            for layer in range(LAYERS):
                k, v = (empty_tensor(self.context, (self.case.kv_heads, length - first, self.case.d),
                                     TORCH[self.case.dtype]) for _ in "kv")  # fmt: skip
                self.cache.read(sequence, layer, k.array, v.array, **({"first": first} if first else {}))
                for which, values in (("K", k.fetch()), ("V", v.fetch())):
                    assert np.abs(values).max(initial=0) < 8, "values are of a normal distribution"
                    self.exact.append((f"{name}: {which} of sequence {sequence}, layer {layer}", values))

    def first_left(self, sequence):
        """The first token that no attention window has dropped, in the words of the refusal to read it."""
        k = empty_tensor(self.context, (self.case.kv_heads, self.cache.length(sequence), self.case.d),
                         TORCH[self.case.dtype])  # fmt: skip
        try:
            self.cache.read(sequence, 0, k.array, k.array)
        except kvq.FailedPrecondition as refusal:
            return int(str(refusal).split("tokens before ")[1].split()[0])
        return 0

    def refused(self, name, error, act, sizes=True):
        """sizes: whether numbers in the message are the same on all devices."""
        try:
            act()
        except error as refusal:
            self.exact.append((name, str(refusal) if sizes else re.sub(r"\d+", "N", str(refusal))))
        else:
            raise AssertionError(f"{name} was not refused")

    @contextlib.contextmanager
    def _open(self, sequences, counts):
        opened = self.cache.plan(sequences, counts)
        yield opened
        opened.abort()

    def bad_values(self, sequence):
        """A value beyond f16 in K and one that is none in V, in a step that then is taken back."""
        good = self._random(self.case.kv_heads, 1, 5)
        for which, value in (("K", 1e5), ("V", float("nan"))):
            host = good.host.float()
            host[0, 1, 3, 7] = value if self.case.dtype == "bf16" else float("inf") if which == "K" else value
            bad = DeviceTensor(self.context, host.to(good.host.dtype))
            pair = (bad, good) if which == "K" else (good, bad)
            with self._open([sequence], [5]) as opened:
                self.refused(f"bad value in {which}", kvq.BadValue,
                             lambda: opened.append(0, pair[0].array, pair[1].array))  # fmt: skip

    def run(self, short=False):
        cache = self.cache
        a, b = cache.add(), cache.add()
        self.step("a ragged prompt", [a, b], [131, 70])
        for _ in range(2):
            self.step("a token each", [a, b], [1, 1], apart=True)
        self.step("several tokens at once", [b, a], [3, 5], apart=True)
        self.exact.append(("crop", cache.crop(a, cache.length(a) - 3)))
        c = cache.fork(a)
        self.step("a fork beside its origin", [c, a], [1, 4])
        if short:
            return self
        self.step("a step that is taken back", [c, b], [9, 2], apart=True, commits=False)
        self.bad_values(c)
        if not self.case.window:
            self.refused("a full pool", kvq.PoolFull, lambda: cache.plan([a], [4000]))
        self.look("after refusals", [a, b, c])
        d = cache.restore(cache.snapshot(c))
        # The name of the layout profile, which a snapshot has in it, is longer or shorter.
        self.refused("a damaged snapshot", kvq.Corrupt, lambda: cache.restore(cache.snapshot(c)[:-9]), sizes=False)
        cache.remove(c)
        self.step("a restored sequence", [d, b], [2, 40])
        if not self.case.window:
            self.exact.append(("crop that thaws", cache.crop(b, 50)))
            self.step("a sequence cut far back", [b], [7], apart=True)
        cache.grow(24, 6)
        self.step("a larger cache", [cache.add(), d], [33, 1])
        return self


def compare(one, other):
    """`other` is of the reference, whose arithmetic is f32."""
    assert [name for name, _ in one.exact] == [name for name, _ in other.exact]
    for (name, found), (_, expected) in zip(one.exact, other.exact):
        assert np.array_equal(found, expected), f"{name}: {found} instead of {expected}"
    case = one.case
    arithmetic = tolerances.budget(case.accuracy, case.bits)
    rounding = tolerances.attention_rms(case.dtype, 0.0)  # of each of the two outputs
    for (name, o, lse), (_, expected_o, expected_lse) in zip(one.answers, other.answers, strict=True):
        allowed = tolerances.over_rows(tolerances.two_devices_rms(arithmetic), len(o)) + 2 * rounding
        assert tolerances.relative_rms(o, expected_o) <= allowed, name
        room = tolerances.lse_tolerance(expected_lse, tolerances.two_devices_rms(arithmetic))
        assert (np.abs(lse - expected_lse) <= room).all(), name


SHORT_CASES = (
    Case("k4c32-v4t32/w32,sliding", 4, 64, "f16"),
    Case("k2c32-v8t16/w32,block", 2, 80, "bf16"),
)


def main(device, reference):
    for case in SHORT_CASES:
        one, other = (Life(lowlevel.Context(name, threads=1), case).run(short=True) for name in (device, reference))
        compare(one, other)
        print(f"{case}: {len(one.exact)} {len(one.answers)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
