# SPDX-License-Identifier: Apache-2.0
"""The paged cache against the oracle's model of a cache: the same random life of both, compared after every move.

Sequences come, go, grow and are stepped in any mixture, with padding, failures and steps that are taken back; the
model (kvq_oracle/cache.py) has no pages, no ring, no chunks and no splits. Seeds are fixed.
"""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from kvq_oracle.cache import BadValue, CacheFull, CacheModel
from kvq_oracle.quantize import round_to
from tolerances import ATTENTION_RMS, lse_tolerance, relative_rms

import kvq
from kvq import lowlevel

TORCH = {"f32": torch.float32, "bf16": torch.bfloat16}
SCALE = 0.3
UNTOUCHED = -77.0  # of output rows that belong to padding; exact in both types
PLACE = re.compile(r"([KV]) .*sequence (\d+), token (\d+), head (\d+), channel (\d+)")


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


CASES = [
    Case("k4c32-v4t16/w32,block", 0, 2, 4, 2, 16, 32, "f32"),
    Case("k2c32-v2t16/w32,sliding", 32, 2, 3, 1, 32, 16, "f32"),
    Case("k8c64-v2c32/w0,block", 128, 1, 2, 2, 16, 16, "bf16"),
    Case("k4t16-v8t32/w45,block", 96, 1, 4, 2, 48, 32, "f32"),
    Case("k4c32-v8t16/w96,sliding", 0, 1, 2, 1, 16, 48, "bf16"),
]


class Twins:
    """The product's cache and its model, always told the same."""

    def __init__(self, context, case, seed, blocks=2, sequences=2):
        self.case = case
        self.rng = np.random.default_rng(seed)
        shape = dict(layers=case.layers, q_heads=case.q_heads, kv_heads=case.kv_heads, dk=case.dk, dv=case.dv)
        self.cache = lowlevel.Cache(
            context,
            case.format,
            dtype={"f32": "float32", "bf16": "bfloat16"}[case.dtype],
            blocks=blocks,
            sequences=sequences,
            page_tokens=case.page_tokens,
            **shape,
        )
        self.model = CacheModel(
            case.format, dtype=case.dtype, page_tokens=case.page_tokens, blocks=blocks, sequences=sequences, **shape
        )
        self.live = []
        self.seen = set()  # what happened, so that a test can say that it did

    def both(self, act, model_error, product_error, *arguments):
        """The results of method `act` of both; None where both refuse."""
        try:
            expected = getattr(self.model, act)(*arguments)
        except model_error:
            with pytest.raises(product_error):
                getattr(self.cache, act)(*arguments)
            self.seen.add(f"{act} refused")
            return None
        return getattr(self.cache, act)(*arguments), expected

    def add(self):
        if added := self.both("add", CacheFull, kvq.PoolFull):
            assert added[0] == added[1]
            self.live.append(added[0])

    def remove(self):
        sequence = self.live.pop(self.rng.integers(len(self.live)))
        self.cache.remove(sequence)
        self.model.remove(sequence)

    def grow(self):
        self.model.blocks += int(self.rng.integers(1, 5))
        self.model.capacity = min(self.model.capacity + 1, 4)
        self.cache.grow(self.model.blocks, self.model.capacity)

    # -- steps -------------------------------------------------------------------------------------------------------

    def random_step(self):
        rng = self.rng
        chosen = [int(s) for s in rng.permutation(self.live)[: rng.integers(1, len(self.live) + 1)]]
        counts = [int(rng.choice([0, 1, 1, 2, 31, 32, 33, rng.integers(3, 31), rng.integers(34, 150)])) for _ in chosen]
        tokens = max(counts) + int(rng.integers(0, 3))
        firsts = [int(rng.integers(0, tokens - n + 1)) for n in counts] if rng.random() < 0.5 else None
        # Fewer layers: a step that is taken back on its way.
        layers = self.case.layers if rng.random() < 0.8 else int(rng.integers(0, self.case.layers + 1))
        self.step(chosen, counts, tokens, firsts, layers, commits=layers == self.case.layers and rng.random() < 0.85)

    def step(self, chosen, counts, tokens, firsts=None, layers=None, commits=True):
        self.counts, self.tokens = counts, tokens
        self.firsts = firsts if firsts is not None else [tokens - n for n in counts]
        try:
            model = self.model.plan(chosen, counts)
        except CacheFull:
            with pytest.raises(kvq.PoolFull):
                self.cache.plan(chosen, counts, firsts)
            self.seen.add("plan refused")
            return
        product = self.cache.plan(chosen, counts, firsts)
        for layer in range(self.case.layers if layers is None else layers):
            self.layer(product, model, layer)
        self.seen.add("committed" if commits else "aborted")
        for step in (product, model):
            step.commit() if commits else step.abort()

    def values(self, heads, channels):
        """[count, heads, T, d] with NaN in the padding."""
        x = np.full((len(self.counts), heads, self.tokens, channels), np.nan, np.float32)
        for row, (first, count) in enumerate(zip(self.firsts, self.counts)):
            made = self.rng.standard_normal((heads, count, channels)) * np.exp2(self.rng.integers(-3, 4))
            x[row, :, first : first + count] = round_to(made.astype(np.float32), self.case.dtype)
        return x

    def rows(self, x):
        """The model's form: per sequence without padding."""
        return [x[row, :, first : first + count] for row, (first, count) in enumerate(zip(self.firsts, self.counts))]

    def tensor(self, x):
        return torch.from_numpy(x).to(TORCH[self.case.dtype])

    def layer(self, product, model, layer):
        case = self.case
        k, v = self.values(case.kv_heads, case.dk), self.values(case.kv_heads, case.dv)
        q = self.values(case.q_heads, case.dk)
        out = torch.full((len(self.counts), case.q_heads, self.tokens, case.dv), UNTOUCHED, dtype=TORCH[case.dtype])
        lse = torch.full(out.shape[:3], UNTOUCHED)
        at_once = max(self.counts) > 32 or self.rng.random() < 0.5

        def append(k, v):
            if at_once:
                product.forward(layer, self.tensor(q), self.tensor(k), self.tensor(v), SCALE, out, lse)
            else:
                product.append(layer, self.tensor(k), self.tensor(v))

        if max(self.counts) > 0 and self.rng.random() < 0.2:
            self.refuse(model, append, layer, k, v)
        append(k, v)
        if not at_once:
            product.attend(layer, self.tensor(q), SCALE, out, lse)
        self.seen.add("forward" if at_once else "attend")
        model.append(layer, self.rows(k), self.rows(v))
        self.check_answers(model.attend(layer, self.rows(q), SCALE), out.float().numpy(), lse.numpy())

    def refuse(self, model, append, layer, k, v):
        """A bad value somewhere: both name its place, and the layer may try again."""
        rng = self.rng
        row = int(rng.choice(np.flatnonzero(self.counts)))
        bad = [k.copy(), v.copy()]
        target = bad[rng.integers(2)]
        token = self.firsts[row] + rng.integers(self.counts[row])
        place = row, rng.integers(target.shape[1]), token, rng.integers(target.shape[3])
        target[place] = rng.choice([np.inf, np.nan, -7e4])
        with pytest.raises(BadValue) as expected:
            model.append(layer, *map(self.rows, bad))
        with pytest.raises(kvq.BadValue) as raised:
            append(*bad)
        assert PLACE.search(str(raised.value)).groups() == PLACE.search(str(expected.value)).groups()
        self.seen.add("bad value")

    def check_answers(self, expected, out, lse):
        real = np.zeros(lse.shape, bool)
        for row, (o, expected_lse) in enumerate(expected):
            first, count = self.firsts[row], self.counts[row]
            real[row, :, first : first + count] = True
            if count:
                got = out[row, :, first : first + count]
                assert relative_rms(got, o) <= ATTENTION_RMS[self.case.dtype]
                difference = np.abs(lse[row, :, first : first + count] - expected_lse)
                assert (difference <= lse_tolerance(expected_lse)).all()
        assert (lse[~real] == UNTOUCHED).all() and (out[~real] == UNTOUCHED).all()

    # -- comparing ---------------------------------------------------------------------------------------------------

    def check(self):
        expected = self.model.report()
        del expected["tail_capacity"]
        report = self.cache.report()
        assert {name: report[name] for name in expected} == pytest.approx(expected, rel=1e-12)
        owned = [block for sequence in self.live for block in self.cache.block_table(sequence)]
        assert len(owned) == len(set(owned)) == expected["blocks_used"]
        for sequence in self.live:
            length = self.cache.length(sequence)
            assert length == self.model.length(sequence)
            for layer in range(self.case.layers):
                for got, want in zip(self.read(sequence, layer, length), self.model.read(sequence, layer)):
                    assert np.array_equal(got, want), f"sequence {sequence}, layer {layer}"

    def read(self, sequence, layer, length):
        case = self.case
        k, v = (torch.empty(case.kv_heads, length, d, dtype=TORCH[case.dtype]) for d in (case.dk, case.dv))
        self.cache.read(sequence, layer, k, v)
        return k.float().numpy(), v.float().numpy()

    def move(self):
        kind = self.rng.random()
        if not self.live or kind < 0.12:
            self.add()
        elif kind < 0.17 or max(map(self.cache.length, self.live)) > 500:
            self.remove()
        elif kind < 0.22:
            self.grow()
        else:
            self.random_step()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.format)
def test_a_random_life_is_the_models(context, case):
    seen = set()
    for seed in range(4):
        twins = Twins(context, case, seed)
        for _ in range(40):
            twins.move()
            twins.check()
        seen |= twins.seen
    assert seen >= {"plan refused", "add refused", "committed", "aborted", "bad value", "forward", "attend"}


@pytest.mark.parametrize("format", ["k4c32-v4t16/w1300,block", "k2c32-v4t16/w1152,sliding"])
def test_a_window_longer_than_a_split(context, format):
    """More packed keys, and more kept ones, than one work item takes."""
    twins = Twins(context, Case(format, 0, 1, 2, 1, 16, 16, "f32"), 5, blocks=64)
    twins.add()
    twins.add()
    filling = twins.cache.plan([0], [2600])
    model = twins.model.plan([0], [2600])
    k, v = (np.random.default_rng(8).standard_normal((1, 1, 2600, 16)).astype(np.float32) for _ in range(2))
    filling.append(0, k, v)
    model.append(0, k, v)
    filling.commit()
    model.commit()
    twins.check()
    for counts in ([1, 40], [29, 0], [1, 1], [33, 2]):
        twins.step([0, 1], counts, max(counts))
        twins.check()
