# SPDX-License-Identifier: Apache-2.0
"""Seeded inputs of the instruction forms: bit patterns as Python integers, the same on every machine.

Standard library only, Python 3.8: the recorder runs on a bare GPU machine. Golden files hold outputs alone, so a change
here makes them stale; the digest of a form's inputs in the golden file tells.
"""
import math
import struct
import zlib

MASK = (1 << 64) - 1
# exponent bits, mantissa bits
FLOATS = {"f64": (11, 52), "f32": (8, 23), "tf32": (8, 23), "f16": (5, 10), "bf16": (8, 7), "e5m2": (5, 2),
          "e4m3": (4, 3), "e2m1": (2, 1)}
PACKED = {"f16x2": ("f16", 2), "bf16x2": ("bf16", 2), "e4m3x2": ("e4m3", 2), "e5m2x2": ("e5m2", 2),
          "e2m1x2": ("e2m1", 2)}
# Operands of mma: element, elements in a register.
FRAGMENTS = {"mma.f16": ("f16", 2), "mma.bf16": ("bf16", 2), "mma.tf32": ("tf32", 1), "mma.f64": ("f64", 1),
             "mma.e4m3": ("e4m3", 4), "mma.e5m2": ("e5m2", 4), "mma.acc.f16": ("f16", 2), "mma.acc.f32": ("f32", 1),
             "mma.acc.f64": ("f64", 1)}


class Random:
    """splitmix64: Python's own generator keeps no promise across versions for all that is drawn here."""

    def __init__(self, seed):
        self.state = seed & MASK

    def bits(self, count=64):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) >> (64 - count)

    def below(self, limit):
        return self.bits(48) % limit

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def pick(self, values):
        return values[self.below(len(values))]


def float_width(kind):
    if kind == "tf32":
        return 32
    return 1 + sum(FLOATS[kind])


def int_width(kind):
    return int(kind[1:])


def width(kind):
    """Bits of an operand's register: at least 16, a byte travels in 32."""
    kind = kind.split(":")[-1]
    if kind in ("shift", "lane", "perm", "few", "pred", "segment", "selector"):
        return 32
    if kind in PACKED:
        element, count = PACKED[kind]
        return max(16, float_width(element) * count)
    if kind.startswith("mma."):
        return 64 if kind.endswith("f64") else 32
    if kind in FLOATS:
        return float_width(kind)
    return max(32 if int_width(kind) == 8 else 16, int_width(kind))


def float_edges(kind):
    exponent, mantissa = FLOATS[kind]
    top = (1 << exponent) - 1
    bias = top >> 1
    one = bias << mantissa
    full = (1 << mantissa) - 1
    values = [0, 1, full, 1 << mantissa, (1 << mantissa) + 1, one, one + 1, one - 1, one | full,
              ((top - 1) << mantissa) | full, top << mantissa,
              (top << mantissa) | (1 << (mantissa - 1)) if mantissa > 1 else top << mantissa,
              (top << mantissa) | full, (top << mantissa) | 1, (bias + 1) << mantissa, (bias - 1) << mantissa]
    sign = 1 << (exponent + mantissa)
    return [value & (sign - 1) for value in values] + [value & (sign - 1) | sign for value in values]


# Low bits that narrowing to each smaller float leaves at the halfway point: values that end so make ties.
TIES = (6, 7, 12, 15, 19, 20, 28, 41, 44)


def moderate(kind, rng, center, spread):
    exponent, mantissa = FLOATS[kind]
    top = (1 << exponent) - 1
    e = min(max(center + rng.between(-spread, spread), 0), top - 1)
    fraction = rng.bits(mantissa)
    if rng.below(4) == 0:
        fraction &= -1 << min(rng.pick(TIES), mantissa)
    return (rng.bits(1) << (exponent + mantissa)) | (e << mantissa) | fraction


def decode(kind, bits):
    """The value of a bit pattern as a double; e4m3 has no infinities, e2m1 no NaN either."""
    exponent, mantissa = FLOATS[kind]
    sign = -1.0 if bits >> (exponent + mantissa) & 1 else 1.0
    e, m, top = bits >> mantissa & ((1 << exponent) - 1), bits & ((1 << mantissa) - 1), (1 << exponent) - 1
    bias = top >> 1
    if e == top and kind not in ("e4m3", "e2m1"):
        return sign * math.inf if m == 0 else math.nan
    if kind == "e4m3" and e == top and m == 7:
        return math.nan
    return sign * (math.ldexp(m, 1 - bias - mantissa) if e == 0 else
                   math.ldexp(m + (1 << mantissa), e - bias - mantissa))


def near_product(kind, a, b):
    """-(a*b), roughly, in the kind: what makes a fused multiply-add cancel."""
    x = -decode(kind, a) * decode(kind, b)
    if math.isnan(x):  # its sign would depend on the machine
        return 0
    try:
        if kind == "f64":
            return struct.unpack("<Q", struct.pack("<d", x))[0]
        if kind == "f16":
            return struct.unpack("<H", struct.pack("<e", x))[0]
        bits = struct.unpack("<I", struct.pack("<f", x))[0]
        return bits >> 16 if kind == "bf16" else bits
    except OverflowError:
        return 0


def scalar_float(kind, rng, mode, before):
    exponent, mantissa = FLOATS[kind]
    if mode == 0:
        value = rng.pick(float_edges(kind))
    elif mode == 1:
        value = rng.bits(float_width(kind))
    elif mode == 2 or not before:
        # About one; about the root of the least and of the largest number, whose products leave the range; anywhere.
        bias = (1 << (exponent - 1)) - 1
        center = rng.pick([bias, bias, bias // 2, bias + bias // 2, rng.below(2 * bias)])
        if before and rng.bits(1):
            center = before[0] >> mantissa & ((1 << exponent) - 1)
        value = moderate(kind, rng, center, min(mantissa + 2, 1 << (exponent - 1)) if rng.bits(1) else 2)
    elif len(before) >= 2:
        value = near_product(kind, before[0], before[1]) + rng.between(-2, 2)
    else:
        value = before[0] + rng.between(-3, 3) ^ rng.bits(1) << (exponent + mantissa)
    value &= (1 << float_width(kind)) - 1
    return value & ~0x1FFF if kind == "tf32" else value


def scalar_int(kind, rng, mode, before):
    bits = int_width(kind)
    if mode == 0:
        high = 1 << (bits - 1)
        value = rng.pick([0, 1, 2, -1, -2, high, high - 1, high + 1, high >> 1, (1 << bits // 2), (1 << bits // 2) - 1,
                          0x55 * ((1 << bits) // 255), 0xAA * ((1 << bits) // 255), 0x80, 0x7F, 0xFF, 0x8000, 0xFFFF])
    elif mode == 1:
        value = rng.bits(bits)
    elif mode == 2 or not before:
        value = rng.bits(bits) >> rng.below(bits)
        value = -value if rng.bits(1) else value
    else:
        value = before[0] + rng.between(-2, 2)
        value = -value if rng.bits(1) else value
    return value & ((1 << bits) - 1)


def to_integer(kind, rng, index):
    """A float near the borders of a conversion to integers: halves, small values, the ends of each integer type."""
    exponent, mantissa = FLOATS[kind]
    bias = (1 << (exponent - 1)) - 1
    which = index % 4
    if which == 0:
        return scalar_float(kind, rng, index // 4 % 3, [])
    sign = rng.bits(1) << (exponent + mantissa)
    top = (1 << exponent) - 2
    if which == 1:  # k/4 for small k
        k = rng.between(1, 40)
        e = k.bit_length() - 1
        scaled = (k << mantissa) >> e & ((1 << mantissa) - 1) if e <= mantissa else 0
        value = (min(bias + e - 2, top) << mantissa) | scaled
    elif which == 2:  # about a power of two
        e = rng.pick([7, 8, 15, 16, 31, 32, 63, 64, -1, 0])
        value = (min(bias + e, top) << mantissa) + rng.between(-3, 3)
    else:
        value = (min(bias + rng.between(-2, 66), top) << mantissa) | rng.bits(mantissa)
    return value | sign


def special(kind, rng, index):
    """The kinds that are not a type: shift amounts, lanes, selectors, predicates."""
    if kind == "shift":
        return rng.pick([rng.below(33), rng.below(33), rng.below(70), rng.bits(32), 256 + rng.below(40),
                         31, 32, 33, 63, 64, 65])
    if kind == "lane":
        return rng.below(32) if rng.below(8) else rng.bits(6)
    if kind == "few":
        return rng.below(1 + (index // 32) % 7) * 0x01010101
    if kind == "pred":
        warp = index // 32
        return 0 if warp % 8 == 6 else 1 if warp % 8 == 7 else rng.bits(1)
    if kind == "segment":  # the c operand of shfl: clamp in bits 0-4, segment mask in bits 8-12
        return rng.pick([0x1F, 0, rng.bits(5), rng.pick([0x10, 0x18, 0x1C, 0x1E]) << 8 | 0x1F,
                         rng.pick([0x10, 0x18, 0x1C, 0x1E]) << 8, rng.bits(5) << 8 | rng.bits(5)])
    if kind == "selector":
        return rng.bits(16) if rng.bits(1) else rng.bits(32)
    raise ValueError(kind)


def mma_element(kind, accumulator, rng, warp):
    """One element of a fragment. The warp decides on the profile, so that all operands of a product share it."""
    exponent, mantissa = FLOATS[kind]
    bias, top, sign = (1 << (exponent - 1)) - 1, (1 << exponent) - 1, rng.bits(1) << (exponent + mantissa)
    small = min(6, bias - 1)
    profile = warp % 8
    if profile == 0:  # about one
        value = moderate(kind, rng, bias, 1)
    elif profile == 1:  # wider than the alignment window of any accumulator
        value = moderate(kind, rng, bias, min(12, bias - 1))
    elif profile == 2:  # subnormals against ordinary values
        value = sign | rng.bits(mantissa) if rng.below(3) == 0 else \
            moderate(kind, rng, bias if rng.bits(1) else 1, small)
    elif profile == 3:  # a few infinities and NaNs
        value = rng.pick(float_edges(kind)) if rng.below(16) == 0 else moderate(kind, rng, bias, 2)
    elif profile == 4:  # addends that cancel: few exponents, few mantissas
        value = sign | (bias + rng.pick([-small, 0, 0, small])) << mantissa | (rng.bits(1) << mantissa >> 1)
    elif profile == 5:  # an accumulator far above or below the products
        value = moderate(kind, rng, bias + (rng.pick([-9, -2, 5, 9, 12, 14]) if accumulator else 0), 1)
    elif profile == 6:  # large: overflow of the sum
        value = moderate(kind, rng, top - 2 if accumulator else bias + bias // 2, 2)
    else:
        value = rng.bits(float_width(kind))
    value &= (1 << float_width(kind)) - 1
    return value & ~0x1FFF if kind == "tf32" else value


def fragment(kind, rng, index):
    element, count = FRAGMENTS[kind]
    bits, value = float_width(element), 0
    for part in range(count):
        value |= mma_element(element, ".acc." in kind, rng, index // 32) << (bits * part)
    return value


def permutation(rng):
    lanes = list(range(32))
    for i in range(31, 0, -1):
        j = rng.below(i + 1)
        lanes[i], lanes[j] = lanes[j], lanes[i]
    return lanes


def value(kind, rng, index, before):
    """One operand. `before` holds the row's earlier operands of the same kind."""
    prefix, _, base = kind.rpartition(":")
    if prefix == "int":
        return to_integer(base, rng, index)
    if prefix == "nonzero":
        return scalar_int(base, rng, index % 4, before) or 1
    if prefix == "low":  # a modest range: for functions whose bound holds there
        exponent, mantissa = FLOATS[base]
        return moderate(base, rng, (1 << (exponent - 1)) - 2, 3) & ((1 << float_width(base)) - 1)
    if base in FRAGMENTS:
        return fragment(base, rng, index)
    if base in PACKED:
        element, count = PACKED[base]
        bits, mode, result = float_width(element), index % 4, 0
        for part in range(count):
            mask = (1 << bits) - 1
            result |= scalar_float(element, rng, (mode + part * (index >> 2)) % 4,
                                   [b >> bits * part & mask for b in before]) << (bits * part)
        return result
    if base in FLOATS:
        return scalar_float(base, rng, index % 4, before)
    if base[0] in "sub" and base[1:].isdigit():
        # The register of a byte is wider; what is above it must not matter.
        high = rng.bits(24) << 8 if base[1:] == "8" else 0
        return scalar_int(base, rng, index % 4, before) | high
    return special(base, rng, index)


def columns(name, kinds, count):
    """A list of `count` bit patterns for each operand; equal for equal arguments, whatever the machine."""
    rng = Random(zlib.crc32(name.encode()) * 0x9E3779B97F4A7C15 + 1)
    result = [[] for _ in kinds]
    lanes = {}
    for index in range(count):
        if index % 32 == 0:
            lanes = {slot: permutation(rng) for slot, kind in enumerate(kinds) if kind == "perm"}
        for slot, kind in enumerate(kinds):
            if kind == "perm":
                result[slot].append(lanes[slot][index % 32])
                continue
            before = [result[k][index] for k in range(slot) if kinds[k].rpartition(":")[2] == kind.rpartition(":")[2]]
            result[slot].append(value(kind, rng, index, before))
    return result

