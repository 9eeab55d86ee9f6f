# SPDX-License-Identifier: Apache-2.0
"""Laws that the reference in isa/ must keep by itself; no simulator runs here."""

import random
import struct

import numpy as np
import pytest

from isa import bits, convert, formats, fragments, matrices, memory, mma, warp
from isa.formats import BF16, E2M1, E4M3, E5M2, F16, F32, FORMATS

ALL_MMA = mma.FLOATS + mma.INTEGER + mma.FP8_LATER


@pytest.mark.parametrize("variant", ALL_MMA, ids=lambda v: v.opcode)
def test_layouts_are_bijections(variant):
    for operand in "abcd":
        layout = variant.layout(operand)
        places = [layout.at(lane, i) for lane in range(32) for i in range(layout.elements)]
        rows, columns = layout.shape
        assert sorted(places) == [(r, c) for r in range(rows) for c in range(columns)]
        codes = [[(r * 31 + c * 7) % (1 << layout.bits) for c in range(columns)] for r in range(rows)]
        assert layout.unpack(layout.pack(codes)) == codes


def test_registers_of_each_operand_are_those_of_the_manual():
    counts = {(v.m, v.k, v.a): tuple(v.layout(o).registers for o in "abc") for v in mma.FLOATS if v.c == "f32"}
    counts |= {(v.m, v.k, v.a): tuple(v.layout(o).registers for o in "abc") for v in mma.INTEGER}
    assert counts[16, 4, "tf32"] == (2, 1, 4)
    assert counts[16, 8, "f16"] == counts[16, 8, "bf16"] == (2, 1, 4)
    assert counts[16, 8, "tf32"] == (4, 2, 4)
    assert counts[16, 16, "f16"] == counts[16, 32, "e4m3"] == counts[16, 32, "s8"] == counts[16, 64, "u4"] == (4, 2, 4)
    assert counts[16, 16, "s8"] == counts[16, 32, "s4"] == (2, 1, 4)
    assert counts[8, 16, "s8"] == counts[8, 32, "s4"] == (1, 1, 2)


@pytest.mark.parametrize("variant", ALL_MMA, ids=lambda v: v.opcode)
def test_registers_multiply_as_matrices(variant):
    """Small integers are exact in every format, so that NumPy's product of integers is the answer."""
    rng = random.Random(variant.opcode)
    low = 0 if "u" in variant.a + variant.b else -2
    numbers = [
        [[rng.randint(low, 3) for _ in range(columns)] for _ in range(rows)]
        for rows, columns in ((variant.m, variant.k), (variant.k, variant.n), (variant.m, variant.n))
    ]
    packed = []
    for operand, matrix in zip("abc", numbers, strict=True):
        kind = getattr(variant, operand)
        if kind in FORMATS:
            matrix = [[formats.encode(FORMATS[kind], formats.real(x)) for x in row] for row in matrix]
        packed.append(variant.layout(operand).pack(matrix))
    a, b, c = (np.array(m) for m in numbers)
    found = variant.layout("d").unpack(variant.registers(*packed))
    if variant.d == "s32":
        values = [[bits.signed(x, 32) for x in row] for row in found]
    else:
        values = [[int(formats.decode(FORMATS[variant.d], x).value) for x in row] for row in found]
    assert np.array_equal(np.array(values), a @ b + c)


def test_integer_accumulators_wrap_or_saturate():
    top, ones = (1 << 31) - 1, [[1] * 16] * 16
    for satfinite, expected in ((False, 1 << 31 | 15), (True, top)):
        variant = mma.Mma(16, 8, 16, "s32", "u8", "s8", "s32", satfinite)
        assert variant.product(ones, [[1] * 8] * 16, [[top] * 8] * 16)[3][5] == expected
        bottom = variant.product(ones, [[255] * 8] * 16, [[1 << 31] * 8] * 16)[0][0]
        assert bottom == (1 << 31 if satfinite else (1 << 31) - 16)


def test_ldmatrix_feeds_mma():
    """The way of every kernel: A by ldmatrix.x4, B stored by rows of k by ldmatrix.x2.trans, product as of matrices."""
    rng = np.random.default_rng(5)
    a, b = rng.integers(-8, 8, (16, 16)).astype(np.float16), rng.integers(-8, 8, (16, 8)).astype(np.float16)
    store = a.tobytes() + b.tobytes()
    # Matrices of A in the order of its registers: rows 0-7, rows 8-15, then both for columns 8-15.
    a_rows = [(lane % 16) * 32 + lane // 16 * 16 for lane in range(32)]
    b_rows = [512 + (lane % 16) * 16 for lane in range(32)]
    variant = mma.Mma(16, 8, 16, "f32", "f16", "f16", "f32")
    d = variant.registers(
        matrices.ldmatrix(store, a_rows, 4), matrices.ldmatrix(store, b_rows, 2, True), [[0] * 4 for _ in range(32)]
    )
    codes = np.array(variant.layout("d").unpack(d), dtype=np.uint32)
    assert np.array_equal(codes.view(np.float32), a.astype(np.float32) @ b.astype(np.float32))
    # Without .trans the same operand comes from B stored by columns.
    columns = np.ascontiguousarray(b.T).tobytes()
    rows = [lane % 8 * 32 + lane // 8 % 2 * 16 for lane in range(32)]
    assert matrices.ldmatrix(columns, rows, 2) == variant.layout("b").pack(b.view(np.uint16))


def test_matrix_moves_undo_each_other():
    rng = random.Random(7)
    store = bytes(rng.randrange(256) for _ in range(512))
    order = rng.sample(range(32), 32)
    addresses = [16 * x for x in order]
    for transposed in (False, True):
        copy = bytearray(512)
        matrices.stmatrix(copy, addresses, matrices.ldmatrix(store, addresses, 4, transposed), transposed)
        assert bytes(copy) == store
    plain, turned = (matrices.ldmatrix(store, addresses, 1, t) for t in (False, True))
    registers = [r[0] for r in plain]
    assert matrices.movmatrix(registers) == [r[0] for r in turned]
    assert matrices.movmatrix(matrices.movmatrix(registers)) == registers
    assert matrices.movmatrix(registers) != registers


def test_f16_codes_are_numpys():
    codes = np.arange(1 << 16, dtype=np.uint16)
    for code, value in zip(codes.tolist(), codes.view(np.float16).tolist(), strict=True):
        number = formats.decode(F16, code)
        if number.kind == "finite":
            assert float(number.value) == value and formats.encode(F16, number) == code
        else:
            assert number.kind == ("nan" if value != value else "inf")


def test_rounding_to_f16_is_numpys():
    rng = np.random.default_rng(11)
    x = np.concatenate([rng.integers(0, 1 << 32, 4000, dtype=np.uint32), _near_f16(rng, 4000)])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.view(np.float32).astype(np.float16).view(np.uint16)
    for code, wanted in zip(x.tolist(), expected.tolist(), strict=True):
        assert convert.cvt(F16, code) == wanted or formats.is_nan(F16, wanted)


def _near_f16(rng, count):
    """f32 codes at and around the middle between two f16 values, where rounding is decided."""
    half = rng.integers(0, 0x7C00, count, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    return half + rng.choice([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF], count).astype(np.uint32)


@pytest.mark.parametrize("form", [E4M3, E5M2, E2M1, BF16], ids=lambda f: f.name)
def test_formats_come_back_from_f32(form):
    for code in range(1 << form.bits):
        number = formats.decode(form, code)
        if number.kind == "nan":
            assert formats.is_nan(F32, formats.encode(F32, number))
        elif number.kind == "finite":
            assert formats.encode(form, formats.decode(F32, formats.encode(F32, number))) == code


def test_values_of_the_small_formats():
    """The limits that "Alternate Floating-Point Data Formats" and the OCP specification name."""
    assert [float(formats.decode(E2M1, c).value) for c in range(8)] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert float(formats.decode(E4M3, E4M3.largest).value) == 448 and formats.is_nan(E4M3, 0x7F)
    assert float(formats.decode(E4M3, 1).value) == 2.0**-9
    assert float(formats.decode(E5M2, E5M2.largest).value) == 57344 and formats.decode(E5M2, 0x7C).kind == "inf"
    assert float(formats.decode(E5M2, 1).value) == 2.0**-16
    f32 = {"big": 0x47C35000, "-inf": 0xFF800000, "nan": 0x7FC00000, "-tiny": 0x80000001}
    to = {name: [convert.cvt(f, code, satfinite=True) for f in (E4M3, E5M2, E2M1)] for name, code in f32.items()}
    assert to == {
        "big": [0x7E, 0x7B, 0x7], "-inf": [0xFE, 0xFB, 0xF], "nan": [0x7F, 0x7F, 0x7], "-tiny": [0x80, 0x80, 0x8]
    }


def test_fma_rounds_once():
    """(1 + 2^-9)^2 - 1 in f16: with a product rounded by itself 2^-18 would be lost."""
    x = 0x3C02
    assert convert.fma(F16, x, x, 0xBC00) == formats.encode(F16, formats.real((1 + 2.0**-9) ** 2 - 1))
    assert convert.fma(F16, x, x, 0xBC00) != convert.add(F16, convert.mul(F16, x, x), 0xBC00)
    # 1.5 + 1.5 * 2^-10 lies in the middle, so that 2^-24 decides, which a sum in f32 would lose first.
    assert convert.fma(F16, 0x3E00, 0x3C01, 0x8001) == 0x3E01 and convert.fma(F16, 0x3E00, 0x3C01, 1) == 0x3E02
    assert convert.fma(F16, 0x8000, 0x3C00, 0x8000) == 0x8000 and convert.fma(F16, 0x8000, 0x3C00, 0) == 0
    assert convert.fma(F16, 0x7C00, 0, 0) == F16.nan and convert.add(F16, 0x7C00, 0xFC00) == F16.nan
    assert convert.fma(F16, 0x4000, 0x3C00, 0, "sat") == 0x3C00 and convert.fma(F16, F16.nan, 0, 0, "sat") == 0
    assert convert.fma(F16, 0xC000, 0x3C00, 0, "relu") == 0 and convert.fma(F16, F16.nan, 0, 0, "relu") == F16.nan
    rng = random.Random(3)
    for _ in range(2000):
        a, b, c = (rng.randrange(1 << 16) for _ in range(3))
        # f64 holds product and sum of f16 values with exponents this close exactly.
        a, b, c = (v & 0x83FF | 0x3400 + (v & 0xC00) for v in (a, b, c))
        x, y, z = (struct.unpack("<e", v.to_bytes(2, "little"))[0] for v in (a, b, c))
        assert convert.fma(F16, a, b, c) == int(np.float16(x * y + z).view(np.uint16))


def test_lop3_agrees_with_its_definition():
    assert [bits.lop3(0xF0, 0xCC, 0xAA, table) & 0xFF for table in range(256)] == list(range(256))
    assert bits.lop3(12, 10, 6, 0x80) == 12 & 10 & 6 and bits.lop3(12, 10, 6, 0x1A) == (12 & 10 | 6) ^ 12


def test_bit_fields():
    rng = random.Random(13)
    for _ in range(300):
        a, b = rng.randrange(1 << 32), rng.randrange(1 << 32)
        position = rng.randrange(32)
        length = rng.randrange(33 - position)
        field = bits.bfe(a, position, length, "u32")
        assert field == a >> position & bits.mask(length)
        assert bits.bfi(field, a, position, length, 32) == a
        assert bits.bfe(bits.bfi(b, a, position, length, 32), position, length, "u32") == b & bits.mask(length)
    assert bits.bfe(0x80000000, 31, 1, "s32") == 0xFFFFFFFF and bits.bfe(0x80000000, 40, 3, "s32") == 0xFFFFFFFF
    assert bits.bfe(0x80000000, 40, 3, "u32") == 0 and bits.bfe(0xFFFFFFFF, 0, 0, "s32") == 0
    assert bits.bfi(0xFFFFFFFF, 7, 32, 4, 32) == 7 and bits.bfi(0xFFFFFFFF, 0, 28, 255, 32) == 0xF0000000


def test_prmt_moves_bytes():
    a, b = 0x83828180, 0x07060504
    assert bits.prmt(a, b, 0x3210) == a and bits.prmt(a, b, 0x7654) == b
    assert bits.prmt(a, b, 0xFEDC) == 0 and bits.prmt(a, b, 0xBA98) == 0xFFFFFFFF
    for n in range(4):
        assert bits.prmt(a, b, n, "f4e") == (b << 32 | a) >> 8 * n & 0xFFFFFFFF
        assert bits.prmt(a, b, n, "rc8") == (a >> 8 * n & 0xFF) * 0x01010101
        assert bits.prmt(a, b, n, "rc16") == (a >> 16 * (n & 1) & 0xFFFF) * 0x00010001
        assert bits.prmt(a, b, n, "ecr") & 0xFF == a & 0xFF if n else True
        assert bits.prmt(a, b, n, "ecl") >> 24 == a >> 24
    assert bits.prmt(a, b, 3, "ecr") == bits.prmt(a, b, 0, "ecl") == a
    assert bits.prmt(a, b, 3, "b4e") == bits.prmt(a, b, 0x0123)


def test_funnel_shift_rotates():
    for n in range(64):
        x = 0x9E3779B9
        rotated = (x << n % 32 | x >> (32 - n % 32)) & 0xFFFFFFFF
        assert bits.shf("l", "wrap", x, x, n) == rotated
        assert bits.shf("r", "wrap", x, x, (32 - n) % 32) == rotated
    assert bits.shf("l", "clamp", 1, 2, 77) == 1 and bits.shf("r", "clamp", 1, 2, 77) == 2


def test_dot_products():
    assert bits.dp4a(0x80808080, 0xFFFFFFFF, 5, "s32", "u32") == (5 - 4 * 128 * 255) % (1 << 32)
    assert bits.dp4a(0xFFFFFFFF, 0xFFFFFFFF, 0, "s32", "s32") == 4
    assert bits.dp2a(0x00030002, 0x04050607, 1, "u32", "u32", "lo") == 1 + 2 * 7 + 3 * 6
    assert bits.dp2a(0x00030002, 0x04050607, 1, "u32", "u32", "hi") == 1 + 2 * 5 + 3 * 4


def test_shuffles():
    lanes = list(range(32))

    def moved(mode, b, c):
        return warp.shfl(mode, lanes, [b] * 32, [c] * 32)

    assert [d for d, _ in moved("bfly", 1, 31)] == [i ^ 1 for i in lanes] and all(p for _, p in moved("bfly", 1, 31))
    assert moved("up", 4, 0)[3] == (3, False) and moved("up", 4, 0)[4] == (0, True)
    assert moved("down", 4, 31)[28] == (28, False) and moved("down", 4, 31)[27] == (31, True)
    # Segments of eight, as __shfl_*(.., width=8) asks for: c = (32 - 8) << 8, | 31 except for up.
    assert moved("up", 2, 0x1800)[9] == (9, False) and moved("up", 2, 0x1800)[10] == (8, True)
    assert moved("idx", 10, 0x181F)[17] == (18, True)
    assert moved("down", 3, 0x181F)[13] == (13, False) and moved("down", 3, 0x181F)[12] == (15, True)


def test_votes_matches_and_reductions():
    values = [5, 5, 7] + [9] * 29
    assert warp.match_any(values)[:3] == [3, 3, 4] and warp.match_any(values, 0b101)[0] == 1
    assert warp.match_all(values) == (0, False) and warp.match_all(values, 0b11) == (3, True)
    assert warp.vote("ballot", [1, 0, 1] + [1] * 29, 0b1110) == 0b1100
    assert not warp.vote("all", [1, 0] + [1] * 30) and warp.vote("uni", [0] * 32) and not warp.vote("any", [0] * 32)
    negative = [0xFFFFFFFF] + [3] * 31
    assert warp.redux("min", "s32", negative) == 0xFFFFFFFF and warp.redux("min", "u32", negative) == 3
    assert warp.redux("add", "u32", [1 << 31] * 32, 0b11) == 0


def test_atomics_and_copies():
    assert [memory.atom("inc", "u32", old, 5) for old in (0, 4, 5, 9)] == [1, 5, 0, 0]
    assert [memory.atom("dec", "u32", old, 5) for old in (0, 3, 5, 6)] == [5, 2, 4, 5]
    assert memory.atom("cas", "b32", 4, 4, 9) == 9 and memory.atom("cas", "b32", 3, 4, 9) == 3
    assert memory.atom("min", "s32", 3, 0xFFFFFFFF) == 0xFFFFFFFF and memory.atom("min", "u32", 3, 0xFFFFFFFF) == 3
    assert memory.cp_async(b"abcdefgh", 8, 3) == b"abc" + bytes(5) and memory.cp_async(b"", 4, 0) == bytes(4)


def test_fragments_of_lane_5():
    """One lane read off the figures of the manual: lane 5 is group 1, member 1."""
    assert [fragments.a_m16n8k16_half(5, i) for i in range(8)] == [
        (1, 2), (1, 3), (9, 2), (9, 3), (1, 10), (1, 11), (9, 10), (9, 11)
    ]
    assert [fragments.b_m16n8k16_half(5, i) for i in range(4)] == [(2, 1), (3, 1), (10, 1), (11, 1)]
    assert [fragments.c_m16n8(5, i) for i in range(4)] == [(1, 2), (1, 3), (9, 2), (9, 3)]
    assert [fragments.a_m16n8k8_tf32(5, i) for i in range(4)] == [(1, 1), (9, 1), (1, 5), (9, 5)]
    assert [fragments.b_m16n8k32_byte(5, i) for i in (0, 3, 4, 7)] == [(4, 1), (7, 1), (20, 1), (23, 1)]
