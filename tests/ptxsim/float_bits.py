# SPDX-License-Identifier: Apache-2.0
"""Values of floating-point bit patterns as NumPy doubles."""
import functools

import numpy as np

import form_draw


def elements(kind):
    """(element, how many a register holds)"""
    kind = kind.replace("memory.", "").rpartition(":")[2]
    if kind in form_draw.FRAGMENTS:
        return form_draw.FRAGMENTS[kind]
    return form_draw.PACKED.get(kind, (kind, 1))


def part(element, words, number):
    bits = form_draw.float_width(element)
    mask = 2 ** bits - 1
    return (np.asarray(words, np.uint64) >> np.uint64(bits * number)) & np.uint64(mask)


@functools.lru_cache(maxsize=None)
def table(element):
    return np.array([form_draw.decode(element, bits) for bits in range(2 ** form_draw.float_width(element))])


def decode(element, bits):
    bits = np.asarray(bits, np.uint64)
    if element == "f64":
        return bits.view(np.float64)
    if element in ("f32", "tf32", "bf16"):
        # A signalling NaN is as good as another.
        with np.errstate(invalid="ignore"):
            single = bits.astype(np.uint32) << np.uint32(16 if element == "bf16" else 0)
            return single.view(np.float32).astype(np.float64)
    return table(element)[bits.astype(np.int64)]


def unit(element, values):
    """The distance of neighbours at each value."""
    exponent, mantissa = form_draw.FLOATS[element]
    least = 2 - (1 << (exponent - 1))
    with np.errstate(all="ignore"):
        power = np.frexp(np.where(np.isfinite(values), values, 1))[1] - 1
    return np.ldexp(1.0, np.maximum(power, least) - mantissa)


def largest(element):
    exponent, mantissa = form_draw.FLOATS[element]
    return (2 - 2.0 ** -mantissa) * 2.0 ** ((1 << (exponent - 1)) - 1)
