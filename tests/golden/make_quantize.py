# SPDX-License-Identifier: Apache-2.0
"""Writes quantize.json: groups of f32 values with the codes, scale and minimum that quantize_c2 demands.

Computed with exact fractions and an explicit rounding to f32 or f16 after every operation, so that no floating-point
unit, library or compiler takes part. All numbers are given by their bits. Run: python make_quantize.py
"""

import json
import random
import struct
from fractions import Fraction
from pathlib import Path

F32 = (24, -149, 8)  # significand bits, exponent of the smallest subnormal, exponent bits
F16 = (11, -24, 5)


def nearest_even(x):
    low = x.numerator // x.denominator
    rest = x - low
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1))


def rounded(x, kind):
    """Fraction to the nearest value of the kind, ties to even."""
    precision, smallest, _ = kind
    if x == 0:
        return Fraction(0)
    exponent = smallest
    while abs(x) / Fraction(2) ** exponent >= 2**precision:
        exponent += 1
    return nearest_even(x / Fraction(2) ** exponent) * Fraction(2) ** exponent


def quantize(values, bits):
    levels = (1 << bits) - 1
    low, high = min(values), max(values)
    scale = rounded(rounded(rounded(high - low, F32) / levels, F32), F16)
    minimum = rounded(low, F16)
    inverse = rounded(1 / scale, F32) if scale else Fraction(0)
    codes = [nearest_even(rounded(rounded(x - minimum, F32) * inverse, F32)) for x in values]
    return [min(max(code, 0), levels) for code in codes], scale, minimum


def f32_bits(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def f16_bits(x):
    return struct.unpack("<H", struct.pack("<e", x))[0]


def bf16(x):
    return struct.unpack("<f", struct.pack("<I", f32_bits(x) & 0xFFFF0000))[0]


def cases():
    draw = random.Random(20260101)
    normal = lambda n, size=1.0, offset=0.0: [offset + draw.gauss(0, size) for _ in range(n)]
    for bits in (2, 4, 8, 3):  # in the order in which they came: each case draws from where the one before it ended
        levels = (1 << bits) - 1
        yield "normal", bits, normal(32)
        yield "outlier channel", bits, normal(32, 0.5, 30.0)
        yield "bf16 values", bits, [bf16(x) for x in normal(32, 3.0)]
        yield "wide", bits, normal(128, 2000.0)
        yield "constant", bits, [1.7] * 32
        yield "constant beyond f16 precision", bits, [2049.3] * 32
        yield "zeros of both signs", bits, [0.0, -0.0] * 16
        yield "negative zero is the minimum", bits, [-0.0, 1.0, 2.0, 3.0] * 8
        yield "largest magnitudes", bits, [-65504.0, 65504.0, 0.0, 1.0] * 8
        yield "subnormal scale", bits, [i * levels * 2.0**-24 / 31 for i in range(32)]
        yield "scale rounds up to the smallest subnormal", bits, [0.0, 0.6 * levels * 2.0**-24] * 16
        yield "scale rounds down to zero", bits, [1.0, 1.0 + 2.0**-23] * 16
        yield "f32 subnormals", bits, [k * 2.0**-149 for k in range(32)]
        yield "ties", bits, [float(levels)] + [i % levels + 0.5 for i in range(30)] + [0.0]
        yield "last code clamped", bits, [0.0, levels * (1 + 2.0**-11)] * 16


def main():
    out = []
    for name, bits, values in cases():
        values = [struct.unpack("<f", struct.pack("<f", x))[0] for x in values]
        codes, scale, minimum = quantize([Fraction(x) for x in values], bits)
        out.append(
            {
                "name": f"{name}, {bits} bits",
                "bits": bits,
                "x_f32": [f"{f32_bits(x):08x}" for x in values],
                "codes": codes,
                "scale_f16": f"{f16_bits(float(scale)):04x}",
                "min_f16": f"{f16_bits(float(minimum)):04x}",
            }
        )
    lines = ",\n".join("  " + json.dumps(case) for case in out)
    Path(__file__).with_name("quantize.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
