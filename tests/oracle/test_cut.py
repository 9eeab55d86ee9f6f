# SPDX-License-Identifier: Apache-2.0
"""Taking tokens back (spec section 8) against figures worked out by hand, and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvq_oracle import quantize
from kvq_oracle.cache import CacheError
from small_caches import filled, frontiers, grow, run, small, tensors

BLOCK = "k4c32-v4t16/w0"  # C 32, cap 64, u 32
SLIDING = "k4c32-v4t16/w32,sliding"  # cap 64, u 32 and 1
WIDE_SLIDING = "k4c32-v4t16/w64,sliding"  # cap 96
FLUSH = "k4c32-v4t16/w32,flush"  # cap 64, u 32
TOKEN_FLUSH = "k4t16-v4t16/w5,flush"  # cap 48, u 1

CUTS = [
    # 200 tokens: F 192, the ring holds 136 to 199.
    (BLOCK, 200, 195, (192, 192), 0),  # above the frontier
    (BLOCK, 200, 192, (192, 192), 0),  # at it
    (BLOCK, 200, 190, (160, 160), 0),  # below it, in the ring: 160 is the rule's
    (BLOCK, 200, 168, (160, 160), 0),  # 32 tokens
    (BLOCK, 200, 161, (160, 160), 0),
    (BLOCK, 200, 150, (128, 128), 8),  # 128 to 135 only as codes
    (BLOCK, 200, 129, (128, 128), 1),
    (BLOCK, 200, 128, (128, 128), 0),
    (BLOCK, 200, 100, (96, 96), 4),
    (BLOCK, 200, 0, (0, 0), 0),
    # 200 tokens: F (192, 168), the ring holds 136 to 199.
    (SLIDING, 200, 195, (192, 163), 0),
    (SLIDING, 200, 192, (192, 160), 0),
    (SLIDING, 200, 180, (160, 148), 0),
    (SLIDING, 200, 168, (160, 136), 0),
    (SLIDING, 200, 165, (160, 136), 0),  # V stays above the rule's 133: older values are gone
    (SLIDING, 200, 150, (128, 128), 8),  # V follows K down from 136
    (SLIDING, 200, 130, (128, 128), 2),
    # F (192, 136), the ring holds 104 to 199.
    (WIDE_SLIDING, 200, 150, (128, 104), 0),
    (WIDE_SLIDING, 200, 120, (96, 96), 8),  # K at a multiple of the group that is none of the window
    (FLUSH, 200, 199, (192, 192), 0),
    (FLUSH, 200, 190, (160, 160), 0),
    (FLUSH, 200, 150, (128, 128), 8),
    # 102 tokens: F 100, the ring holds 54 to 101.
    (TOKEN_FLUSH, 102, 97, (95, 95), 0),
    (TOKEN_FLUSH, 102, 57, (55, 55), 0),
    (TOKEN_FLUSH, 102, 52, (52, 52), 0),  # u is 1: nothing is cut through
]


@pytest.mark.parametrize("cache, tokens, to, expected, thawed", CUTS)
def test_crop_c1_c2_worked_by_hand(cache, tokens, to, expected, thawed):
    model, sequence, _, k, v = filled(cache, tokens)
    before = [model.read(sequence, 0), *(model.quantized(sequence, 0, which) for which in "KV")]
    assert model.crop(sequence, to) == thawed
    assert model.length(sequence) == to
    assert frontiers(model, sequence) == expected
    for which, frontier, was, came, now in zip("KV", expected, before[0], (k, v), model.read(sequence, 0)):
        codes = model.quantized(sequence, 0, which)
        kept = before[1 + "KV".index(which)].tokens(0, frontier)
        assert all(np.array_equal(getattr(codes, name), getattr(kept, name)) for name in "qsm")
        assert np.array_equal(now[:, : frontier + thawed], was[:, : frontier + thawed])
        assert np.array_equal(now[:, frontier + thawed :], came[:, frontier + thawed : to])


def test_crop_c2_thawed_once():
    model, sequence, *_ = filled(BLOCK, 200)
    assert [model.crop(sequence, to) for to in (150, 140, 128)] == [8, 0, 0]
    assert frontiers(model, sequence) == (128, 128)
    # The next ones behind the frontier are thawed in their turn, these not again.
    assert model.crop(sequence, 120) == 24
    assert model.crop(sequence, 96) == 0


def test_crop_c2_thawed_tokens_are_quantized_again():
    model, sequence, _, k, v = filled(BLOCK, 200, dtype="f16")
    model.crop(sequence, 150)
    dense_k, dense_v = model.read(sequence, 0)
    q, more_k, more_v = tensors(np.random.default_rng(1), 10)
    run(model, sequence, q, more_k, more_v, [10])
    assert frontiers(model, sequence) == (160, 160)
    for which, dense, came, more in (("K", dense_k, k, more_k), ("V", dense_v, v, more_v)):
        window = np.concatenate([dense[:, 128:136], came[:, 136:150], more], axis=1)
        expected = quantize.quantize(quantize.round_to(window, "f16"), model.pair.side(which))
        assert np.array_equal(model.quantized(sequence, 0, which).tokens(128, 160).q, expected.q)
        assert np.array_equal(model.quantized(sequence, 0, which).tokens(128, 160).s, expected.s)


def test_attention_c1_a_frontier_above_the_rules_is_what_a_query_sees():
    model, sequence, _, k, v = filled(SLIDING, 200)
    model.crop(sequence, 165)
    assert frontiers(model, sequence) == (160, 136)
    state = model.clone_state(sequence).state
    assert [state.frontiers_at(t) for t in (165, 168, 169, 192)] == [(160, 136), (160, 136), (160, 137), (192, 160)]
    o, _ = grow(model, sequence, 1, 7)
    assert frontiers(model, sequence) == (160, 136) and np.isfinite(o).all()


def test_crop_c1_a_frontier_between_two_windows_moves_on_with_the_rule():
    model, sequence, *_ = filled(WIDE_SLIDING, 200)
    model.crop(sequence, 120)
    assert frontiers(model, sequence) == (96, 96)
    grow(model, sequence, 7, 1)
    assert frontiers(model, sequence) == (96, 96)
    grow(model, sequence, 1, 2)
    assert frontiers(model, sequence) == (128, 96)
    grow(model, sequence, 40, 3)
    assert frontiers(model, sequence) == (128, 104)


FORMATS = [
    BLOCK, SLIDING, WIDE_SLIDING, FLUSH, TOKEN_FLUSH, "k2t16-v8c64/w17", "k4c128-v4t16/w40", "k4t16-v4t16/w1,flush",
    "k4c32-v2t32/w7,keep5", "k4c32-v4t16/w32,keep40,sliding", "k4c64-v4c32/w64,keep16,flush",
]  # fmt: skip


@settings(max_examples=150)
@given(st.sampled_from(FORMATS), st.integers(1, 330), st.integers(0, 32), st.sampled_from(["f32", "bf16", "f16"]))
def test_crop_c3_thirty_two_tokens_leave_no_trace(cache, tokens, back, dtype):
    back = min(back, tokens)
    model, sequence, _, k, v = filled(cache, tokens, dtype=dtype)
    assert model.crop(sequence, tokens - back) == 0
    twin = small(cache, dtype=dtype)
    twin.add()
    if tokens > back:
        run(twin, 0, np.zeros((2, tokens, 16)), k, v, [tokens - back])
    assert model.state(sequence) == twin.state(0)
    assert model.report() == twin.report()
    # More rows of the longer sequence were overwritten: it can only be taken back less far from now on.
    assert all(a >= b for a, b in zip(model.fingerprint(sequence)[2], twin.fingerprint(0)[2]))
    for which in "KV":
        a, b = model.quantized(sequence, 0, which), twin.quantized(0, 0, which)
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in "qsm")
    assert all(np.array_equal(a, b) for a, b in zip(model.read(sequence, 0), twin.read(0, 0)))
    assert all(np.array_equal(a, b) for a, b in zip(grow(model, sequence, 70, 5), grow(twin, 0, 70, 5)))


@settings(max_examples=200)
@given(
    st.sampled_from(FORMATS), st.integers(1, 300),
    st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), min_size=1, max_size=8),
)  # fmt: skip
def test_crop_c1_states_that_cutting_and_growing_reach_are_sound(cache, tokens, moves):
    """Frontiers in whole groups, V's not above K's, every unquantized token in the ring, answers finite."""
    model, sequence, *_ = filled(cache, tokens)
    pair = model.pair
    for cuts, number in moves:
        length = model.length(sequence)
        if cuts:
            thawed = model.crop(sequence, number % (length + 1))
            assert thawed <= max([1] + [s.group for s in (pair.k, pair.v) if s.per_channel] + [32])
        else:
            o, lse = grow(model, sequence, 1 + number % 90, number)
            assert np.isfinite(o).all() and np.isfinite(lse).all()
        state = model.clone_state(sequence).state
        assert state.frontiers[1] <= state.frontiers[0] <= state.body
        for which, frontier, ring in zip("KV", state.frontiers, state.ring):
            assert ring <= frontier and state.body - ring <= model.report()["tail_capacity"]
            side = pair.side(which)
            assert not side.per_channel or frontier % side.group == 0
        assert all(np.isfinite(x).all() for x in model.read(sequence, 0))


def test_crop_c4_lengths_that_are_none():
    model, sequence, *_ = filled(BLOCK, 100)
    before = model.fingerprint(sequence)
    for tokens in (101, -1):
        with pytest.raises(CacheError, match="100"):
            model.crop(sequence, tokens)
    assert model.crop(sequence, 100) == 0 and model.fingerprint(sequence) == before
    with pytest.raises(CacheError, match="open"):
        model.plan([sequence], [1])
        model.crop(sequence, 50)


def test_crop_c4_kept_tokens_worked_by_hand():
    # 200 body tokens behind 10 kept ones: as in CUTS, ten positions later.
    model, sequence, _, k, v = filled(BLOCK + ",keep10", 210)
    assert frontiers(model, sequence) == (192, 192)
    assert model.crop(sequence, 160) == 8
    assert frontiers(model, sequence) == (128, 128)
    assert model.crop(sequence, 10) == 0 and frontiers(model, sequence) == (0, 0)
    assert model.crop(sequence, 7) == 0 and model.length(sequence) == 7
    read_k, read_v = model.read(sequence, 0)
    assert np.array_equal(read_k, k[:, :7]) and np.array_equal(read_v, v[:, :7])
    grow(model, sequence, 40, 3)
    assert frontiers(model, sequence) == (32, 32)


def test_crop_frees_blocks():
    model, sequence, *_ = filled(BLOCK, 200, page_tokens=64)
    assert model.report()["blocks_used"] == 3
    model.crop(sequence, 128)
    assert model.report()["blocks_used"] == 2
    model.crop(sequence, 31)
    assert model.report()["blocks_used"] == 0
