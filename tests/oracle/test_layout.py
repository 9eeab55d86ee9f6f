# SPDX-License-Identifier: Apache-2.0
"""Layouts and pages: hand-worked addresses, KIVI's words, and that pack and unpack are inverses."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvq_oracle import layout, page, quantize, text

KIVI = json.loads((Path(__file__).parents[1] / "golden" / "kivi_words.json").read_text())["words"]
KINDS = [("vnni", 1)] + list(product(["vnni", "kivi", "mma"], [2, 4, 8]))
SHAPES = list(product(KINDS, "KV", [32, 64, 96, 128, 160, 256], [16, 64, 80, 128, 192, 256]))
MMA_SHAPES = list(product([2, 4, 8], "KV", range(32, 257, 32), range(16, 257, 16)))  # all that are legal


def test_layout_c4_the_texts_of_all_profiles():
    make = lambda *args: str(layout.make_layout(*args))
    assert make("vnni", "K", 4, 64, 64) == "[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1"
    assert make("vnni", "K", 2, 128, 80) == "[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:5 tok:2"
    assert make("vnni", "V", 4, 64, 80) == "[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:5 tok:8 ch:1"
    assert make("vnni", "V", 8, 96, 128) == "[tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:24 ch:2"
    assert make("vnni", "K", 1, 128, 80) == "[ch.2 ch.3 tok.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:2 ch:5 tok:2"
    assert make("vnni", "V", 1, 96, 80) == "[tok.2 tok.3 tok.4 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:5 tok:3 ch:1"
    assert make("kivi", "K", 4, 64, 80) == "[tok.0 tok.1 tok.2] tok:8 ch:80"
    assert make("kivi", "V", 2, 64, 80) == "[ch.0 ch.1 ch.2 ch.3] ch:5 tok:64"
    assert make("mma", "K", 4, 128, 128) == "[tok.1 ch.2 ch.0 ch.1 ch.5 ch.3 ch.4 tok.0 tok.3 tok.4 tok.2] ch:2 tok:4"
    assert make("mma", "V", 4, 128, 128) == "[ch.3 tok.2 tok.0 tok.1 tok.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:8 tok:2"
    assert make("mma", "K", 2, 32, 96) == "[tok.1 tok.2 ch.2 ch.0 ch.1 ch.3 ch.4 tok.0 tok.3 tok.4] ch:3 tok:1"
    assert make("mma", "K", 4, 64, 80) == "[tok.1 ch.1 ch.0 tok.2 tok.5 ch.2 ch.3 tok.0 tok.3 tok.4] ch:5 tok:1"
    assert make("mma", "V", 2, 96, 64) == "[ch.3 ch.4 tok.2 tok.0 tok.1 ch.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:1 tok:3"
    assert make("mma", "V", 2, 64, 80) == "[ch.3 tok.1 tok.2 tok.0 tok.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:5 tok:1"
    assert make("mma", "K", 8, 64, 48) == "[ch.1 ch.0 tok.1 tok.2 ch.2 ch.3 tok.0 tok.3 tok.4] ch:3 tok:2"
    assert make("mma", "K", 8, 96, 64) == "[ch.2 ch.0 tok.1 ch.1 ch.3 ch.4 tok.0 tok.3 tok.4 tok.2] ch:2 tok:3"
    assert make("mma", "V", 8, 96, 80) == "[tok.2 tok.0 ch.3 tok.1 tok.3 tok.4 ch.0 ch.1 ch.2] ch:5 tok:3"


@pytest.mark.parametrize("kind, which, tokens, head_dim", SHAPES)
def test_layout_c1_c4_every_profile_is_a_bijection_and_has_one_text(kind, which, tokens, head_dim):
    profile, bits = kind
    made = layout.make_layout(profile, which, bits, tokens, head_dim)
    assert made.addresses().shape == (tokens, head_dim)
    assert layout.parse_layout(str(made)) == made


@pytest.mark.parametrize("bits, which, tokens, head_dim", MMA_SHAPES)
def test_layout_c7_layout_c8_mma_is_whole_fragments_of_each_lane(bits, which, tokens, head_dim):
    """Every code against the sentences of the spec: its lane, its place beside the others of its fragment, its load."""
    table = layout.address_table("mma", which, bits, tokens, head_dim)
    at = table if which == "K" else table.T  # [row, step]
    row, step = np.meshgrid(*map(np.arange, at.shape), indexing="ij")
    word, field = at // (32 // bits), at % (32 // bits)
    run = 4 if which == "K" and head_dim % 32 else 8
    load = word[1, 0] // 4  # words of a lane: the next row is four lanes further
    assert load == 4 or (load in (1, 2) and (tokens % 64 or head_dim % 64))
    if which == "K":  # m.0 m.1 m.2 are tok.0 tok.3 tok.4, m.3 is tok.1
        m, m3 = row % 2 + row // 8 % 4 * 2, 2
    else:
        m, m3 = row % 8, 8
    assert np.array_equal(word // load % 32, m * 4 + step // run % 4)
    # k.0: the same word, 16 bits further.
    assert np.array_equal(word[:, 0::2], word[:, 1::2])
    assert np.array_equal(field[:, 0::2] + 16 // bits, field[:, 1::2])
    # m.3, k.3 and the rest of a run: the same load of the same lane.
    place = word // load
    assert np.array_equal(place, place[row ^ m3, step]) and np.array_equal(place, place[row, step // run * run])
    # Fields of a byte are rows of one step; of too few rows, two steps 2 apart.
    of_byte = np.empty((at.size * bits // 8, 8 // bits), np.int64)
    of_byte[at // (8 // bits), at % (8 // bits)] = step
    mixed = [0, 0, 2, 2] if which == "V" and bits == 2 and head_dim % 32 else [0] * (8 // bits)
    assert (of_byte - of_byte[:, :1] == mixed).all()


def test_layout_c7_example_of_the_spec():
    table = layout.address_table("mma", "K", 4, 128, 128)
    assert [table[token, channel] for channel in (8, 12, 9, 13) for token in (1, 3)] == list(range(160, 168))
    assert [table[1, 8 + more] - 160 for more in (2, 32, 34)] == [8, 16, 24]
    tokens = np.r_[0:4, 8:12, 16:20, 24:28]
    assert sorted(table[tokens, :64].ravel()) == list(range(1024))
    assert [table[4, 0], table[0, 64], table[32, 0]] == [512 * 2, 1024 * 2, 2048 * 2]
    table = layout.address_table("mma", "V", 4, 128, 128)
    assert sorted(table[:64, :16].ravel()) == list(range(1024))
    assert sorted(table[np.r_[8:16, 40:48]][:, [1, 9]].ravel()) == list(range(160, 192))


def test_layout_c6_mma_has_no_three_bits():
    with pytest.raises(layout.LayoutError, match="layout_c6: mma has 2, 4 and 8 bits"):
        layout.plane_tables("mma", "K", 3, 64, 64)
    with pytest.raises(layout.LayoutError, match="layout_c6"):
        layout.make_layout("mma", "K", 1, 64, 64)


def test_layout_c5_the_planes_of_three_bits():
    assert [layout.plane_bits(bits) for bits in (2, 3, 4, 8)] == [(2,), (2, 1), (4,), (8,)]
    low, high = (str(layout.make_layout("vnni", "K", w, 64, 64)) for w in (2, 1))
    assert layout.section_text("vnni", "K", 3, 64, 64) == f"2:{low} + 1:{high}"
    assert layout.section_text("vnni", "K", 2, 64, 64) == low
    codes = np.zeros((64, 64), np.uint8)
    codes[0, 0], codes[17, 9] = 6, 4
    data = layout.pack(codes, layout.plane_tables("vnni", "K", 3, 64, 64))
    assert data.size == 64 * 64 * 3 // 8
    # Code 6 is 2 in the low plane, and 1 in the high one, which begins behind the 1024 bytes of the low; (17, 9) shares
    # its word with token 1: byte 1 of the word, bit 2 for channels 8.., bit 4 for token 17.
    assert np.flatnonzero(data).tolist() == [0, 1024, 1024 + 4 * 1 + 1]
    assert data[[0, 1024, 1029]].tolist() == [2, 1, 1 << (2 + 4)]


def test_layout_c6_kivi_has_no_three_bits():
    with pytest.raises(layout.LayoutError, match="layout_c6"):
        layout.plane_tables("kivi", "K", 3, 64, 64)


@pytest.mark.parametrize("text_form", ["[tok.0 tok.0] tok:16 ch:8", "[tok.1] tok:16 ch:8", "[ch.0 ch.2] tok:4 ch:4"])
def test_layout_c1_refuses_what_is_no_bijection(text_form):
    with pytest.raises(layout.LayoutError, match="not a bijection"):
        layout.parse_layout(text_form).addresses()


@pytest.mark.parametrize(
    "which, bits, token, channel, address",
    [
        ("K", 4, 0, 4, 1),  # the other half of the byte
        ("K", 4, 0, 1, 2),  # the next byte of the word
        ("K", 4, 1, 0, 8),  # the next word: the next token
        ("K", 4, 16, 0, 128),  # the next tile of 16 tokens
        ("K", 4, 0, 8, 512),  # after all 64 tokens the next 8 channels
        ("K", 4, 64, 0, 64 * 64),  # the second panel of tokens
        ("K", 2, 0, 8, 2),
        ("K", 8, 0, 3, 3),
        ("V", 4, 4, 0, 1),
        ("V", 4, 0, 1, 8),
        ("V", 4, 8, 0, 512),
        ("V", 2, 12, 5, 3 + 16 * 5),
        ("K", 1, 16, 0, 4),  # the token 16 further, in the same byte
        ("K", 1, 1, 0, 32),
        ("K", 1, 32, 0, 512),  # the next tile of 32 tokens
        ("K", 1, 0, 16, 1024),
        ("V", 1, 16, 0, 4),
        ("V", 1, 31, 3, 31 + 32 * 3),
    ],
)
def test_vnni_addresses_worked_by_hand(which, bits, token, channel, address):
    assert layout.address_table("vnni", which, bits, 128, 64)[token, channel] == address


@pytest.mark.parametrize("case", KIVI, ids=lambda case: case["word"])
@pytest.mark.parametrize("which", ["K", "V"])
def test_kivi_words(case, which):
    """methods 1.2: LSB first, along tokens for K, along channels for V; words of one channel (token) follow."""
    tokens, head_dim, bits, line = 64, 80, case["bits"], case["line"]
    codes = np.zeros((tokens, head_dim), np.uint8)
    at = len(line)  # the second word of channel 3 (K) or of token 3 (V)
    if which == "K":
        codes[at : 2 * at, 3] = line
    else:
        codes[3, at : 2 * at] = line
    words = layout.pack(codes, layout.plane_tables("kivi", which, bits, tokens, head_dim)).view("<u4")
    words_a_line = (tokens if which == "K" else head_dim) * bits // 32
    assert words[3 * words_a_line + 1] == int(case["word"], 16)
    assert np.count_nonzero(words) == 1


@given(
    st.sampled_from([kind for kind in KINDS if kind[1] > 1] + [("vnni", 3)]),
    st.sampled_from("KV"), st.sampled_from([32, 64, 96]), st.sampled_from([16, 64, 80]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_layout_c3_pack_and_unpack_are_inverses(kind, which, tokens, head_dim, seed):
    rng, (profile, bits) = np.random.default_rng(seed), kind
    planes = layout.plane_tables(profile, which, bits, tokens, head_dim)
    codes = rng.integers(0, 1 << bits, (tokens, head_dim), np.uint8)
    data = layout.pack(codes, planes)
    assert data.size == tokens * head_dim * bits // 8
    assert np.array_equal(layout.unpack(data, planes), codes)
    noise = rng.integers(0, 256, data.size, np.uint8)
    assert np.array_equal(layout.pack(layout.unpack(noise, planes), planes), noise)


def test_layout_c2_codes_are_little_endian():
    table = np.arange(8).reshape(1, 8)
    assert layout.pack([[1, 2, 3, 0, 0, 0, 0, 1]], [(2, table)]).tolist() == [0b00111001, 0b01000000]
    assert layout.pack([[1, 2, 3, 0, 0, 0, 0, 15]], [(4, table)]).tolist() == [0x21, 0x03, 0x00, 0xF0]
    planes = [(2, table), (1, table)]
    assert layout.pack([[1, 6, 3, 0, 0, 0, 0, 5]], planes).tolist() == [0b00111001, 0b01000000, 0b10000010]


@pytest.mark.parametrize("pair", ["k4c32-v4t32", "k2t16-v8c64", "k8c64-v2t80", "k8th-v4th", "k3c32-v3t16"])
@pytest.mark.parametrize("profile", ["vnni", "kivi", "mma"])
def test_page_c3_sections_hold_codes_and_coefficients(pair, profile):
    pair, tokens, head_dim = text.parse_pair(pair).at(80, 80), 64, 80
    if profile != "vnni" and pair.k.bits == 3:
        return
    if not pair.v.per_channel and head_dim % pair.v.group:
        head_dim = 64
    rng = np.random.default_rng(7)
    rows = {which: rng.standard_normal((tokens, head_dim)).astype(np.float32) for which in "KV"}
    made = page.Page(pair, tokens, head_dim, head_dim, profile)
    made.data[:] = page.build_page(pair, tokens, rows["K"], rows["V"], head_dim, head_dim, profile)
    for which in "KV":
        side = pair.side(which)
        expected = quantize.quantize(rows[which], side)
        assert np.array_equal(made.codes(which), expected.q)
        scales = made.section(which, "scale").view(np.float16)
        if side.per_channel:  # [P/g][D]
            assert np.array_equal(scales.reshape(-1, head_dim), expected.s[:: side.group])
        else:  # [D/g][P]
            assert np.array_equal(scales.reshape(-1, tokens), expected.s[:, :: side.group].T)
        assert np.array_equal(made.read(which), quantize.dequantize(expected))


@given(st.integers(0, 2**32 - 1), st.integers(1, 63))
def test_a_page_written_in_pieces_equals_one_written_at_once(seed, cut):
    rng = np.random.default_rng(seed)
    k, v = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    pieces = page.Page("k2c32-v4t32", 64, 64, 64)
    pieces.write("V", cut, v[cut:])
    pieces.write("K", 32, k[32:])
    pieces.write("V", 0, v[:cut])
    pieces.write("K", 0, k[:32])
    assert np.array_equal(pieces.data, page.build_page("k2c32-v4t32", 64, k, v, 64, 64))


def test_writing_leaves_other_bytes_alone():
    rng = np.random.default_rng(3)
    made = page.Page("k4c32-v2t32", 64, 64, 64)
    made.data[:] = rng.integers(0, 256, made.data.size, np.uint8)
    before = made.data.copy()
    codes = made.codes("V").copy()
    made.write("V", 5, rng.standard_normal((3, 64)).astype(np.float32))
    changed = made.codes("V") != codes
    assert changed[5:8].any() and not changed[:5].any() and not changed[8:].any()
    begin, _ = made.map["V", "codes"]
    assert np.array_equal(made.data[:begin], before[:begin])
    scales = made.section("V", "scale").view(np.float16).reshape(2, 64)
    old = before[made.map["V", "scale"][0] :][:256].view(np.uint16).reshape(2, 64)
    assert np.array_equal(scales.view(np.uint16)[:, :5], old[:, :5])
    assert np.array_equal(scales.view(np.uint16)[:, 8:], old[:, 8:])
