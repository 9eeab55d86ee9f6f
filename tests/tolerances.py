# SPDX-License-Identifier: Apache-2.0
"""All tolerances of the tests, each with the reason for its size. A test compares with one of these or exactly.

Codes, scales, minima, packed bytes and copied rows: bit-equal. docs/format-spec.md fixes every rounding
(quantize_c2), so there is nothing to tolerate.
"""

import numpy as np

F32_ROUNDOFF = 2.0**-24  # half an ulp of a 24-bit significand, relative
BF16_ROUNDOFF = 2.0**-8  # half an ulp of an 8-bit significand, relative
F16_ROUNDOFF = 2.0**-11  # half an ulp of an 11-bit significand, relative; outputs are far above the subnormals
# Rms of an error spread evenly over +- half an ulp.
BF16_ROUNDING_RMS = BF16_ROUNDOFF / 3**0.5
F16_ROUNDING_RMS = F16_ROUNDOFF / 3**0.5

ATTENTION_RMS = {"f32": 1e-3, "bf16": 1e-3 + BF16_ROUNDING_RMS, "f16": 1e-3 + F16_ROUNDING_RMS}
"""Relative rms of o against f64 over the same K', V', by output dtype (attention_c4, class `exact`): the budget of the
arithmetic is 1e-3, plus the rounding of each element to the output's type (f32's own is in the budget)."""

MERGED_RMS = {dtype: 2 * rms for dtype, rms in ATTENTION_RMS.items()}
"""The product's answer over the past, merged in f64 with an exact one over a step's own tokens (prefill_c2): the part
has its own budget, and the error of its lse, within the class's 1e-3 too, moves the weights of both parts."""

PARTIAL_RMS = ATTENTION_RMS["f32"]
"""Partial results are f32 whatever the inputs are (kernel_abi.h): the budget of the arithmetic alone."""

TWO_DEVICES_RMS = 2 * PARTIAL_RMS
"""Two devices against each other: each may use its whole budget, in opposite directions."""

MERGE_RMS = {
    "f32": 64 * F32_ROUNDOFF,
    "bf16": 64 * F32_ROUNDOFF + BF16_ROUNDING_RMS,
    "f16": 64 * F32_ROUNDOFF + F16_ROUNDING_RMS,
}
"""merge alone: per part an exponential of some 16 ulps (its argument is rounded to f32, and exp2 as a polynomial is
accurate to a few ulps), a multiplication and an addition; the parts' errors are independent, so 64 half-ulps cover
the few parts of a test. The output's rounding comes on top."""


def lse_tolerance(lse):
    """Absolute error of lse. lse is a mean of the scores' errors weighted by the probabilities: an error e of all
    scores moves lse by e and the exponentials by the relative error e. Budget of both is that of the class, 1e-3;
    rounding lse itself to f32 and the change of base add a few ulps."""
    return PARTIAL_RMS + 4 * F32_ROUNDOFF * np.abs(np.asarray(lse, np.float64))


def merged_lse_tolerance(lse):
    """lse out of merge alone: exponentials and one logarithm, no products of vectors."""
    return 64 * F32_ROUNDOFF * np.maximum(1.0, np.abs(np.asarray(lse, np.float64)))


def dequantize_bound(values, scale, minimum, bits):
    """Largest |x' - x| in a group (dequantize_c2). values [..., g]; scale and minimum f16 of each group.

    Half a step from rounding to a code; a rounded scale moves the last code by Q * |s - (mx-mn)/Q|; a rounded minimum
    moves all; the f32 operations of both directions (subtract, divide, multiply, add) each lose half an ulp of numbers
    no larger than |minimum| + Q * scale and the group's own values: 8 half-ulps cover them."""
    levels = (1 << bits) - 1
    values = np.asarray(values, np.float64)
    low, high = values.min(-1), values.max(-1)
    scale, minimum = np.asarray(scale, np.float64), np.asarray(minimum, np.float64)
    grid = levels * np.abs(scale - (high - low) / levels) + np.abs(minimum - low)
    size = np.maximum(np.abs(values).max(-1), np.abs(minimum) + levels * scale) + (high - low)
    # Smallest f32 subnormal: below the normal numbers an ulp stops shrinking.
    return scale / 2 + grid + 8 * (F32_ROUNDOFF * size + 2.0**-149)


KL_RELATIVE = 0.05
"""KL to full precision against the fake-quantized attention, relative. Both see the same codes; KL grows with the
square of the deviation, and arithmetic of relative error 1e-3 beside the deviation of 8 bits (about 5e-3, the
smallest) adds (1e-3 / 5e-3)**2 = 4 % at worst; 5 % leaves one for the sampling of positions."""

PERPLEXITY_RELATIVE = 0.005
"""Perplexity against the same, relative: 0.005 nats a token. The signed deviations of single tokens are of the size
sqrt(2 KL), 0.05 at 2 bits, of which the arithmetic contributes a tenth; over a window they cancel further."""

FAKE_QUANTIZED_RMS = 1e-5
"""torch_attention (f32) against attention.py (f64): dot products and sums of some thousand terms in f32, each term
within half an ulp, errors of random sign: sqrt(4096) * 2**-24 is 4e-6, doubled for the two products in a row."""


def relative_rms(actual, expected):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return np.sqrt(np.mean((actual - expected) ** 2)) / np.sqrt(np.mean(expected**2))
