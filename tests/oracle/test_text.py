# SPDX-License-Identifier: Apache-2.0
"""The oracle's texts, pages and frontiers against figures worked out by hand from docs/format-spec.md."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvq_oracle import text


def sides():
    widths = st.sampled_from([2, 3, 4, 8])
    channel = st.builds(text.Side, widths, st.just("c"), st.sampled_from([32, 64, 128, 256]))
    token = st.builds(text.Side, widths, st.just("t"), st.sampled_from(["h", *range(16, 257, 16)]))
    return st.one_of(channel, token)


def pairs():
    return st.builds(text.Pair, sides(), sides())


@given(pairs(), st.integers(0, 65536), st.integers(0, 1024))
def test_text_c5_c8_canonical_texts_return(pair, window, keep):
    canonical = f"{pair}/w{window},keep{keep},block" if keep else f"{pair}/w{window},block"
    assert str(text.parse_cache(canonical)) == canonical
    assert text.parse_cache(canonical).keep == keep


@pytest.mark.parametrize(
    "short, canonical",
    [
        ("k4c32-v4t32", "k4c32-v4t32/w128,block"),
        ("k8t256-v2c128/w0", "k8t256-v2c128/w0,block"),
        ("k2c32-v2t16/w96,sliding", "k2c32-v2t16/w96,sliding"),
        ("k4c32-v4t32/w64,flush", "k4c32-v4t32/w64,flush"),
        ("k4t32-v4t32/w0,flush", "k4t32-v4t32/w0,flush"),
        ("k4c32-v4t32/w128,keep4", "k4c32-v4t32/w128,keep4,block"),
        ("k4c32-v4t32/w128,keep0,sliding", "k4c32-v4t32/w128,sliding"),
        ("k4c32-v4t32/w128,keep1024,flush", "k4c32-v4t32/w128,keep1024,flush"),
        ("kivi-2", "k2c32-v2t32/w128,sliding"),
        ("kivi-4", "k4c32-v4t32/w128,sliding"),
        ("kvq-8", "k8c32-v8t32/w128,block"),
        ("kvq-4", "k4c32-v4t32/w128,block"),
        ("kvq-k4v2", "k4c32-v2t32/w128,block"),
        ("kvq-3", "k3c32-v3t32/w128,block"),
        ("kvq-2", "k2c32-v2t32/w128,block"),
        ("k8th-v8th", "k8th-v8th/w128,block"),
        ("k3c256-v4th/w256,sliding", "k3c256-v4th/w256,sliding"),
    ],
)
def test_text_c3_c6_defaults_and_presets(short, canonical):
    assert str(text.parse_cache(short)) == canonical


@pytest.mark.parametrize(
    "wrong, names",
    [
        ("", "pair"),
        ("kivi-3", "pair"),
        ("k4c32", "pair"),
        ("v4t32-k4c32", "pair"),
        ("k5c32-v4t32", "K's width is '5'"),
        ("k4ch-v4t32", "K's group is 'h'"),
        ("k4c32-v4tH", "'H' left over"),
        ("k4c32-v4t32h", "'h' left over"),
        ("k4x32-v4t32", "K's axis is 'x'"),
        ("k4c-v4t32", "K's group is ''"),
        ("k4c032-v4t32", "K's group is '032'"),
        ("k4c16-v4t32", "K's group is 16"),
        ("k4c512-v4t32", "K's group is 512"),
        ("k4c32-v4t24", "V's group is 24"),
        ("k4c32-v4t272", "V's group is 272"),
        ("k4c32-v4t0", "V's group is 0"),
        ("k4c32-v4t32x", "'x' left over"),
        ("k4c32-v4t32\n", "left over"),
        ("k4c32-v4t32/", "policy is ''"),
        ("k4c32-v4t32/128", "policy is '128'"),
        ("k4c32-v4t32/w", "window is ''"),
        ("k4c32-v4t32/w-1", "window is '-1'"),
        ("k4c32-v4t32/w65537", "window is 65537"),
        ("k4c32-v4t32/w128,", "rule is ''"),
        ("k4c32-v4t32/w128,flushed", "rule is 'flushed'"),
        ("k4c32-v4t32/w0,sliding", "window is 0"),
        ("k4c32-v4t32/w0,flush", "window is 0"),
        ("k4c32-v4t32/w48,flush", "K's group is 32"),
        ("k4t32-v4c64/w96,flush", "V's group is 64"),
        ("k4c32-v4t32/w128,keep", "keep is ''"),
        ("k4c32-v4t32/w128,keep04", "keep is '04'"),
        ("k4c32-v4t32/w128,keep1025", "keep is 1025"),
        ("k4c32-v4t32/w128,block,keep4", "rule is 'block,keep4'"),
        ("k4c32-v4t32/w128,keep4,keep4", "rule is 'keep4'"),
        ("k4t32-v4t32/w128,sliding", "K is '4t32'"),
        ("k4c64-v4t32/w96,sliding", "K's group is 64"),
        ("k4c32-v4c32/w128,sliding", "V is '4c32'"),
    ],
)
def test_text_c7_refused_by_name(wrong, names):
    with pytest.raises(text.FormatError) as error:
        text.parse_cache(wrong)
    assert names in str(error.value)
    assert str(error.value).count(".") >= 1 and str(error.value).endswith(".")


@pytest.mark.parametrize(
    "pair, legal, default",
    [
        ("k4c32-v4t32", list(range(32, 257, 32)), 64),
        ("k4t32-v4t32", list(range(32, 257, 32)), 64),
        ("k4c64-v4c32", [64, 128, 192, 256], 64),
        ("k4c32-v4c128", [128, 256], 128),
        ("k4c256-v4th", [256], 256),
    ],
)
def test_page_c1_legal_sizes(pair, legal, default):
    pair = text.parse_pair(pair)
    assert text.legal_page_tokens(pair) == legal
    assert text.default_page_tokens(pair) == default


@given(pairs())
def test_page_c1_every_group_divides_every_legal_page(pair):
    for tokens in text.legal_page_tokens(pair):
        assert tokens % 16 == 0 and 32 <= tokens <= 256 and tokens % text.commit_group(pair) == 0
        assert all(tokens % side.group == 0 for side in (pair.k, pair.v) if side.per_channel)


@pytest.mark.parametrize(
    "pair, dk, dv, tokens, names",
    [
        ("k4t32-v4t32", 80, 64, 64, "K's group is 32"),
        ("k4c32-v4t128", 64, 64, 64, "V's group is 128"),
        ("k4c32-v4t16", 72, 64, 64, "K's head size is 72"),
        ("k4c32-v4t16", 64, 272, 64, "V's head size is 272"),
        ("k4c64-v4t16", 64, 64, 96, "page_tokens is 96"),
        ("k4c32-v4t16", 64, 64, 288, "page_tokens is 288"),
    ],
)
def test_text_c2_page_c1_shapes_refused(pair, dk, dv, tokens, names):
    with pytest.raises(text.FormatError, match=names):
        text.check_shape(text.parse_pair(pair), dk, dv, tokens)


def test_text_c9_whole_heads_become_numbers():
    pair = text.parse_pair("k8th-v4th")
    assert str(pair.at(80, 256)) == "k8t80-v4t256" and pair.at(80, 256).at(16, 16) == pair.at(80, 256)
    assert text.page_map(pair, 64, 80, 256) == text.page_map(text.parse_pair("k8t80-v4t256"), 64, 80, 256)
    text.check_shape(pair, 80, 256, 64)


def test_page_c2_c5_three_bits_worked_by_hand():
    # 64 tokens, D 64, 3 bits: 1024 bytes of low bits, 512 of high ones; scales and minima as with any width.
    sections = text.page_map(text.parse_pair("k3c32-v3t32"), 64, 64, 64)
    assert [sections["K", name] for name in ("codes", "scale", "min")] == [(0, 1536), (1536, 256), (1792, 256)]
    assert text.bits_per_element(text.parse_pair("k3c32-v3t32"), 64, 64, 64) == 4.0


def test_page_c2_sections_worked_by_hand():
    # 64 tokens, D 64, 4 bits: 2048 bytes of codes; K: 2 groups x 64 channels x 2 bytes; V: 4 groups x 64 tokens x 2.
    sections = text.page_map(text.parse_pair("k4c32-v4t16"), 64, 64, 64)
    assert [sections["K", name] for name in ("codes", "scale", "min")] == [(0, 2048), (2048, 256), (2304, 256)]
    assert [sections["V", name] for name in ("codes", "scale", "min")] == [(2560, 2048), (4608, 512), (5120, 512)]
    assert sections["bytes"] == 5632


def test_page_c2_sections_are_aligned():
    # D 80 in one group per token: 32 scales are 64 bytes, 96 are 192; codes 2 bits: 32 * 80 / 4 = 640.
    sections = text.page_map(text.parse_pair("k2t80-v2c32"), 32, 80, 80)
    assert sections["K", "min"] == (704, 64)
    assert sections["V", "scale"] == (1408, 160)
    assert sections["V", "min"] == (1600, 160)
    assert sections["bytes"] == 1792


@given(pairs(), st.sampled_from([64, 80, 96, 128, 256]), st.sampled_from([64, 80, 128]))
def test_page_c2_sections_do_not_overlap(pair, dk, dv):
    tokens = text.default_page_tokens(pair)
    try:
        text.check_shape(pair, dk, dv, tokens)
    except text.FormatError:
        return
    sections = text.page_map(pair, tokens, dk, dv)
    ordered = [sections[which, name] for which in "KV" for name in ("codes", "scale", "min")]
    ends = [begin + size for begin, size in ordered]
    assert all(begin % 64 == 0 for begin, _ in ordered) and sections["bytes"] % 64 == 0
    assert all(0 <= begin - end < 64 for end, (begin, _) in zip(ends, ordered[1:] + [(sections["bytes"], 0)]))


@pytest.mark.parametrize(
    "pair, bits", [("k4c32-v4t32", 5.0), ("k2c32-v2t32", 3.0), ("k8c32-v8t32", 9.0), ("k4c128-v4t64", 4.375)]
)
def test_page_c5_bits_an_element(pair, bits):
    pair = text.parse_pair(pair)
    assert text.bits_per_element(pair, text.default_page_tokens(pair), 64, 64) == bits


@pytest.mark.parametrize(
    "cache, tokens, expected",
    [
        ("k4c32-v4t32/w128,block", 0, (0, 0)),
        ("k4c32-v4t32/w128,block", 159, (0, 0)),
        ("k4c32-v4t32/w128,block", 160, (32, 32)),
        ("k4c64-v4t32/w100,block", 228, (128, 128)),
        ("k4c64-v4t32/w100,block", 227, (64, 64)),
        ("k4t32-v4t32/w0,block", 31, (0, 0)),
        ("k4t32-v4t32/w0,block", 32, (32, 32)),
        ("k4c32-v4t32/w128,sliding", 127, (0, 0)),
        ("k4c32-v4t32/w128,sliding", 128, (128, 0)),
        ("k4c32-v4t32/w128,sliding", 129, (128, 1)),
        ("k4c32-v4t32/w128,sliding", 300, (256, 172)),
        ("k4c32-v4t32/w128,sliding", 384, (384, 256)),
        ("k4c32-v4t32/w96,sliding", 200, (192, 104)),
        ("k4c32-v4t32/w96,flush", 95, (0, 0)),
        ("k4c32-v4t32/w96,flush", 96, (96, 96)),
        ("k4c32-v4t32/w96,flush", 200, (192, 192)),
        ("k4t32-v4t32/w0,flush", 7, (7, 7)),
        ("k4t32-v4t32/w5,flush", 14, (10, 10)),
        ("k4c32-v4t32/w128,keep10,block", 10, (0, 0)),
        ("k4c32-v4t32/w128,keep10,block", 169, (0, 0)),
        ("k4c32-v4t32/w128,keep10,block", 170, (32, 32)),
        ("k4c32-v4t32/w96,keep4,sliding", 204, (192, 104)),
    ],
)
def test_commit_c2_c3_frontiers(cache, tokens, expected):
    assert text.frontier(text.parse_cache(cache), tokens) == expected


def test_commit_c6_kivi_state_machine():
    """methods 1.3, 9: T = 300, R = 128 leaves 44 tokens of K and 128 of V; 84 steps later K's window is empty."""
    cache = text.parse_cache("kivi-2")
    left = lambda n: tuple(n - f for f in text.frontier(cache, n))
    assert left(300) == (44, 128)
    assert [left(n) for n in range(381, 386)] == [(125, 128), (126, 128), (127, 128), (0, 128), (1, 128)]


@given(pairs(), st.integers(0, 300), st.integers(0, 2000))
def test_commit_c5_tail_c1_block_windows_fit_the_ring(pair, window, tokens):
    cache = text.Cache(pair, window, "block")
    now, later = text.frontier(cache, tokens), text.frontier(cache, tokens + 1)
    assert later[0] >= now[0] and later[1] >= now[1]
    assert tokens + text.CHUNK_TOKENS - now[0] <= text.tail_capacity(cache)
    assert tokens - now[0] >= min(window, tokens)


@given(pairs(), st.integers(0, 300), st.integers(0, 2000))
def test_commit_c8_tail_c1_flush_windows_fit_the_ring(pair, window, tokens):
    window = window // 256 * 256 if pair.k.per_channel or pair.v.per_channel else window
    if window == 0 and (pair.k.per_channel or pair.v.per_channel):
        window = 256
    cache = text.parse_cache(f"{pair}/w{window},flush")
    now, later = text.frontier(cache, tokens), text.frontier(cache, tokens + 1)
    assert later[0] - now[0] in (0, max(window, 1))
    assert 0 <= tokens - now[0] < max(window, 1)
    assert tokens + text.CHUNK_TOKENS - now[0] <= text.tail_capacity(cache)


@given(st.sampled_from([32, 64, 96, 128, 192]), st.integers(0, 2000))
def test_commit_c5_tail_c1_sliding_windows_fit_the_ring(window, tokens):
    cache = text.parse_cache(f"k4c32-v4t32/w{window},sliding")
    fk, fv = text.frontier(cache, tokens)
    assert text.frontier(cache, tokens + 1) >= (fk, fv)
    assert fv <= fk
    assert tokens + text.CHUNK_TOKENS - min(fk, fv) <= text.tail_capacity(cache)


@pytest.mark.parametrize(
    "cache, capacity, rows",
    [
        ("kvq-4", 192, 192),
        ("kivi-4", 160, 160),
        ("k4c128-v4t32/w100", 272, 272),
        ("k4t32-v4t32/w0", 64, 64),
        ("k4t32-v4t32/w0,flush", 48, 48),
        ("k4c32-v4t32/w64,flush", 96, 96),
        ("k4c32-v4t32/w64,keep1,flush", 96, 112),
        ("k4t32-v4t32/w0,keep16", 64, 80),
    ],
)
def test_tail_c1_capacity(cache, capacity, rows):
    assert text.tail_capacity(text.parse_cache(cache)) == capacity
    assert text.tail_rows(text.parse_cache(cache)) == rows


@pytest.mark.parametrize(
    "cache, units",
    [
        ("k4c32-v4t16/w0", (32, 32)),
        ("k4t16-v4t16/w0", (32, 32)),
        ("k4c64-v4c128/w0", (128, 128)),
        ("k4c64-v4t16/w64,sliding", (64, 1)),
        ("k4c64-v4c32/w64,flush", (64, 64)),
        ("k4t16-v4t16/w5,flush", (1, 1)),
    ],
)
def test_crop_c1_cut_units(cache, units):
    assert tuple(text.cut_unit(text.parse_cache(cache), which) for which in "KV") == units


def test_tail_c2_bytes_worked_by_hand():
    # A page of k4c32-v4t32, 64 tokens, D 64: 2 * (2048 + 256 + 256) = 5120 bytes. The ring: 192 tokens of 128 floats.
    cache = text.parse_cache("kvq-4")
    assert text.page_bytes(cache.pair, 64, 64, 64) == 5120
    assert text.cache_bytes(cache, 30, 3, 64, 64, "f32", 64, 10, 2) == 90 * (10 * 5120 + 2 * 192 * 128 * 4)
    assert text.cache_bytes(cache, 30, 3, 64, 64, "bf16", 64, 10, 2) == 90 * (10 * 5120 + 2 * 192 * 128 * 2)
