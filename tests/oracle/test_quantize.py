# SPDX-License-Identifier: Apache-2.0
"""Quantizing against exact arithmetic (tests/golden), hand-worked corners and the error bound of dequantize_c2."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tolerances
from kvq_oracle import quantize
from kvq_oracle.text import Side

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "quantize.json").read_text())


def from_hex(words, dtype):
    return np.array([int(word, 16) for word in words], np.dtype(f"u{np.dtype(dtype).itemsize}")).view(dtype)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_quantize_c2_golden(case):
    codes, scale, minimum = quantize.quantize_groups(from_hex(case["x_f32"], np.float32), case["bits"])
    assert codes.tolist() == case["codes"]
    assert f"{scale.view(np.uint16):04x}" == case["scale_f16"]
    assert f"{minimum.view(np.uint16):04x}" == case["min_f16"]


def test_quantize_c2_ties_go_to_even():
    # Step 1, minimum 0: 0.5 1.5 2.5 are ties.
    codes, scale, minimum = quantize.quantize_groups(np.float32([0, 0.5, 1.5, 2.5, 3]), 2)
    assert (float(scale), float(minimum)) == (1.0, 0.0)
    assert codes.tolist() == [0, 0, 2, 2, 3]


def test_quantize_c2_negative_zero_becomes_positive():
    _, _, minimum = quantize.quantize_groups(np.float32([-0.0] * 32), 4)
    assert minimum.view(np.uint16) == 0


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("value", [0.0, -3.25, 65504.0, 2.0**-24])
def test_quantize_c4_constant_group(bits, value):
    side = Side(bits, "t", 32)
    result = quantize.quantize(np.full((3, 32), value, np.float32), side)
    assert not result.q.any() and not result.s.any()
    assert np.array_equal(quantize.dequantize(result), np.full((3, 32), value, np.float32))


def test_quantize_c5_largest_scale():
    _, scale, _ = quantize.quantize_groups(np.float32([-65504, 65504]), 2)
    assert np.isfinite(scale) and float(scale) == float(np.float16(131008 / 3))


def test_quantize_c2_subnormal_scale_is_kept():
    codes, scale, _ = quantize.quantize_groups(np.float32([0, 2.0**-24, 2.0**-23, 3 * 2.0**-24]), 2)
    assert scale.view(np.uint16) == 1
    assert codes.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "value, bad", [(65504, False), (65505, True), (np.nan, True), (np.inf, True), (2.0**-149, False)]
)
def test_quantize_c1_bad_values(value, bad, sign):
    assert quantize.bad_values(np.float32([sign * value]))[0] == bad


def groups(size):
    wide = st.floats(-65504, 65504, width=32)
    return hnp.arrays(np.float32, (3, size), elements=st.one_of(wide, st.floats(-1, 1, width=32)))


@given(groups(32), st.sampled_from([2, 3, 4, 8]))
def test_dequantize_c2_error_bound(x, bits):
    result = quantize.quantize(x, Side(bits, "t", 32))
    bound = tolerances.dequantize_bound(x, result.s[:, 0], result.m[:, 0], bits)[:, None]
    assert (np.abs(quantize.dequantize(result).astype(np.float64) - x) <= bound).all()
    assert (result.q <= (1 << bits) - 1).all()


@given(groups(32))
def test_dequantize_c1_two_roundings(x):
    """f32 against f64: two roundings of half an ulp each, no more."""
    result = quantize.quantize(x, Side(8, "t", 32))
    exact = quantize.dequantize64(result)
    product = result.q.astype(np.float64) * result.s.astype(np.float64)
    bound = tolerances.F32_ROUNDOFF * (np.abs(product) + np.abs(exact)) * (1 + 2.0**-20)
    assert (np.abs(quantize.dequantize(result) - exact) <= bound).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_text_c1_axes_are_each_others_transposes(bits):
    x = np.random.default_rng(bits).standard_normal((2, 64, 64)).astype(np.float32)
    by_channel = quantize.quantize(x, Side(bits, "c", 32))
    by_token = quantize.quantize(np.swapaxes(x, 1, 2), Side(bits, "t", 32))
    for name in "qsm":
        assert np.array_equal(getattr(by_channel, name), np.swapaxes(getattr(by_token, name), 1, 2))
    # A group is 32 tokens of one channel: they share a scale, and the next channel has another.
    assert (by_channel.s[0, :32] == by_channel.s[0, :1]).all()
    assert by_channel.s[0, 0, 0] != by_channel.s[0, 0, 1] and by_channel.s[0, 0, 0] != by_channel.s[0, 32, 0]


def test_bf16_rounds_to_nearest_even():
    words = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x80000000, 0x7F7FFFFF, 0x7F800001], np.uint32)
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x8000, 0x7F80, 0x7FC0]
    assert quantize.to_bf16(words.view(np.float32)).tolist() == expected


@given(st.integers(0, 0xFFFF))
def test_bf16_values_return(bits):
    value = quantize.from_bf16(np.uint16([bits]))
    again = quantize.to_bf16(value)
    assert np.isnan(value[0]) or again[0] == bits
