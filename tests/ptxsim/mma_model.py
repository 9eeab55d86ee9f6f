# SPDX-License-Identifier: Apache-2.0
"""Models of how a tensor core adds: all addends aligned to the largest exponent, cut, summed, rounded once.

They find out what a GPU's golden results are made of; the simulator has modes of its own.
"""
import numpy as np

import float_bits
import form_draw
import mma_bound

LOWEST = -100000  # the exponent of a zero: never the largest


def parts(element, values):
    """(significand as a signed integer, exponent of its last bit, exponent of its leading position)."""
    exponent, mantissa = form_draw.FLOATS[element]
    bias = (1 << (exponent - 1)) - 1
    finite = np.where(np.isfinite(values), values, 0)
    power = np.maximum(np.frexp(finite)[1] - 1, 1 - bias)
    significand = np.ldexp(finite, mantissa - power).astype(np.int64)
    return significand, power - mantissa, np.where(significand == 0, LOWEST, power)


def shift(value, amount, floor):
    """value * 2**amount; bits that leave are cut towards zero, or towards minus infinity."""
    amount = np.clip(amount, -62, 40)
    left = np.left_shift(np.abs(value), np.maximum(amount, 0))
    if floor:
        return np.right_shift(np.where(value < 0, -left, left), np.maximum(-amount, 0))
    return np.sign(value) * np.right_shift(left, np.maximum(-amount, 0))


def round_to(element, total, last, nearest):
    """An integer times 2**last as a value of the element type: cut, or to nearest even."""
    exponent, mantissa = form_draw.FLOATS[element]
    bias = (1 << (exponent - 1)) - 1
    power = np.maximum(np.frexp(total.astype(np.float64))[1] - 1 + last, 1 - bias)
    drop = np.maximum(power - mantissa - last, 0)
    magnitude = np.abs(total)
    kept = np.right_shift(magnitude, np.minimum(drop, 62))
    if nearest:
        half = np.left_shift(np.int64(1), np.minimum(np.maximum(drop - 1, 0), 62))
        rest = magnitude - np.left_shift(kept, np.minimum(drop, 62))
        kept += ((rest > half) | ((rest == half) & (kept % 2 == 1))) & (drop > 0)
    result = np.ldexp(kept.astype(np.float64), last + drop)
    result = np.where(result > float_bits.largest(element), np.inf, result)
    return np.where(kept == 0, 0.0, np.sign(total) * result)


def accumulate(form, inputs, fraction=24, block=None, nearest=False, floor=False):
    """The result as doubles [warp, m, n]; `fraction` bits stay below the largest exponent, `block` products at once."""
    _, a, b, c, (_, _, k) = form.check
    return accumulate_matrices(a, b, c, mma_bound.matrices(form, inputs), fraction, block or k, nearest, floor)


def accumulate_matrices(a, b, c, operands, fraction, block, nearest, floor=False):
    left, right, start = operands
    out = "f32" if c == "f32" else "f16"
    (sa, ea, pa), (sb, eb, pb) = parts(a, left), parts(b, right)
    running = start
    for begin in range(0, left.shape[2], block):
        piece = slice(begin, begin + block)
        products = sa[:, :, piece, None] * sb[:, None, piece, :]
        lasts = ea[:, :, piece, None] + eb[:, None, piece, :]
        powers = np.where(products == 0, LOWEST, pa[:, :, piece, None] + pb[:, None, piece, :])
        with np.errstate(all="ignore"):
            special = (left[:, :, piece, None] * right[:, None, piece, :]).sum(2) + running
        running = np.where(np.isfinite(special), add(products, lasts, powers, running, out, fraction, nearest, floor),
                           special)
    return running


def hopper(form, inputs):
    """What an H200 gives, bit for bit. Halves, bfloat16, tf32: one sum of all addends, 25 bits kept below the largest
    exponent, cut to single precision or rounded to half. Eight-bit floats are converted to halves: each register's low
    pairs are one product, its high pairs the next, started at zero; the accumulator is added last, rounded.
    """
    _, a, b, c, (_, _, k) = form.check
    if a not in ("e4m3", "e5m2"):
        return accumulate(form, inputs, 25, None, c == "f16")
    order = np.argsort(np.arange(k) % 4 // 2, kind="stable")
    left, right, start = mma_bound.matrices(form, inputs)
    operands = left[:, :, order], right[:, order], np.zeros_like(start)
    total = accumulate_matrices(a, b, c, operands, 25, k // 2, c == "f16")
    with np.errstate(all="ignore"):
        return (total + start).astype(np.float32 if c == "f32" else np.float16).astype(np.float64)


def add(products, lasts, powers, running, out, fraction, nearest, floor):
    s, e, p = parts(out, running)
    top = np.maximum(powers.max(2), p)
    unit = np.where(top == LOWEST, 0, top - fraction)
    total = shift(products, lasts - unit[:, :, None, :], floor).sum(2) + shift(s, e - unit, floor)
    return round_to(out, total, unit, nearest)
