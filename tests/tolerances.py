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

CLASSES = ("full", "exact", "normal", "fast")

# By class and kind of values, for narrower widths of 8, of 4 and 3, and of 2 bits.
_BUDGETS = {
    "full": dict.fromkeys(("ordinary", "dominant", "outliers", "extreme"), (1e-4, 1e-4, 1e-4)),
    "exact": {
        "ordinary": (1e-3, 1e-3, 1e-3),
        "dominant": (1e-3, 1e-3, 1e-3),
        "outliers": (1e-3, 1e-3, 1e-3),
        "extreme": (3e-3, 3e-3, 3e-3),
    },
    "normal": {
        "ordinary": (1.5e-3, 1.5e-2, 6e-2),
        "dominant": (1.5e-3, 1.5e-2, 6e-2),
        "outliers": (1.5e-3, 4e-2, 6e-2),
        "extreme": (3e-3, 2e-1, 2e-1),
    },
    "fast": {
        "ordinary": (3e-2, 3e-2, 6e-2),
        "dominant": (6e-2, 6e-2, 6e-2),
        "outliers": (6e-2, 6e-2, 6e-2),
        "extreme": (2e-1, 2e-1, 2e-1),
    },
}


def budget(accuracy, bits, values="ordinary"):
    """Relative rms of o in f32 against f64 over the same K', V', that an accuracy class allows (attention_c4).

    bits: of the narrower of K and V. values: "ordinary"; "dominant", where one token outweighs the others of its tile;
    "outliers", some channels of K ten times larger and biased; "extreme", scores of tens.
    - `full`: sums of some thousand terms in f32: 1e-6 to 1e-5.
    - `exact`: sums of some thousand terms in f32, and 16-bit coefficients, stay below 1e-4; a tenth of 8 bits' own
      error, 1.5e-2, is not to be seen. A coefficient is rounded in proportion to the largest of its set: with scores
      of tens, 2**-16 of the largest times sqrt(D) codes moves a score by 1e-3.
    - `normal`: a tenth of the error that quantizing makes, 1.5e-2 at 8 bits, 1.5e-1 at 4, 6.6e-1 at 2. Of 8-bit
      coefficients of q beside 16-bit ones of p, 9.5e-3, it has room from 4 bits down. Where outliers set the factor it
      is a quarter of that error, which adds a sixteenth to the squared deviation (test_accuracy_c1_keeps_the_budget:
      2.6e-2 of at most 4e-2); with scores of tens, 8 bits leave of a score what 16 do of one 256 times as large.
    - `fast`: 8-bit coefficients of both make 1.2e-2 over ordinary values; 2.5 times that leaves room for channels of
      unequal size, which share one factor, and 5 times for outliers. A probability of 1 in its tile leaves the others
      1/255 as their step, and whatever of them is below half of it is lost: 3e-2 by the model of the arithmetic, whose
      codes are centred; without a centre of the same rounded coefficients it is 15e-2.
    """
    return _BUDGETS[accuracy][values][{8: 0, 4: 1, 3: 1, 2: 2}[bits]]


EXACT = budget("exact", 8)

def over_rows(arithmetic, rows):
    """A budget for the rms over so few rows of attention. How much of its budget a row uses depends on its query: by the
    model of the arithmetic up to four times the mean of many rows, which falls with their root; from 16 rows on the
    budget itself holds. `full` and `exact` use a tenth of their budgets and need no room."""
    return arithmetic if arithmetic <= EXACT else arithmetic * max(1.0, 4 / rows**0.5)


_ROUNDING_RMS = {"f32": 0.0, "bf16": BF16_ROUNDING_RMS, "f16": F16_ROUNDING_RMS}


def attention_rms(dtype, arithmetic=EXACT):
    """Relative rms of o by output dtype: the budget of the arithmetic, plus the rounding of each element to the
    output's type (f32's own is in the budget)."""
    return arithmetic + _ROUNDING_RMS[dtype]


def merged_rms(dtype, arithmetic=EXACT):
    """The product's answer over the past, merged in f64 with an exact one over a step's own tokens (prefill_c2): the
    part has its own budget, and the error of its lse, within the class's too, moves the weights of both parts."""
    return 2 * attention_rms(dtype, arithmetic)


def two_devices_rms(arithmetic=EXACT):
    """A device against device ref, whose arithmetic is f32 in every class: each may use its whole budget, in opposite
    directions."""
    return arithmetic + EXACT

MERGE_RMS = {
    "f32": 64 * F32_ROUNDOFF,
    "bf16": 64 * F32_ROUNDOFF + BF16_ROUNDING_RMS,
    "f16": 64 * F32_ROUNDOFF + F16_ROUNDING_RMS,
}
"""merge alone: per part an exponential of some 16 ulps (its argument is rounded to f32, and exp2 as a polynomial is
accurate to a few ulps), a multiplication and an addition; the parts' errors are independent, so 64 half-ulps cover
the few parts of a test. The output's rounding comes on top."""


def lse_tolerance(lse, arithmetic=EXACT, scores=1.0):
    """Absolute error of lse. lse is a mean of the scores' errors weighted by the probabilities: an error e of all
    scores moves lse by e and the exponentials by the relative error e. Budget of both is that of the class, as an rms
    over rows; here each row is looked at, and of some thousand rows with errors of random sign none is beyond four
    times the rms. `exact` needs no such room: its arithmetic uses a tenth of the budget. scores: their rms in each
    row; the rounding of coefficients is relative to them, and budgets are for scores of about 1. Rounding lse itself
    to f32 and the change of base add a few ulps."""
    rows = 1 if arithmetic == EXACT else 4
    return rows * arithmetic * np.maximum(1.0, scores) + 4 * F32_ROUNDOFF * np.abs(np.asarray(lse, np.float64))


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


def logits_rms(arithmetic, quantizing):
    """Relative rms of the logits of a tiny model of two layers against the oracle's in the same format; quantizing:
    that of the oracle's against full precision. o of each layer has the budget of the arithmetic, which the layers
    behind it may double. And it moves the values that the next layer quantizes: off by a part d of a code's step, it
    flips a code with the probability d, which then is off by a whole step; squared, d steps instead of d * d: the
    geometric mean of the two errors. Measured with noise of the budgets' size added to o: 0.5 to 0.9 of this."""
    return 4 * arithmetic + (arithmetic * quantizing) ** 0.5


CLASS_KL = 0.05
"""KL to full precision of SmolLM2 in class `normal`, above that in `exact`, relative: an error of a tenth of quantizing's
adds a hundredth to the squared deviation, of a fifth, as outlier channels make it, a twenty-fifth."""

KL_RELATIVE = 0.05
"""KL to full precision against the fake-quantized attention, relative. Both see the same codes; KL grows with the
square of the deviation, and arithmetic of relative error 1e-3 beside the deviation of 8 bits (about 5e-3, the
smallest) adds (1e-3 / 5e-3)**2 = 4 % at worst; 5 % leaves one for the sampling of positions."""


def perplexity_relative(kl, tokens):
    """Perplexity against the same over so many tokens, relative. The signed deviations of single tokens are of the size
    sqrt(2 KL), of which the arithmetic contributes a tenth, through codes that fall to the other side of a rounding;
    their mean is smaller by the root of the number of tokens. Four standard deviations of it."""
    return 4 * 0.1 * (2 * kl) ** 0.5 / tokens**0.5


FAKE_QUANTIZED_RMS = 1e-5
"""torch_attention (f32) against attention.py (f64): dot products and sums of some thousand terms in f32, each term
within half an ulp, errors of random sign: sqrt(4096) * 2**-24 is 4e-6, doubled for the two products in a row."""


def dot_bound(absolute, terms):
    """Absolute error of an f32 sum of `terms` products, whose absolute values sum to `absolute`, whatever the order and
    with the tensor cores' way too, which cuts addends off below 24 bits of the largest. Each of the terms' additions and
    of one more for every 16 (the accumulator of an mma) loses at most 2**-23 of what the sum can be."""
    return 2 * F32_ROUNDOFF * (terms + terms / 16 + 1) * np.asarray(absolute, np.float64)


HALF_WEIGHTS_RMS = 4 * F16_ROUNDING_RMS
"""Relative rms of a row of attention whose weights are rounded to f16 before they multiply V, everything else being f32:
that rounding moves each term of o by F16_ROUNDING_RMS of itself; a row whose terms cancel may be a few times as far off
as the mean of rows (over_rows)."""


def weights_log_tolerance(log_sum, absolute, terms):
    """Absolute error of log2 of the sum of f32 weights: scores as dot_bound says of them; exponentials of a few ulps
    (2 of the hardware's, 2 more where the simulator disturbs them) and a sum of positive numbers: 64 half-ulps."""
    return dot_bound(absolute, terms) + 64 * F32_ROUNDOFF * np.maximum(1.0, np.abs(np.asarray(log_sum, np.float64)))


def combine_bound(o, absolute, parts):
    """Absolute error of joined parts in f16: weights of 64 half-ulps (see above), a sum in f32, the rounding to f16."""
    return (F16_ROUNDOFF * np.abs(o) + 2.0**-25 + 64 * F32_ROUNDOFF * np.asarray(absolute, np.float64)
            + dot_bound(absolute, parts))


def relative_rms(actual, expected):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return np.sqrt(np.mean((actual - expected) ** 2)) / np.sqrt(np.mean(expected**2))
