# SPDX-License-Identifier: Apache-2.0
"""Attention windows, score cap, sink logits, kept tokens, flush, raw prefill (spec sections 5, 7 and 9)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvq_oracle import attention, quantize, text
from kvq_oracle.cache import CacheError, CacheModel
from small_caches import filled, frontiers, grow, run, small, tensors

BLOCK = "k4c32-v4t16/w0"
FORMATS = [BLOCK, "k4c32-v4t16/w32,sliding", "k2t16-v8c64/w17", "k4c32-v4t16/w32,keep9,flush", "k8t16-v8t16/w50,keep3"]


def by_loops(q, k, v, scale, cap=None, sink=None):
    """One query row over k [n, D], v [n, D], written as the formulas are."""
    scores = [scale * sum(a * b for a, b in zip(q.tolist(), key)) for key in k.tolist()]
    if cap:
        scores = [cap * np.tanh(s / cap) for s in scores]
    total = sum(np.exp(s) for s in scores) + (np.exp(sink) if sink is not None else 0)
    o = sum((np.exp(s) * row for s, row in zip(scores, v.astype(np.float64))), np.zeros(v.shape[1]))
    return o / total, np.log(total)


@pytest.mark.parametrize("cap, sinks", [(0.0, None), (1.5, None), (0.0, [0.7, -3.0]), (2.0, [5.0, 0.0])])
@pytest.mark.parametrize("cache, window", [(BLOCK, 0), (BLOCK, 20), ("k4c32-v4t16/w0,keep5", 50)])
def test_attention_c11_c12_window_c1_against_loops(cache, window, cap, sinks):
    options = dict(attention_window=window, score_cap=cap, sinks=None if sinks is None else np.array([sinks]))
    model, sequence, q, k, v = filled(cache, 90, **options)
    keep, to = model.cache.keep, 64
    assert frontiers(model, sequence) == (to, to)
    q1, k1, v1 = tensors(np.random.default_rng(5), 1)
    o, lse = run(model, sequence, q1, k1, v1, [1])
    packed = []
    for which, came, new in (("K", k, k1), ("V", v, v1)):
        values = quantize.dequantize(quantize.quantize(came[:, keep : keep + to], model.pair.side(which)))
        packed.append(np.concatenate([came[:, :keep], values, came[:, keep + to :], new], axis=1)[0])
    first = max(0, 91 - window) if window else 0
    for head in range(2):
        sink = None if sinks is None else sinks[head]
        expected = by_loops(q1[head, 0], packed[0][first:], packed[1][first:], 0.25, cap, sink)
        assert np.allclose(o[head, 0], expected[0], rtol=1e-9, atol=1e-12)
        assert np.isclose(lse[head, 0], expected[1], rtol=1e-12)


def test_attention_c12_a_sink_is_a_key_without_value():
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((2, 8)), rng.standard_normal((1, 6, 8)), rng.standard_normal((1, 6, 8))
    o, lse = attention.attend_query(q, k, v, 0.5)
    sunk_o, sunk_lse = attention.attend_query(q, k, v, 0.5, sinks=[0.3, -2.0])
    for head, z in enumerate((0.3, -2.0)):
        merged = attention.merge([o[head], np.zeros(8)], [lse[head], z])
        assert np.allclose(sunk_o[head], merged[0]) and np.isclose(sunk_lse[head], merged[1])
    nothing = attention.attend_query(q, k[:, :0], v[:, :0], 0.5, sinks=[0.3, -2.0])
    assert not nothing[0].any() and nothing[1].tolist() == [0.3, -2.0]
    assert np.isneginf(attention.attend_query(q, k[:, :0], v[:, :0], 0.5)[1]).all()


def test_window_c2_worked_by_hand():
    # Page 3 ends with token 127 <= 200 - 32 - 40, page 4 with 159. F is 192: pages 4 and 5 are left.
    model, sequence, *_ = filled(BLOCK, 200, page_tokens=32, attention_window=40)
    assert model.state(sequence)["first_block"] == 4 and model.report()["blocks_used"] == 2
    grow(model, sequence, 30, 1)
    assert model.state(sequence)["first_block"] == 4
    grow(model, sequence, 1, 2)  # 231 - 72 is 159
    assert model.state(sequence)["first_block"] == 5
    assert model.first_left(sequence) == 160
    assert model.read(sequence, 0, 160)[0].shape[1] == 71
    with pytest.raises(CacheError, match="dropped"):
        model.read(sequence, 0, 159)


@pytest.mark.parametrize("to", [200, 199, 168, 167])
def test_crop_c4_within_the_pages_that_are_left(to):
    model, sequence, *_ = filled(BLOCK, 200, page_tokens=32, attention_window=40)
    model.crop(sequence, to)
    o, lse = grow(model, sequence, 40, 1)  # the query at 167 sees 128 and later
    assert np.isfinite(o).all() and np.isfinite(lse).all()


@pytest.mark.parametrize("to", [166, 128, 40, 1])
def test_crop_c4_a_dropped_page_is_refused(to):
    model, sequence, *_ = filled(BLOCK, 200, page_tokens=32, attention_window=40)
    assert model.state(sequence)["least_tokens"] == 167
    before = model.fingerprint(sequence)
    with pytest.raises(CacheError, match="page 4 is the first"):
        model.crop(sequence, to)
    assert model.fingerprint(sequence) == before


def test_crop_c4_what_is_thawed_is_in_pages_that_are_left():
    # C 128, cap 160: 400 tokens leave F 384, r 240, and with Wa 16 and pages of 128 first 2 (353 // 128).
    model, sequence, *_ = filled("k4c128-v4t16/w0", 400, attention_window=16)
    assert model.state(sequence)["first_block"] == 2
    model.crop(sequence, 300)  # 256 to 300 in the ring
    assert frontiers(model, sequence) == (256, 256)
    # The query at 271 sees 256 and later, the one at 270 the dropped 255.
    model.crop(sequence, 271)
    with pytest.raises(CacheError, match="Page 1 was dropped .* 0 tokens can be taken back"):
        model.crop(sequence, 270)


@pytest.mark.parametrize("tokens", [4, 3, 0])
def test_crop_c4_no_body_token_left_starts_over(tokens):
    model, sequence, *_ = filled(BLOCK + ",keep4", 204, page_tokens=32, attention_window=40)
    with pytest.raises(CacheError, match="Page 0 was dropped .* 33 tokens can be taken back"):
        model.crop(sequence, 5)
    assert model.crop(sequence, tokens) == 0
    assert model.state(sequence) == dict(
        length=tokens, k_frontier=0, v_frontier=0, first_block=0, blocks=0, least_tokens=0
    )  # fmt: skip
    o, _ = grow(model, sequence, 100, 1)
    assert np.isfinite(o).all() and model.state(sequence)["blocks"] > 0


def test_window_c2_a_page_is_left_until_both_frontiers_have_passed_it():
    # Wa 16 is shorter than W 96: 191 - 47 is past page 3, but what is in it is not quantized yet.
    model, sequence, *_ = filled("k4c32-v4t16/w96", 191, page_tokens=32, attention_window=16)
    assert frontiers(model, sequence) == (64, 64)
    assert model.state(sequence)["first_block"] == 2 and model.state(sequence)["blocks"] == 0
    sliding, other, *_ = filled("k4c32-v4t16/w96,sliding", 191, page_tokens=32, attention_window=16)
    assert frontiers(sliding, other) == (96, 95)
    assert sliding.state(other)["first_block"] == 2 and sliding.state(other)["blocks"] == 1


def test_crop_c1_under_a_window_a_dropped_page_is_not_filled_again():
    # F 96 and first 3; the rule for 165 tokens says 64, the ring goes back to 32.
    model, sequence, *_ = filled("k4c32-v4t16/w96", 192, page_tokens=32, attention_window=16)
    assert frontiers(model, sequence) == (96, 96) and model.state(sequence)["first_block"] == 3
    assert model.crop(sequence, 165) == 0
    assert frontiers(model, sequence) == (96, 96) and model.state(sequence)["first_block"] == 3


@settings(max_examples=150)
@given(
    st.sampled_from(FORMATS), st.integers(1, 150), st.integers(1, 400),
    st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=6),
)  # fmt: skip
def test_window_c2_no_query_needs_a_dropped_page(cache, window, tokens, moves):
    """Dropped pages are NaN in the model: an answer that needs one is NaN."""
    model, sequence, *_ = filled(cache, tokens, attention_window=window)
    bound = -(-(max(window, model.report()["tail_capacity"]) + 63) // model.page_tokens) + 1
    for cuts, number in [(True, 32), *moves]:
        assert model.state(sequence)["blocks"] <= bound
        length = model.length(sequence)
        back = number % 33 if cuts else 0
        try:
            model.crop(sequence, max(0, length - back))
        except CacheError:
            # Only after an earlier cut: from a length never cut before 32 tokens are free (crop_c3).
            assert (cuts, number) != (True, 32)
            continue
        o, lse = grow(model, sequence, 1 + number % 70, number)
        assert np.isfinite(o).all() and np.isfinite(lse).all()
    assert model.state(sequence)["blocks"] <= bound


def test_window_c1_a_window_longer_than_the_sequence_is_none():
    model, sequence, *_ = filled(BLOCK, 150, attention_window=1000)
    plain, other, *_ = filled(BLOCK, 150)
    assert all(np.array_equal(a, b) for a, b in zip(grow(model, sequence, 60, 1), grow(plain, other, 60, 1)))
    assert model.state(sequence) == plain.state(other)


def test_commit_c7_kept_tokens_stay_as_they_came():
    model, sequence, _, k, v = filled("k2c32-v2t16/w0,keep20", 200, dtype="bf16")
    assert frontiers(model, sequence) == (160, 160)
    read_k, read_v = model.read(sequence, 0)
    assert np.array_equal(read_k[:, :20], quantize.round_to(k, "bf16")[:, :20])
    assert np.array_equal(read_v[:, :20], quantize.round_to(v, "bf16")[:, :20])
    packed = quantize.dequantize(quantize.quantize(quantize.round_to(k, "bf16")[:, 20:180], model.pair.k))
    assert np.array_equal(read_k[:, 20:180], quantize.round_to(packed, "bf16"))


def test_commit_c8_flush_worked_by_hand():
    model = small("k4c32-v4t16/w64,flush")
    sequence = model.add()
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(130):
        q, k, v = tensors(rng, 1)
        run(model, sequence, q, k, v, [1])
        seen.append(frontiers(model, sequence))
    assert seen == [(0, 0)] * 63 + [(64, 64)] * 64 + [(128, 128)] * 3


def test_tail_c2_f16_and_kept_rows():
    model, *_ = filled(BLOCK + ",keep20", 100, dtype="f16")
    # cap 64, keep 20 rounded up to 32; K 16 and V 32 channels of 2 bytes.
    assert model.report()["tail_bytes_used"] == (64 + 32) * (16 + 32) * 2
    assert model.report()["tail_capacity"] == 64


@pytest.mark.parametrize("cache", FORMATS)
def test_prefill_c2_sees_the_steps_own_tokens_as_they_came(cache):
    model, sequence, _, k0, v0 = filled(cache, 120)
    to = frontiers(model, sequence)
    known = model.read(sequence, 0)
    q, k, v = tensors(np.random.default_rng(3), 100)
    stored = small(cache)
    other = stored.restore(model.clone_state(sequence))
    (raw_answer,) = model.step([sequence], [([q], [k], [v])], 0.25, raw=True)[0]
    (stored_answer,) = stored.step([other], [([q], [k], [v])], 0.25)[0]
    all_k, all_v = (np.concatenate(pair, axis=1) for pair in ((known[0], k), (known[1], v)))
    for index in (0, 1, 50, 99):
        expected = attention.attend_query(q[:, index], all_k[:, : 121 + index], all_v[:, : 121 + index], 0.25)
        assert np.array_equal(raw_answer[0][:, index], expected[0])
    assert not np.array_equal(raw_answer[0][:, 99], stored_answer[0][:, 99])
    assert model.fingerprint(sequence) == stored.fingerprint(other)
    assert frontiers(model, sequence) > to


@pytest.mark.parametrize("window", [0, 25])
def test_prefill_c2_is_the_past_merged_with_the_steps_own_tokens(window):
    model, sequence, *_ = filled("k4c32-v4t16/w32,sliding", 120, attention_window=window)
    start = model.first_left(sequence)
    known = model.read(sequence, 0, start)
    q, k, v = tensors(np.random.default_rng(3), 40)
    (o, lse) = model.step([sequence], [([q], [k], [v])], 0.25, raw=True)[0][0]
    for index, t in enumerate(range(120, 160)):
        first = max(0, t + 1 - window) if window else 0
        past = attention.attend_query(q[:, index], *(x[:, max(0, first - start) :] for x in known), 0.25)
        own = attention.attend_query(q[:, index], *(x[:, max(0, first - 120) : index + 1] for x in (k, v)), 0.25)
        merged = attention.merge([past[0], own[0]], [past[1], own[1]])
        assert np.allclose(o[:, index], merged[0], rtol=1e-9) and np.allclose(lse[:, index], merged[1])


def test_prefill_c2_one_token_at_a_time_is_stored_prefill():
    models = [small("k4c32-v4t16/w32,sliding") for _ in range(2)]
    for token in range(100):
        answers = [grow(m, m.add() if token == 0 else 0, 1, token, raw) for m, raw in zip(models, (False, True))]
        assert all(np.array_equal(a, b) for a, b in zip(*answers))


def test_text_f16_is_a_dtype():
    model = CacheModel(BLOCK, 1, 2, 1, 16, 32, dtype="f16")
    q, k, v = tensors(np.random.default_rng(0), 3)
    run(model, model.add(), q, k, v, [3])
    assert np.array_equal(model.read(0, 0)[0], k.astype(np.float16).astype(np.float32))
    k[0, 1, 2] = 65600.0  # infinite in f16
    with pytest.raises(CacheError, match="token 4"):
        run(model, 0, q, k, v, [3])
    assert text.DTYPE_BYTES["f16"] == 2
