# SPDX-License-Identifier: Apache-2.0
"""The model of a whole cache: windows, commits, prefill, abort, bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_oracle import attention, quantize, text
from kvq_oracle.cache import BadValue, CacheError, CacheFull, CacheModel
from small_caches import run, small, tensors

CACHES = ["kivi-2", "k4c32-v4t32/w40", "k2t16-v8c64/w0", "k4c32-v2t16/w32,sliding"]


def state(model):
    dense = {s: [model.read(s, layer) for layer in range(model.layers)] for s in model.sequences}
    return {s: [(k.tobytes(), v.tobytes()) for k, v in layers] for s, layers in dense.items()}, model.report()


def test_commit_c6_kivi_windows_of_a_running_cache():
    model = small("kivi-2")
    sequence = model.add()
    rng = np.random.default_rng(0)
    run(model, sequence, *tensors(rng, 300), [300])
    assert model.window_tokens(sequence) == (44, 128)
    run(model, sequence, *tensors(rng, 84), range(1, 85))
    assert model.window_tokens(sequence) == (0, 128)


@pytest.mark.parametrize("cache", CACHES)
def test_commit_c4_a_query_sees_the_state_of_its_position(cache):
    tokens = 200
    q, k, v = tensors(np.random.default_rng(2), tokens)
    model = small(cache)
    o, lse = run(model, model.add(), q, k, v, [tokens])
    parsed = text.parse_cache(cache)
    whole = lambda x, side: quantize.dequantize(quantize.quantize(x[:, : x.shape[1] // 64 * 64], side))
    packed_k, packed_v = whole(k, parsed.pair.k), whole(v, parsed.pair.v)
    for t in (0, 1, 31, 39, 40, 71, 72, 128, 129, 150, 199):
        fk, fv = text.frontier(parsed, t)
        seen_k = np.concatenate([packed_k[:, :fk], k[:, fk : t + 1]], axis=1)
        seen_v = np.concatenate([packed_v[:, :fv], v[:, fv : t + 1]], axis=1)
        expected_o, expected_lse = attention.attend_query(q[:, t], seen_k, seen_v, 0.25)
        assert np.array_equal(o[:, t], expected_o) and np.array_equal(lse[:, t], expected_lse)


@settings(max_examples=20)
@given(st.sampled_from(CACHES), st.sets(st.integers(1, 219), max_size=6))
def test_commit_c4_prefill_does_not_depend_on_how_the_prompt_is_cut(cache, cuts):
    q, k, v = tensors(np.random.default_rng(3), 220)
    models = [small(cache), small(cache)]
    results = [run(m, m.add(), q, k, v, steps) for m, steps in zip(models, ([220], sorted(cuts) + [220]))]
    assert all(np.array_equal(a, b) for a, b in zip(*results))
    assert state(models[0]) == state(models[1])
    for which in "KV":
        a, b = (m.quantized(0, 0, which) for m in models)
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in "qsm")


@pytest.mark.parametrize("cache", CACHES)
def test_commit_c5_quantized_once(cache):
    model = small(cache)
    sequence = model.add()
    rng = np.random.default_rng(4)
    run(model, sequence, *tensors(rng, 230), [230])
    before = {which: model.quantized(sequence, 0, which) for which in "KV"}
    run(model, sequence, *tensors(rng, 70), [35, 70])
    for which in "KV":
        after = model.quantized(sequence, 0, which).tokens(0, before[which].q.shape[1])
        assert all(np.array_equal(getattr(after, name), getattr(before[which], name)) for name in "qsm")


@pytest.mark.parametrize("cache", CACHES)
def test_step_c1_abort_restores(cache):
    model = small(cache)
    sequence = model.add()
    rng = np.random.default_rng(5)
    run(model, sequence, *tensors(rng, 150), [150])
    before = state(model)
    q, k, v = tensors(rng, 100)
    step = model.plan([sequence], [100])
    step.append(0, [k], [v])
    first = step.attend(0, [q], 0.25)
    step.abort()
    assert state(model) == before
    (again,) = model.step([sequence], [([q], [k], [v])], 0.25)
    assert np.array_equal(first[0][0], again[0][0])


def test_step_c1_sequences_do_not_touch_each_other():
    rng = np.random.default_rng(6)
    data = [tensors(rng, n) for n in (90, 0, 201)]
    together = small("k4c32-v4t32/w40")
    ids = [together.add() for _ in data]
    (layer,) = together.step(ids, [tuple(list(part) for part in zip(*data))], 0.25)
    for (q, k, v), sequence, (o, lse) in zip(data, ids, layer):
        alone = small("k4c32-v4t32/w40")
        alone.add()
        if q.shape[1]:
            solo_o, solo_lse = run(alone, 0, q, k, v, [q.shape[1]])
            assert np.array_equal(solo_o, o) and np.array_equal(solo_lse, lse)
        assert all(np.array_equal(a, b) for a, b in zip(alone.read(0, 0), together.read(sequence, 0)))
        assert together.length(sequence) == q.shape[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65505.0])
@pytest.mark.parametrize("which", ["K", "V"])
def test_step_c2_bad_values_are_named_and_change_nothing(value, which):
    model = CacheModel("kivi-2", layers=1, q_heads=2, kv_heads=2, dk=16, dv=32)
    ids = [model.add(), model.add()]
    rng = np.random.default_rng(7)
    data = [tensors(rng, n, kv_heads=2) for n in (3, 140)]
    model.step(ids, [tuple(list(part) for part in zip(*data))], 0.25)
    before = state(model)
    q, k, v = (list(part) for part in zip(tensors(rng, 4, kv_heads=2), tensors(rng, 5, kv_heads=2)))
    {"K": k, "V": v}[which][1][1, 2, 9] = value
    {"K": k, "V": v}[which][1][0, 3, 1] = value
    with pytest.raises(BadValue, match=f"{which} holds .* sequence 1, token 142, head 1, channel 9;"):
        model.step(ids, [(q, k, v)], 0.25)
    assert state(model) == before


def test_step_c1_full_is_found_by_plan():
    model = small("k4c32-v4t32/w0", page_tokens=64, blocks=2, sequences=2)
    ids = [model.add(), model.add()]
    with pytest.raises(CacheFull, match="3 blocks of 2"):
        model.plan(ids, [65 + 31, 40])
    model.plan(ids, [64, 63]).abort()
    with pytest.raises(CacheFull, match="2 tail slots"):
        model.add()
    model.remove(ids[0])
    assert model.add() == ids[0]


def test_a_step_is_finished_before_the_next():
    model = small("kvq-4")
    sequence = model.add()
    step = model.plan([sequence], [1])
    q, k, v = tensors(np.random.default_rng(8), 1)
    with pytest.raises(CacheError, match="not appended"):
        step.attend(0, [q], 1.0)
    with pytest.raises(CacheError, match=r"\[0\]"):
        step.commit()
    with pytest.raises(CacheError, match="open"):
        model.plan([sequence], [1])
    step.append(0, [k], [v])
    with pytest.raises(CacheError, match="once"):
        step.append(0, [k], [v])
    step.commit()
    assert model.length(sequence) == 1


@given(st.sampled_from(CACHES), st.lists(st.integers(0, 400), min_size=1, max_size=3), st.sampled_from(["f32", "bf16"]))
@settings(max_examples=20)
def test_tail_c2_step_c3_byte_formula(cache, lengths, dtype):
    model = CacheModel(cache, layers=2, q_heads=2, kv_heads=1, dk=16, dv=32, dtype=dtype)
    for n in lengths:
        _, k, v = tensors(np.random.default_rng(n), n)
        sequence = model.add()
        if n:
            step = model.plan([sequence], [n])
            for layer in range(2):
                step.append(layer, [k], [v])
            step.commit()
    report = model.report()
    pages = 0
    for sequence in range(len(lengths)):
        packed = max(model.quantized(sequence, 0, which).q.shape[1] for which in "KV")
        held = [model.page(sequence, 1, 0, i) for i in range(-(-packed // model.page_tokens))]
        pages += 2 * sum(p.data.nbytes for p in held)
    cap = text.tail_capacity(text.parse_cache(cache))
    ring = np.zeros((2, len(lengths), cap, 16 + 32), np.float32 if dtype == "f32" else np.uint16)
    assert report["page_bytes_used"] == pages
    assert report["tail_bytes_used"] == ring.nbytes
    assert report["bytes_used"] == pages + ring.nbytes
    assert report["tokens"] == sum(lengths)


def test_pages_hold_what_is_read():
    model = small("k4c32-v2t16/w32,sliding")
    sequence = model.add()
    q, k, v = tensors(np.random.default_rng(9), 170)
    run(model, sequence, q, k, v, [170])
    dense_k, dense_v = model.read(sequence, 0)
    fk, fv = text.frontier(model.cache, 170)
    assert (fk, fv) == (160, 138)
    pages = [model.page(sequence, 0, 0, i) for i in range(3)]
    assert np.array_equal(np.concatenate([p.read("K") for p in pages])[:fk], dense_k[0, :fk])
    assert np.array_equal(np.concatenate([p.read("V") for p in pages])[:fv], dense_v[0, :fv])
    assert np.array_equal(dense_k[:, fk:], k[:, fk:]) and np.array_equal(dense_v[:, fv:], v[:, fv:])


def test_dequantize_c1_reading_a_bf16_cache_rounds():
    model = small("k4c32-v4t32/w0", dtype="bf16")
    sequence = model.add()
    q, k, v = tensors(np.random.default_rng(10), 70)
    run(model, sequence, q, k, v, [70])
    read_k, _ = model.read(sequence, 0)
    came = quantize.round_to(k, "bf16")
    packed = quantize.dequantize(quantize.quantize(came[:, :64], model.pair.k))
    assert np.array_equal(read_k[:, :64], quantize.from_bf16(quantize.to_bf16(packed)))
    assert np.array_equal(read_k[:, 64:], came[:, 64:]) and not np.array_equal(came, k)
