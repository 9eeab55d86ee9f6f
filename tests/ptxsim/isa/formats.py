# SPDX-License-Identifier: Apache-2.0
"""Floating-point formats as exact rational numbers.

PTX ISA, "Fundamental Types" and "Alternate Floating-Point Data Formats": bf16, e4m3, e5m2, e2m1, tf32.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

IEEE, ONE_NAN, FINITE = "ieee", "one nan", "finite"


class Real(NamedTuple):
    """A number, infinity or NaN; value carries the sign of a finite number, negative that of zero and infinity too."""

    kind: str
    negative: bool
    value: Fraction = Fraction(0)


NAN = Real("nan", False)


def real(value):
    return Real("finite", value < 0, Fraction(value))


@dataclass(frozen=True)
class Format:
    """Sign, exponent, fraction; `padding` low bits are unused (tf32 lies in the upper 19 bits of a .b32 register)."""

    name: str
    exponent: int
    fraction: int
    special: str = IEEE
    padding: int = 0

    @property
    def bits(self):
        return 1 + self.exponent + self.fraction + self.padding

    @property
    def minimum_exponent(self):
        return 2 - (1 << (self.exponent - 1))

    @property
    def largest(self):
        """The code of the largest finite number, without padding."""
        top = (1 << (self.exponent + self.fraction)) - 1
        return {IEEE: (top >> self.fraction << self.fraction) - 1, ONE_NAN: top - 1, FINITE: top}[self.special]

    @property
    def nan(self):
        """The canonical NaN: all ones but the sign and the padding."""
        return ((1 << (self.exponent + self.fraction)) - 1) << self.padding


F16 = Format("f16", 5, 10)
BF16 = Format("bf16", 8, 7)
TF32 = Format("tf32", 8, 10, padding=13)
F32 = Format("f32", 8, 23)
E4M3 = Format("e4m3", 4, 3, ONE_NAN)
E5M2 = Format("e5m2", 5, 2)
E2M1 = Format("e2m1", 2, 1, FINITE)
FORMATS = {f.name: f for f in (F16, BF16, TF32, F32, E4M3, E5M2, E2M1)}


def decode(form, code):
    code >>= form.padding
    magnitude = code & ((1 << (form.exponent + form.fraction)) - 1)
    negative = bool(code >> (form.exponent + form.fraction) & 1)
    if magnitude > form.largest:
        infinite = form.special == IEEE and magnitude == form.largest + 1
        return Real("inf", negative) if infinite else NAN
    exponent, fraction = magnitude >> form.fraction, magnitude & ((1 << form.fraction) - 1)
    if exponent:
        fraction += 1 << form.fraction
    scale = max(exponent, 1) - 1 + form.minimum_exponent - form.fraction
    value = fraction * Fraction(2) ** scale
    return Real("finite", negative, -value if negative else value)


def _floor_log2(value):
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= value else exponent - 1


def _rounded(quotient, mode, negative):
    """The integer beside the quotient (not negative) that a mode of "Rounding Modifiers" picks."""
    below, rest = quotient.numerator // quotient.denominator, quotient % 1
    if mode == "rn":
        up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1)
    elif mode == "rna":
        up = rest >= Fraction(1, 2)
    else:
        up = rest > 0 and {"rz": False, "rm": negative, "rp": not negative}[mode]
    return below + up


def encode(form, number, mode="rn", satfinite=False):
    """The code of a number rounded to a format.

    PTX ISA, "Data Movement and Conversion Instructions: cvt": with .satfinite what exceeds the largest finite number
    becomes it, its sign kept. NaN becomes the canonical NaN, or the largest positive number in a format that has no NaN
    (e2m1).
    """
    if number.kind == "nan":
        return form.largest if form.special == FINITE else form.nan
    sign = int(number.negative) << (form.bits - 1)
    top = form.largest
    over = top if satfinite or form.special == FINITE else top + 1
    if number.kind == "inf":
        return sign | over << form.padding
    magnitude = abs(number.value)
    code = 0
    if magnitude:
        exponent = max(_floor_log2(magnitude), form.minimum_exponent)
        steps = _rounded(magnitude / Fraction(2) ** (exponent - form.fraction), mode, number.negative)
        # A normal number's leading one adds 1 to the exponent field, and so does a carry out of the fraction.
        code = ((exponent - form.minimum_exponent) << form.fraction) + steps
    if code > top:
        towards_zero = mode == "rz" or (mode == "rm" and not number.negative) or (mode == "rp" and number.negative)
        code = top if towards_zero else over
    return sign | code << form.padding


def is_nan(form, code):
    return decode(form, code).kind == "nan"
