# SPDX-License-Identifier: Apache-2.0
"""Instructions of one thread in the simulator against isa/: bits, dot products, conversions, one rounding."""

from functools import partial
from itertools import product

import numpy as np
import pytest

from isa import bits, convert
from isa.formats import BF16, E2M1, E4M3, E5M2, F16, F32, TF32, decode
from isa_run import assert_codes, assert_same_numbers, run_lanes, split, words

LENGTHS = (0, 1, 2, 7, 8, 31, 32, 33, 40, 63, 64, 65, 127, 128, 255)


def compare(body, arrays, reference, kind="b32", **options):
    """One output register for each thread, against reference(one element of each array)."""
    (found,) = run_lanes(body, arrays, [(kind, 1)], **options)
    expected = [reference(*(int(v) for v in row)) for row in zip(*arrays, strict=True)]
    assert_codes(found, np.array(expected, dtype=found.dtype), arrays, body)


def test_lop3_all_tables():
    rng = np.random.default_rng(1)
    a, b, c = (words(rng, 64) for _ in range(3))
    body = "".join(
        f"lop3.b32 %r, %x0_0, %x1_0, %x2_0, {table};\nst.global.b32 [%o0+{4 * table}], %r;\n" for table in range(256)
    )
    (found,) = run_lanes(body, [a, b, c], [("b32", 256, "body")], registers=".reg .b32 %r;")
    for table in range(256):
        expected = [bits.lop3(*(int(v) for v in row), table) for row in zip(a, b, c, strict=True)]
        assert_codes(found[:, table], expected, [a, b, c], f"lop3 {table:#x}")


def test_prmt_all_selectors():
    rng = np.random.default_rng(2)
    count = 1 << 16
    a, b = words(rng, count), words(rng, count)
    # The manual reads only bits 15:0 of the selector.
    c = np.arange(count, dtype=np.uint32) | rng.integers(0, 1 << 16, count, dtype=np.uint32) << 16
    compare("prmt.b32 %y0_0, %x0_0, %x1_0, %x2_0;", [a, b, c], bits.prmt, block=256)


@pytest.mark.parametrize("mode", bits.PRMT_MODES)
def test_prmt_modes(mode):
    rng = np.random.default_rng(3)
    arrays = [words(rng, 256) for _ in range(3)]
    body = f"prmt.b32.{mode} %y0_0, %x0_0, %x1_0, %x2_0;"
    compare(body, arrays, lambda a, b, c: bits.prmt(a, b, c, mode))


def _fields(rng, width):
    places = np.array(list(product(LENGTHS, LENGTHS)), dtype=np.uint32)
    if width == 32:
        # Beyond the 255 that the manual allows a GPU takes the low byte in 32-bit forms, in 64-bit ones it does not.
        places = np.concatenate([places, places + 256])
    places = np.concatenate([places, rng.integers(0, width + 1, (400, 2), dtype=np.uint32)])
    return words(rng, len(places), width), np.ascontiguousarray(places[:, 0]), np.ascontiguousarray(places[:, 1])


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_bfe(kind):
    a, position, length = _fields(np.random.default_rng(4), int(kind[1:]))
    body = f"bfe.{kind} %y0_0, %x0_0, %x1_0, %x2_0;"
    compare(body, [a, position, length], lambda *x: bits.bfe(*x, kind), f"b{kind[1:]}")


@pytest.mark.parametrize("width", [32, 64])
def test_bfi(width):
    rng = np.random.default_rng(5)
    a, position, length = _fields(rng, width)
    b = words(rng, len(a), width)
    body = f"bfi.b{width} %y0_0, %x0_0, %x1_0, %x2_0, %x3_0;"
    compare(body, [a, b, position, length], lambda *x: bits.bfi(*x, width), f"b{width}")


@pytest.mark.parametrize("direction,mode", list(product("lr", ["clamp", "wrap"])))
def test_shf(direction, mode):
    rng = np.random.default_rng(6)
    c = np.concatenate([np.arange(70), [95, 96, 255, 256, 1 << 31, (1 << 32) - 1]]).astype(np.uint32)
    a, b = words(rng, len(c)), words(rng, len(c))
    body = f"shf.{direction}.{mode}.b32 %y0_0, %x0_0, %x1_0, %x2_0;"
    compare(body, [a, b, c], lambda *x: bits.shf(direction, mode, *x))


@pytest.mark.parametrize("a_kind,b_kind", list(product(["u32", "s32"], repeat=2)))
def test_dot_products(a_kind, b_kind):
    rng = np.random.default_rng(7)
    arrays = [words(rng, 512) for _ in range(3)]
    types = f"{a_kind}.{b_kind} %y0_0, %x0_0, %x1_0, %x2_0;"
    compare(f"dp4a.{types}", arrays, lambda *x: bits.dp4a(*x, a_kind, b_kind))
    for half in ("lo", "hi"):
        compare(f"dp2a.{half}.{types}", arrays, lambda *x, h=half: bits.dp2a(*x, a_kind, b_kind, h))


# ---- conversions ---------------------------------------------------------------------------------------------------
def f32_codes(rng, form, count=3000):
    """Codes of f32: random ones, and those at which rounding to the format or its limits are decided."""
    exact = np.arange(min(1 << form.bits, 1 << 16), dtype=np.uint64)
    exact = rng.choice(exact, min(len(exact), count), replace=False)
    at = np.array([convert.encode(F32, decode(form, int(c) << form.padding)) for c in exact], dtype=np.uint32)
    # Between two neighbours of the format lie 2^(23 - fraction) values of f32.
    step = 1 << (23 - form.fraction)
    near = [at + np.uint32(d & 0xFFFFFFFF) for d in (0, 1, -1, step // 2, step // 2 - 1, step // 2 + 1)]
    special = [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F7FFFFF, 0xFF7FFFFF, 1, 0x807FFFFF]
    return np.concatenate([*near, rng.integers(0, 1 << 32, 500, dtype=np.uint32), np.array(special, dtype=np.uint32)])


def check_cvt(body, arrays, form, reference, kind, relu=False, nan_payload=False, **options):
    """Packed results, half by half. Under .relu and .sat the manual leaves the sign of a zero open."""
    (found,) = run_lanes(body, arrays, [(kind, 1)], block=128, **options)
    expected = np.array([reference(*(int(v) for v in row)) for row in zip(*arrays, strict=True)], dtype=np.uint64)
    if nan_payload and not relu:
        assert_codes(found, expected, arrays, body)
    else:
        pairs = [split(form, x.astype(np.uint64)) for x in (found, expected)]
        assert_same_numbers(form, *pairs, zero_sign=not relu)


PACKS = [
    (form, mode, relu, satfinite)
    for form, modes in ((F16, ("rn", "rz")), (BF16, ("rn", "rz")))
    for mode, relu, satfinite in product(modes, (False, True), (False, True))
]


@pytest.mark.parametrize("form,mode,relu,satfinite", PACKS, ids=lambda v: getattr(v, "name", str(v)))
def test_cvt_pairs_of_halves(form, mode, relu, satfinite):
    rng = np.random.default_rng(8)
    a = f32_codes(rng, form)
    b = rng.permutation(a)
    name = f"cvt.{mode}{'.relu' * relu}{'.satfinite' * satfinite}.{form.name}x2.f32"
    check_cvt(
        f"{name} %y0_0, %x0_0, %x1_0;", [a, b], form,
        lambda u, v: convert.cvt_pack(form, u, v, mode=mode, relu=relu, satfinite=satfinite), "b32", relu,
    )


@pytest.mark.parametrize("form", [E4M3, E5M2], ids=lambda f: f.name)
@pytest.mark.parametrize("relu", [False, True])
def test_cvt_f32_to_fp8(form, relu):
    """fp8 has one canonical NaN, 0x7f, so codes must be equal to the bit."""
    rng = np.random.default_rng(9)
    a = f32_codes(rng, form)
    b = rng.permutation(a)
    body = f"cvt.rn.satfinite{'.relu' * relu}.{form.name}x2.f32 %y0_0, %x0_0, %x1_0;"
    check_cvt(
        body, [a, b], form, lambda u, v: convert.cvt_pack(form, u, v, satfinite=True, relu=relu), "b16", relu, True
    )


@pytest.mark.parametrize("form", [E4M3, E5M2], ids=lambda f: f.name)
@pytest.mark.parametrize("relu", [False, True])
def test_cvt_f16_to_fp8_all_codes(form, relu):
    low = np.random.default_rng(10).permutation(1 << 16).astype(np.uint32)
    packed = np.arange(1 << 16, dtype=np.uint32) << 16 | low
    body = f"cvt.rn.satfinite{'.relu' * relu}.{form.name}x2.f16x2 %y0_0, %x0_0;"

    def reference(code):
        return convert.cvt_packed(form, F16, code, satfinite=True, relu=relu)

    check_cvt(body, [packed], form, reference, "b16", relu, True)


@pytest.mark.parametrize("form", [E4M3, E5M2], ids=lambda f: f.name)
@pytest.mark.parametrize("relu", [False, True])
def test_cvt_fp8_to_f16_all_pairs(form, relu):
    packed = np.arange(1 << 16, dtype=np.uint16)
    body = f"cvt.rn{'.relu' * relu}.f16x2.{form.name}x2 %y0_0, %x0_0;"
    check_cvt(body, [packed], F16, lambda code: convert.cvt_packed(F16, form, code, relu=relu), "b32", relu)


def test_cvt_f32_to_e2m1():
    rng = np.random.default_rng(11)
    a = f32_codes(rng, E2M1)
    b = rng.permutation(a)
    check_cvt(
        "cvt.rn.satfinite.e2m1x2.f32 %y0_0, %x0_0, %x1_0;", [a, b], E2M1,
        lambda u, v: convert.cvt_pack(E2M1, u, v, satfinite=True), "b8", nan_payload=True, target="sm_100a",
    )


def test_cvt_e2m1_to_f16():
    packed = np.arange(256, dtype=np.uint8)
    check_cvt(
        "cvt.rn.f16x2.e2m1x2 %y0_0, %x0_0;", [packed], F16, lambda c: convert.cvt_packed(F16, E2M1, c), "b32",
        target="sm_100a",
    )


SCALARS = [
    *(("f16", F16, "b16", mode) for mode in ("rn", "rz", "rm", "rp")),
    *(("bf16", BF16, "b16", mode) for mode in ("rn", "rz")),
    ("tf32", TF32, "b32", "rna"),
]


@pytest.mark.parametrize("name,form,kind,mode", SCALARS, ids=lambda v: v if isinstance(v, str) else "")
def test_cvt_f32_to_scalar(name, form, kind, mode):
    a = f32_codes(np.random.default_rng(12), form)
    (found,) = run_lanes(f"cvt.{mode}.{name}.f32 %y0_0, %x0_0;", [a], [(kind, 1)], block=128)
    assert_same_numbers(form, found, [convert.cvt(form, int(x), mode=mode) for x in a])


@pytest.mark.parametrize("form", [F16, BF16], ids=lambda f: f.name)
def test_cvt_half_to_f32_all_codes(form):
    a = np.arange(1 << 16, dtype=np.uint16)
    (found,) = run_lanes(f"cvt.f32.{form.name} %y0_0, %x0_0;", [a], [("b32", 1)], block=256)
    assert_same_numbers(F32, found, [convert.cvt(F32, int(x), form) for x in a])


# ---- packed halves -------------------------------------------------------------------------------------------------
def half_codes(rng, form, count=4000):
    """Triples: random codes, codes of near exponents, and triples at which a second rounding would show."""
    wild = rng.integers(0, 1 << 16, (count, 3), dtype=np.uint32)
    one = 0x3C00 if form is F16 else 0x3F80
    near = (rng.integers(0, 4 << form.fraction, (count, 3), dtype=np.uint32) + (one - (2 << form.fraction))) ^ (
        rng.integers(0, 2, (count, 3), dtype=np.uint32) << 15
    )
    # The product lies in the middle between two values; the smallest numbers decide.
    x = one + rng.integers(0, 1 << form.fraction, (count, 1), dtype=np.uint32)
    middle = np.concatenate([x, np.full_like(x, one | 1 << (form.fraction - 1)), np.full_like(x, 1)], axis=1)
    middle[::2, 2] |= 0x8000
    edges = [0, 0x8000, 1, 0x8001, form.largest, form.largest | 0x8000, form.largest + 1, form.nan, one]
    return np.concatenate([wild, near, middle, np.array(list(product(edges, repeat=3)), dtype=np.uint32)])


ARITHMETIC = [
    *((form, "fma.rn", 3, convert.fma) for form in (F16, BF16)),
    *((form, "mul.rn", 2, convert.mul) for form in (F16, BF16)),
    *((form, "add.rn", 2, convert.add) for form in (F16, BF16)),
    *((form, "fma.rn.relu", 3, partial(convert.fma, limit="relu")) for form in (F16, BF16)),
    (F16, "fma.rn.sat", 3, partial(convert.fma, limit="sat")),
]


@pytest.mark.parametrize("form,name,operands,function", ARITHMETIC, ids=[f"{n}.{f.name}x2" for f, n, *_ in ARITHMETIC])
def test_packed_arithmetic_rounds_once(form, name, operands, function):
    rng = np.random.default_rng(13)
    low = half_codes(rng, form)
    high = rng.permutation(low, axis=0)
    arrays = [np.ascontiguousarray(high[:, i] << 16 | low[:, i]) for i in range(operands)]
    registers = ", ".join(f"%x{i}_0" for i in range(operands))
    check_cvt(
        f"{name}.{form.name}x2 %y0_0, {registers};", arrays, form, lambda *x: convert.halves(function, form, *x), "b32",
        relu="relu" in name or "sat" in name,
    )
