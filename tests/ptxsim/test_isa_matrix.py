# SPDX-License-Identifier: Apache-2.0
"""Matrix instructions in the simulator against isa/: mma.sync, ldmatrix, stmatrix, movmatrix.

A fragment's layout is shown twice: one element set at a time, and whole random matrices against a plain product.
"""

import random

import numpy as np
import pytest

from isa import formats, kernels, matrices, mma
from isa.formats import FORMATS
from isa_run import assert_same_numbers, run_lanes, words

ALL = mma.FLOATS + mma.INTEGER + mma.FP8_LATER
# A saturating variant has the layouts of the other one.
LAYOUTS = [v for v in ALL if not v.satfinite]


def multiply(variant, a, b, c):
    """D's registers, [warps][32][registers], from those of A, B and C."""
    operands = [np.asarray(x, dtype=np.uint32) for x in (a, b, c)]
    count = variant.layout("d").registers
    names = [kernels.rows("y", 0, count)] + [kernels.rows("x", k, o.shape[2]) for k, o in enumerate(operands)]
    arrays = [o.reshape(-1, o.shape[2]) for o in operands]
    (found,) = run_lanes(f"{variant.opcode} {', '.join(names)};", arrays, [("b32", count)])
    return found.reshape(-1, 32, count)


def one(kind):
    return formats.encode(FORMATS[kind], formats.real(1)) if kind in FORMATS else 1


def ones_of(layout):
    """All fragments with one element set to 1: [elements][32][registers] of positions, and the places by the manual."""
    per_register = 32 // layout.bits
    places = [(lane, i) for lane in range(32) for i in range(layout.elements)]
    registers = np.zeros((len(places), 32, layout.registers), dtype=np.uint32)
    for index, (lane, i) in enumerate(places):
        registers[index, lane, i // per_register] = 1 << i % per_register * layout.bits
    return registers, [layout.at(lane, i) for lane, i in places]


def digits(count, other):
    """[count][other]: number k in binary in entries 0 to 6, and a 1 in entry 7, which marks the row or column."""
    return [[k >> n & 1 if n < 7 else n == 7 for n in range(other)] for k in range(count)]


def decoded(variant, registers):
    """The matrix of truth values of D."""
    zeros = {0, 0x8000} if variant.d == "f16" else {0, 1 << 31}
    return [[code not in zeros for code in row] for row in variant.layout("d").unpack(registers)]


@pytest.mark.parametrize("variant", LAYOUTS, ids=lambda v: v.opcode)
def test_one_element_of_a(variant):
    fragments, places = ones_of(variant.layout("a"))
    b = [[bit * one(variant.b) for bit in row] for row in digits(variant.k, 8)]
    shape = (len(places), 32, 1)
    packed = np.tile(np.array(variant.layout("b").pack(b), dtype=np.uint32), shape)
    zero = np.zeros((len(places), 32, variant.layout("c").registers))
    found = multiply(variant, fragments * np.uint32(one(variant.a)), packed, zero)
    for registers, (row, column) in zip(found, places, strict=True):
        expected = [[r == row and (column >> n & 1 or n == 7) for n in range(8)] for r in range(variant.m)]
        assert np.array_equal(decoded(variant, registers), np.array(expected, dtype=bool))


@pytest.mark.parametrize("variant", LAYOUTS, ids=lambda v: v.opcode)
def test_one_element_of_b(variant):
    fragments, places = ones_of(variant.layout("b"))
    a = np.array(digits(variant.k, variant.m)).T * one(variant.a)
    packed = np.tile(np.array(variant.layout("a").pack(a), dtype=np.uint32), (len(places), 1, 1))
    zero = np.zeros((len(places), 32, variant.layout("c").registers))
    found = multiply(variant, packed, fragments * np.uint32(one(variant.b)), zero)
    for registers, (row, column) in zip(found, places, strict=True):
        expected = [[n == column and (row >> r & 1 if r < 7 else r == 7) for n in range(8)] for r in range(variant.m)]
        assert np.array_equal(decoded(variant, registers), np.array(expected, dtype=bool))


@pytest.mark.parametrize("variant", LAYOUTS, ids=lambda v: v.opcode)
def test_one_element_of_c(variant):
    fragments, places = ones_of(variant.layout("c"))
    a, b = (np.zeros((len(places), 32, variant.layout(o).registers)) for o in "ab")
    found = multiply(variant, a, b, fragments * np.uint32(one(variant.c)))
    for registers, place in zip(found, places, strict=True):
        expected = [[(r, n) == place for n in range(8)] for r in range(variant.m)]
        assert decoded(variant, registers) == expected


# ---- whole matrices ------------------------------------------------------------------------------------------------
def matrix(rng, kind, shape, manner):
    """Random codes: exponents "near" that of 1, "wide" apart, or "special" codes among near ones."""
    rows, columns = shape
    if kind == "s32":
        edges = [(1 << 31) - 1, 1 << 31, (1 << 31) - 500, (1 << 31) + 500]
        near = rng.integers(-5000, 5000, shape)
        return np.where(rng.integers(0, 2, shape), rng.choice(edges, shape), near) & 0xFFFFFFFF
    if kind not in FORMATS:
        return rng.integers(0, 1 << int(kind[1:]), shape)
    form = FORMATS[kind]
    sign = rng.integers(0, 2, shape) << (form.exponent + form.fraction)
    codes = rng.integers(0, form.largest + 1, shape)
    if manner != "wide" or form.exponent == 8:
        # With all exponents of 8 bits nearly every sum would overflow.
        spread = min(60 if manner == "wide" else 3, (1 << (form.exponent - 1)) - 2)
        middle = ((1 << (form.exponent - 1)) - 1) << form.fraction
        codes = middle + rng.integers(-spread << form.fraction, spread << form.fraction, shape)
    codes[0, columns // 2] = 0
    codes[rows // 2, 0] = 1
    if manner == "special":
        codes[1, 1], codes[2, 0], codes[3, 3] = form.nan >> form.padding, form.largest + 1, form.largest
    return (sign | codes) << form.padding


MANNERS = ["near", "near", "wide", "wide", "special"]


def random_operands(variant, seed):
    """Matrices of codes (A, B, C) for each warp."""
    rng = np.random.default_rng(seed)
    cases = []
    for manner in MANNERS:
        shapes = {"a": (variant.m, variant.k), "b": (variant.k, variant.n), "c": (variant.m, variant.n)}
        # C is of no use for rounding if it drowns the products.
        manners = {"a": manner, "b": manner if manner != "special" else "near", "c": "near"}
        cases.append([matrix(rng, getattr(variant, o), shapes[o], manners[o]).tolist() for o in "abc"])
    return cases


@pytest.mark.parametrize("variant", ALL, ids=lambda v: v.opcode)
def test_random_matrices(variant):
    """--mma exact, the default: products and their sum are exact, and the result is rounded once."""
    cases = random_operands(variant, random.Random(variant.opcode).randrange(1 << 30))
    packed = [[variant.layout(o).pack(m) for m in ms] for o, ms in zip("abc", zip(*cases, strict=True), strict=True)]
    found = multiply(variant, *packed)
    for registers, case in zip(found, cases, strict=True):
        result, expected = variant.layout("d").unpack(registers), variant.product(*case)
        if variant.d == "s32":
            assert result == expected
        else:
            assert_same_numbers(FORMATS[variant.d], result, expected, zero_sign=False)


def integers(kind, codes):
    """The values of s8, u8, s4 or u4 codes."""
    width = int(kind[1:])
    return np.where((kind[0] == "s") & (codes >> (width - 1) == 1), codes - (1 << width), codes)


@pytest.mark.parametrize("variant", [v for v in mma.INTEGER if not v.satfinite], ids=lambda v: v.opcode)
def test_integer_products_are_numpys(variant):
    """Beside the reference a plain product in NumPy, so that a mistake in isa/mma.py cannot hide."""
    rng = np.random.default_rng(31)
    a = matrix(rng, variant.a, (variant.m, variant.k), "")
    b = matrix(rng, variant.b, (variant.k, variant.n), "")
    c = rng.integers(-1000, 1000, (variant.m, variant.n))
    packed = [[variant.layout(o).pack(x)] for o, x in zip("abc", (a, b, c), strict=True)]
    (registers,) = multiply(variant, *packed)
    found = np.array(variant.layout("d").unpack(registers), dtype=np.uint32).view(np.int32)
    assert np.array_equal(found, integers(variant.a, a) @ integers(variant.b, b) + c)


# ---- ldmatrix, stmatrix, movmatrix ---------------------------------------------------------------------------------
# The block's 32 threads fill 1,024 bytes of shared memory; %place is the address that this lane gives.
FILL = """
.reg .b32 %place, %start;
mov.u32 %start, buffer;
add.u32 %place, %start, %x1_0;
mad.lo.u32 %start, %t, 32, %start;
""" + "\n".join(f"st.shared.b32 [%start+{4 * i}], %x0_{i};" for i in range(8)) + "\nbar.sync 0;\n"
WARPS = 16


def shared_cases(rng):
    """Memory [warps * 32][8] and addresses [warps * 32]: rows of 16 bytes anywhere, each at most once."""
    memory = words(rng, WARPS * 32 * 8).reshape(-1, 8)
    addresses = [rng.permutation(64)[:32] * 16 for _ in range(WARPS)]
    return memory, np.concatenate(addresses).astype(np.uint32)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "trans"])
def test_ldmatrix(number, transposed):
    memory, addresses = shared_cases(np.random.default_rng(32))
    opcode = f"ldmatrix.sync.aligned.m8n8.x{number}{'.trans' * transposed}.shared.b16"
    body = f"{FILL}{opcode} {kernels.rows('y', 0, number)}, [%place];"
    (found,) = run_lanes(body, [memory, addresses], [("b32", number)], shared=1024)
    for w in range(WARPS):
        lanes = slice(32 * w, 32 * w + 32)
        expected = matrices.ldmatrix(memory[lanes].tobytes(), addresses[lanes].tolist(), number, transposed)
        assert found[lanes].tolist() == expected


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "trans"])
def test_stmatrix(number, transposed):
    rng = np.random.default_rng(33)
    memory, addresses = shared_cases(rng)
    registers = words(rng, WARPS * 32 * number).reshape(-1, number)
    opcode = f"stmatrix.sync.aligned.m8n8.x{number}{'.trans' * transposed}.shared.b16"
    back = "\n".join(f"ld.shared.b32 %y0_{i}, [%start+{4 * i}];" for i in range(8))
    body = f"{FILL}{opcode} [%place], {kernels.rows('x', 2, number)};\nbar.sync 0;\n{back}"
    (found,) = run_lanes(body, [memory, addresses, registers], [("b32", 8)], shared=1024)
    for w in range(WARPS):
        lanes = slice(32 * w, 32 * w + 32)
        expected = bytearray(memory[lanes].tobytes())
        matrices.stmatrix(expected, addresses[lanes].tolist(), registers[lanes].tolist(), transposed)
        assert found[lanes].tobytes() == bytes(expected)


def test_movmatrix():
    registers = words(np.random.default_rng(34), 32 * WARPS)
    (found,) = run_lanes("movmatrix.sync.aligned.m8n8.trans.b16 %y0_0, %x0_0;", [registers], [("b32", 1)])
    for w in range(WARPS):
        lanes = slice(32 * w, 32 * w + 32)
        assert found[lanes].ravel().tolist() == matrices.movmatrix([int(x) for x in registers[lanes]])
