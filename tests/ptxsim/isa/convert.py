# SPDX-License-Identifier: Apache-2.0
"""Conversions between floating-point formats and arithmetic with one rounding."""

from fractions import Fraction

from .formats import F32, NAN, Real, decode, encode


def cvt(to, code, source=F32, mode="rn", satfinite=False, relu=False):
    """PTX ISA, "Data Movement and Conversion Instructions: cvt".

    Converts one floating-point format to another. With .relu negative results become 0 and NaN stays.
    """
    number = decode(source, code)
    if relu and number.kind != "nan" and number.negative:
        number = Real("finite", False)
    return encode(to, number, mode, satfinite)


def cvt_pack(to, upper, lower, **options):
    """PTX ISA, "Data Movement and Conversion Instructions: cvt".

    The forms {f16x2,bf16x2,e4m3x2,e5m2x2,e2m1x2}.f32 d, a, b: a goes to the upper half, b to the lower.
    """
    return cvt(to, upper, **options) << to.bits | cvt(to, lower, **options)


def cvt_packed(to, source, code, **options):
    """PTX ISA, "Data Movement and Conversion Instructions: cvt".

    Converts between packed formats, f16x2 and e4m3x2 and so on: the halves keep their places.
    """
    low, high = code & ((1 << source.bits) - 1), code >> source.bits
    return cvt(to, high, source, **options) << to.bits | cvt(to, low, source, **options)


def fused(a, b, c):
    """a * b + c exactly ("Half Precision Floating Point Instructions: fma": infinite precision, then one rounding)."""
    if "nan" in (a.kind, b.kind, c.kind):
        return NAN
    negative = a.negative != b.negative
    if "inf" in (a.kind, b.kind):
        zero = any(x.kind == "finite" and x.value == 0 for x in (a, b))
        opposite = c.kind == "inf" and c.negative != negative
        return NAN if zero or opposite else Real("inf", negative)
    if c.kind == "inf":
        return c
    total = a.value * b.value + c.value
    if total == 0:
        # IEEE 754, 6.3: a sum of exactly zero is +0 unless both terms are -0; two terms that cancel give +0.
        both_zero = a.value * b.value == 0 and c.value == 0
        return Real("finite", both_zero and negative and c.negative, Fraction(0))
    return Real("finite", total < 0, total)


def fma(form, a, b, c, limit=""):
    """PTX ISA, "Half Precision Floating Point Instructions: fma".

    limit is "", "sat", which clamps to [0, 1] and makes NaN +0, or "relu", which makes negative results 0.
    """
    result = fused(decode(form, a), decode(form, b), decode(form, c))
    if limit == "sat" and result.kind == "nan" or limit and result.kind != "nan" and result.negative:
        result = Real("finite", False)
    if limit == "sat" and (result.kind == "inf" or result.value > 1):
        result = Real("finite", False, Fraction(1))
    return encode(form, result)


def mul(form, a, b):
    """PTX ISA, "Half Precision Floating Point Instructions: mul".

    The fma with -0, which changes no product.
    """
    return encode(form, fused(decode(form, a), decode(form, b), Real("finite", True)))


def add(form, a, b):
    return encode(form, fused(decode(form, a), Real("finite", False, Fraction(1)), decode(form, b)))


def halves(function, form, *operands):
    """The packed form of an instruction: the function of the lower halves and of the upper halves."""
    low = function(form, *(x & 0xFFFF for x in operands))
    high = function(form, *(x >> 16 for x in operands))
    return high << 16 | low
