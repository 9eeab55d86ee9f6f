# SPDX-License-Identifier: Apache-2.0
"""mma.sync: D = A * B + C on registers of a warp. PTX ISA, "Multiply-and-Accumulate Instruction: mma"."""

from dataclasses import dataclass
from fractions import Fraction

from . import fragments
from .bits import mask, signed
from .formats import FORMATS, NAN, Real, decode, encode

INTEGERS = {"s8": 8, "u8": 8, "s4": 4, "u4": 4}


def _bits(kind):
    return INTEGERS.get(kind) or FORMATS[kind].bits


@dataclass(frozen=True)
class Mma:
    """One variant: the shape, the types of A, B and the accumulators, .satfinite."""

    m: int
    n: int
    k: int
    d: str
    a: str
    b: str
    c: str
    satfinite: bool = False

    @property
    def opcode(self):
        saturate = ".satfinite" if self.satfinite else ""
        shape = f"m{self.m}n{self.n}k{self.k}"
        return f"mma.sync.aligned.{shape}.row.col{saturate}.{self.d}.{self.a}.{self.b}.{self.c}"

    def layout(self, operand):
        """The layout of operand "a", "b", "c" or "d"."""
        accumulator = getattr(self, operand) if operand in "cd" else self.c
        bits = 32 if accumulator == "s32" else FORMATS[accumulator].bits
        index = "abc".index(operand.replace("d", "c"))
        return fragments.layouts(self.m, self.n, self.k, _bits(self.a), bits)[index]

    def product(self, a, b, c):
        """The matrix D of codes from matrices of codes: every sum is exact and rounded (or wrapped) once."""
        cell = self._integer_cell if self.d == "s32" else self._float_cell
        columns = [[row[j] for row in b] for j in range(self.n)]
        return [[cell(a[i], columns[j], c[i][j]) for j in range(self.n)] for i in range(self.m)]

    def registers(self, a, b, c):
        """D's registers of each lane from those of A, B and C."""
        matrices = (self.layout(o).unpack(r) for o, r in (("a", a), ("b", b), ("c", c)))
        return self.layout("d").pack(self.product(*matrices))

    def _integer_cell(self, row, column, c):
        """.satfinite limits the result to the range of s32; without it the result wraps."""
        total = signed(c, 32) + sum(
            self._integer(self.a, x) * self._integer(self.b, y) for x, y in zip(row, column, strict=True)
        )
        if self.satfinite:
            total = min(max(total, -(1 << 31)), (1 << 31) - 1)
        return total & mask(32)

    @staticmethod
    def _integer(kind, code):
        width = INTEGERS[kind]
        return signed(code, width) if kind[0] == "s" else code & mask(width)

    def _float_cell(self, row, column, c):
        terms = [decode(FORMATS[self.c], c)]
        for x, y in zip(row, column, strict=True):
            terms.append(_times(decode(FORMATS[self.a], x), decode(FORMATS[self.b], y)))
        return encode(FORMATS[self.d], _sum(terms))


def _times(x, y):
    negative = x.negative != y.negative
    if "nan" in (x.kind, y.kind):
        return NAN
    if "inf" in (x.kind, y.kind):
        zero = (x.kind == "finite" and x.value == 0) or (y.kind == "finite" and y.value == 0)
        return NAN if zero else Real("inf", negative)
    return Real("finite", negative, x.value * y.value)


def _sum(terms):
    infinities = {t.negative for t in terms if t.kind == "inf"}
    if any(t.kind == "nan" for t in terms) or len(infinities) == 2:
        return NAN
    if infinities:
        return Real("inf", infinities.pop())
    total = sum((t.value for t in terms), Fraction(0))
    # The manual gives no sign to a sum of zero; comparisons leave it out.
    return Real("finite", total < 0, total)


def _float_variants():
    for k, kinds in ((4, ["tf32"]), (8, ["f16", "bf16", "tf32"]), (16, ["f16", "bf16"])):
        for kind in kinds:
            for c in ("f32", "f16") if kind == "f16" else ("f32",):
                yield Mma(16, 8, k, c, kind, kind, c)
    for a in ("e4m3", "e5m2"):
        for b in ("e4m3", "e5m2"):
            yield Mma(16, 8, 32, "f32", a, b, "f32")


def _integer_variants():
    for m, k, kinds in ((8, 16, "88"), (16, 16, "88"), (16, 32, "88"), (8, 32, "44"), (16, 32, "44"), (16, 64, "44")):
        for a in "su":
            for b in "su":
                for satfinite in (False, True):
                    yield Mma(m, 8, k, "s32", a + kinds[0], b + kinds[1], "s32", satfinite)


FLOATS = list(_float_variants())
INTEGER = list(_integer_variants())
# PTX ISA 8.7 (sm_89 on): fp8 with k = 16, and with accumulators in f16.
FP8_LATER = [
    Mma(16, 8, k, c, a, "e4m3", c)
    for k, c in ((16, "f32"), (16, "f16"), (32, "f16"))
    for a in ("e4m3", "e5m2")
]
