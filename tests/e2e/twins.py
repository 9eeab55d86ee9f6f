# SPDX-License-Identifier: Apache-2.0
"""The product's cache and its model (kvq_oracle/cache.py), always told the same and compared after every move.

The model has no pages, no ring, no chunks and no splits. Who decides what to tell them is the caller: a seed
(test_cache_model.py) or hypothesis (test_cache_operations.py).
"""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from kvq_oracle import attention
from kvq_oracle.cache import BadValue, CacheError, CacheFull, CacheModel
from kvq_oracle.quantize import round_to
from tolerances import attention_rms, budget, lse_tolerance, merged_rms, relative_rms

import kvq
from kvq import lowlevel

TORCH = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
PRODUCT = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
SCALE = 0.3
UNTOUCHED = -77.0  # of output rows that belong to padding; exact in all types
PLACE = re.compile(r"([KV]) .*sequence (\d+), token (\d+), head (\d+), channel (\d+)")
CHUNK = 32  # append and attend apart take at most this many tokens; forward takes any


@dataclass(frozen=True)
class Case:
    format: str
    page_tokens: int
    layers: int
    q_heads: int
    kv_heads: int
    dk: int
    dv: int
    dtype: str
    attention_window: int = 0
    score_cap: float = 0.0
    sinks: bool = False
    accuracy: str = "full"

    def __str__(self):
        window = f"-window{self.attention_window}" if self.attention_window else ""
        accuracy = f"-{self.accuracy}" if self.accuracy != "full" else ""
        return f"{self.format}-{self.dtype}{window}{accuracy}"


class Twins:
    """Sequences are named by the model's numbers; `product` has the other cache's number of each."""

    def __init__(self, context, case, seed, blocks=2, sequences=2):
        self.case = case
        self.rng = np.random.default_rng(seed)
        shape = dict(
            layers=case.layers, q_heads=case.q_heads, kv_heads=case.kv_heads, dk=case.dk, dv=case.dv, blocks=blocks,
            sequences=sequences, page_tokens=case.page_tokens, attention_window=case.attention_window,
            score_cap=case.score_cap,
        )  # fmt: skip
        self.sinks = None
        if case.sinks:
            self.sinks = self.rng.standard_normal((case.layers, case.q_heads)).astype(np.float32)
        self.cache = lowlevel.Cache(
            context, case.format, dtype=PRODUCT[case.dtype], accuracy=case.accuracy, **shape
        )
        self.model = CacheModel(case.format, dtype=case.dtype, sinks=self.sinks, **shape)
        for layer in range(case.layers if case.sinks else 0):
            self.cache.set_sinks(layer, self.sinks[layer])
        self.live, self.product = [], {}
        self.seen = set()  # what happened, so that a test can say that it did

    # -- sequences ---------------------------------------------------------------------------------------------------

    def _enter(self, what, model_act, product_act):
        """Both make a sequence, or both find the pool full: its number or None."""
        try:
            sequence = model_act()
        except CacheFull:
            with pytest.raises(kvq.PoolFull):
                product_act()
            self.seen.add(f"{what} refused")
            return None
        self.product[sequence] = product_act()
        assert self.product[sequence] not in [self.product[other] for other in self.live]
        self.live.append(sequence)
        self.seen.add(what)
        return sequence

    def add(self):
        return self._enter("add", self.model.add, self.cache.add)

    def fork(self, sequence):
        mine = self.product[sequence]
        return self._enter("fork", lambda: self.model.fork(sequence), lambda: self.cache.fork(mine))

    def restore(self, sequence):
        """A snapshot of it, taken and restored at once."""
        data, snapshot = self.cache.snapshot(self.product[sequence]), self.model.clone_state(sequence)
        return self._enter("restore", lambda: self.model.restore(snapshot), lambda: self.cache.restore(data))

    def damaged_restore(self, sequence, place, cut):
        """snapshot_c2: one byte changed, or the end missing, is refused whatever and wherever it is."""
        data = bytearray(self.cache.snapshot(self.product[sequence]))
        place %= len(data)
        if cut:
            del data[place:]
        else:
            data[place] ^= 0x10
        with pytest.raises(kvq.Corrupt):
            self.cache.restore(bytes(data))
        self.seen.add("damage")

    def remove(self, sequence):
        self.live.remove(sequence)
        self.cache.remove(self.product.pop(sequence))
        self.model.remove(sequence)

    def select(self, sequences):
        """Beams: the sequences named, as often as they are named, take the place of all."""
        old = list(self.live)
        for sequence in sequences:
            self.fork(sequence)
        for sequence in old:
            self.remove(sequence)

    def grow(self, blocks, sequences):
        self.model.blocks += blocks
        self.model.capacity += sequences
        self.cache.grow(self.model.blocks, self.model.capacity)

    def crop(self, sequence, tokens):
        length = self.model.length(sequence)
        try:
            thawed = self.model.crop(sequence, tokens)
        except CacheError:
            beyond = tokens > length
            with pytest.raises(kvq.InvalidArgument if beyond else kvq.FailedPrecondition):
                self.cache.crop(self.product[sequence], tokens)
            self.seen.add("crop beyond the length" if beyond else "crop behind dropped pages")
            return
        assert self.cache.crop(self.product[sequence], tokens) == thawed
        self.seen.add("crop that thaws" if thawed else "crop")

    # -- steps -------------------------------------------------------------------------------------------------------

    def step(
        self, chosen, counts, padding=0, firsts=None, layers=None, commits=True, apart=False, bad=False, raw=False
    ):
        """apart: append and attend, not forward, where the step is short enough. bad: a layer is given a bad value
        before it is given good ones. layers: how many of them, less than all in a step that is taken back."""
        self.counts, self.tokens, self.raw = counts, max(counts) + padding, raw
        self.firsts = firsts if firsts is not None else [self.tokens - n for n in counts]
        self.chosen = chosen
        product = self._plan(chosen, counts, firsts, raw)
        if product is None:
            return
        model = self.model.plan(chosen, counts, raw)
        layers = self.case.layers if layers is None else layers
        spoilt = int(self.rng.integers(layers)) if bad and layers and max(counts) > 0 else None
        for layer in range(layers):
            self._layer(product, model, layer, apart and max(counts) <= CHUNK and not raw, layer == spoilt)
        self.seen.add("committed" if commits else "aborted")
        for step in (product, model):
            step.commit() if commits else step.abort()

    def _plan(self, chosen, counts, firsts, raw):
        """The product's step; None where it must find the pool full, or does where it may (CacheModel.step_blocks)."""
        options = {"past_only": True} if raw else {}
        plan = lambda: self.cache.plan([self.product[s] for s in chosen], counts, firsts, **options)
        if raw and any(self._half_kept(s, count) for s, count in zip(chosen, counts)):
            with pytest.raises(kvq.Unsupported, match="keeps in full precision, and a past_only step cannot"):
                plan()
            return None
        least, most = self.model.step_blocks(chosen, counts)
        if least > self.model.blocks:
            with pytest.raises(kvq.PoolFull):
                plan()
            self.seen.add("plan refused")
            return None
        try:
            return plan()
        except kvq.PoolFull:
            assert most > self.model.blocks
            self.seen.add("plan refused")
            return None

    def _half_kept(self, sequence, count):
        """The one past-only step that the runtime refuses: some of the kept tokens are there, and the window ends among
        the new ones (kvq.h, kvq_plan_desc.past_only)."""
        keep, length, window = self.model.cache.keep, self.model.length(sequence), self.case.attention_window
        return bool(window) and 0 < length < keep and length + count > window

    def _values(self, heads, channels):
        """[count, heads, T, d] with NaN in the padding."""
        x = np.full((len(self.counts), heads, self.tokens, channels), np.nan, np.float32)
        for row, (first, count) in enumerate(zip(self.firsts, self.counts)):
            made = self.rng.standard_normal((heads, count, channels)) * np.exp2(self.rng.integers(-3, 4))
            x[row, :, first : first + count] = round_to(made.astype(np.float32), self.case.dtype)
        return x

    def _rows(self, x):
        """The model's form: per sequence without padding."""
        return [x[row, :, first : first + count] for row, (first, count) in enumerate(zip(self.firsts, self.counts))]

    def _tensor(self, x):
        return torch.from_numpy(x).to(TORCH[self.case.dtype])

    def _layer(self, product, model, layer, apart, spoilt):
        case = self.case
        k, v = self._values(case.kv_heads, case.dk), self._values(case.kv_heads, case.dv)
        q = self._values(case.q_heads, case.dk)
        out = torch.full((len(self.counts), case.q_heads, self.tokens, case.dv), UNTOUCHED, dtype=TORCH[case.dtype])
        lse = torch.full(out.shape[:3], UNTOUCHED)

        def append(k, v):
            if apart:
                product.append(layer, self._tensor(k), self._tensor(v))
            else:
                product.forward(layer, self._tensor(q), self._tensor(k), self._tensor(v), SCALE, out, lse)

        if spoilt:
            self._refuse(model, append, layer, k, v)
        append(k, v)
        if apart:
            product.attend(layer, self._tensor(q), SCALE, out, lse)
        self.seen.add("attend" if apart else "raw" if self.raw else "forward")
        model.append(layer, self._rows(k), self._rows(v))
        expected = model.attend(layer, self._rows(q), SCALE)
        out, lse = out.float().numpy(), lse.numpy()
        self._check_padding(out, lse)
        got = [(o, l[..., 0]) for o, l in zip(self._rows(out), self._rows(lse[..., None]))]
        if self.raw:
            parts = zip(got, self._rows(q), self._rows(k), self._rows(v))
            got = [attention.merge(*zip(past, self._own_part(*own))) for past, *own in parts]
        self._check_answers(expected, got)

    def _own_part(self, q, k, v):
        """prefill_c2: each query over the step's own tokens as they came. The sink counts with the past."""
        window = self.case.attention_window
        parts = [
            attention.attend_query(
                q[:, t], *(attention.visible(x, x[:, :0], t, 0, 0, window) for x in (k, v)), SCALE, self.case.score_cap
            )
            for t in range(q.shape[1])
        ]
        if not parts:
            return np.zeros((*q.shape[:2], self.case.dv)), np.zeros(q.shape[:2])
        return tuple(np.stack(part, axis=1) for part in zip(*parts))

    def _refuse(self, model, append, layer, k, v):
        """A bad value somewhere: both name its place, and the layer may try again."""
        rng = self.rng
        row = int(rng.choice(np.flatnonzero(self.counts)))
        bad = [k.copy(), v.copy()]
        target = bad[rng.integers(2)]
        token = self.firsts[row] + rng.integers(self.counts[row])
        place = row, rng.integers(target.shape[1]), token, rng.integers(target.shape[3])
        target[place] = rng.choice([np.inf, np.nan, -7e4])
        with pytest.raises(BadValue) as expected:
            model.append(layer, *map(self._rows, bad))
        with pytest.raises(kvq.BadValue) as raised:
            append(*bad)
        which, sequence, *rest = PLACE.search(str(expected.value)).groups()
        named = (which, str(self.product[int(sequence)]), *rest)
        assert PLACE.search(str(raised.value)).groups() == named
        self.seen.add("bad value")

    def _check_padding(self, out, lse):
        real = np.zeros(lse.shape, bool)
        for row, (first, count) in enumerate(zip(self.firsts, self.counts)):
            real[row, :, first : first + count] = True
        assert (lse[~real] == UNTOUCHED).all() and (out[~real] == UNTOUCHED).all()

    def _check_answers(self, expected, got):
        pair, accuracy = self.model.cache.pair, self.case.accuracy
        # Hundreds of steps, each looked at alone, some of one query over a few keys: the worst of them, where a budget
        # of integers is a mean.
        values = "ordinary" if accuracy in ("full", "exact") else "extreme"
        # `full` with the budget of `exact`: rows of so few elements round to bf16 by more than the mean.
        arithmetic = budget("exact" if accuracy == "full" else accuracy, min(pair.k.bits, pair.v.bits), values)
        rms = (merged_rms if self.raw else attention_rms)(self.case.dtype, arithmetic)
        for (o, lse), (got_o, got_lse) in zip(expected, got, strict=True):
            if o.shape[1]:
                assert relative_rms(got_o, o) <= rms
            # Integers move a score in proportion to it, and lse is as large as the largest score.
            room = 1 if accuracy == "full" else np.maximum(1, np.abs(lse) / 16)
            assert (np.abs(got_lse - lse) <= room * lse_tolerance(lse, arithmetic)).all()

    # -- comparing ---------------------------------------------------------------------------------------------------

    def check(self):
        expected = self.model.report()
        del expected["tail_capacity"]
        report = self.cache.report()
        assert {name: report[name] for name in expected} == pytest.approx(expected, rel=1e-12)
        self._check_sharing()
        for sequence in self.live:
            assert self.cache.length(self.product[sequence]) == self.model.length(sequence)
            assert self.cache.state(self.product[sequence]) == self.model.state(sequence)
            for layer in range(self.case.layers):
                first = self.model.first_left(sequence)
                got, want = self._read(sequence, layer, first), self.model.read(sequence, layer, first)
                assert all(map(np.array_equal, got, want)), f"sequence {sequence}, layer {layer}"

    def _check_sharing(self):
        """fork_c1: the same pages are shared by the same sequences. Windowed tables are compared by their sizes."""
        if self.case.attention_window:
            return
        tables = [self.cache.block_table(self.product[s]) for s in self.live], [self.model.table(s) for s in self.live]
        numbered = []
        for table in tables:
            names = {}
            numbered.append([[names.setdefault(block, len(names)) for block in blocks] for blocks in table])
        assert numbered[0] == numbered[1]

    def _read(self, sequence, layer, first):
        case, length = self.case, self.model.length(sequence)
        k, v = (torch.empty(case.kv_heads, length - first, d, dtype=TORCH[case.dtype]) for d in (case.dk, case.dv))
        self.cache.read(self.product[sequence], layer, k, v, **({"first": first} if first else {}))
        return k.float().numpy(), v.float().numpy()
