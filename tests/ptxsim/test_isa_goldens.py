# SPDX-License-Identifier: Apache-2.0
"""The reference in isa/ against what a GPU answered (golden/): so it is more than another reading of the manual."""

import functools
import re
from fractions import Fraction
from pathlib import Path

import pytest

import forms
import golden_file
from isa import bits, convert, matrices, memory, mma, warp
from isa.formats import FORMATS, TF32, decode, is_nan

GOLDEN = Path(__file__).with_name("golden") / "sm_90.golden"
HALF = {"f16x2": FORMATS["f16"], "bf16x2": FORMATS["bf16"], "e4m3x2": FORMATS["e4m3"], "e5m2x2": FORMATS["e5m2"]}


@functools.cache
def answers():
    """{name: (columns of inputs, columns of results)}; forms that changed since they were recorded are left out."""
    found = {}
    _, results = golden_file.read(str(GOLDEN))
    for form in forms.all_forms():
        digest, packed = results.get(form.name, ("", b""))
        if digest == forms.digest(form):
            found[form.name] = (form.inputs(), golden_file.unpack(form, packed), forms.pack_inputs(form))
    return found


def names(pattern):
    """The forms that a pattern matches as a whole, known without executing anything."""
    return [form.name for form in forms.all_forms() if form.gpu and re.fullmatch(pattern, form.name)]


def recorded(name):
    """Rows of inputs and rows of results, one for each thread, and the bytes of the inputs."""
    assert name in answers(), f"{name} has no recorded answer: tests/ptxsim/record_goldens.py"
    inputs, results, data = answers()[name]
    return list(zip(*inputs, strict=True)), list(zip(*results, strict=True)), data


def check_rows(name, reference, compared=lambda *row: True):
    """reference(row of inputs) -> row of results, or the only one; rows that are not to be compared are left out."""
    inputs, results, _ = recorded(name)
    for row, result in zip(inputs, results, strict=True):
        if not compared(*row):
            continue
        expected = reference(*row)
        expected = expected if isinstance(expected, tuple) else (expected,)
        assert tuple(int(x) for x in expected) == result, f"{name}{tuple(map(hex, row))}"


def check_warps(name, reference):
    """reference(32 values of each input) -> 32 tuples."""
    inputs, results, _ = recorded(name)
    for first in range(0, len(inputs), 32):
        columns = list(zip(*inputs[first : first + 32], strict=True))
        expected = [tuple(int(x) for x in row) for row in reference(*map(list, columns))]
        assert expected == results[first : first + 32], f"{name}, warp {first // 32}"


# ---- one thread ------------------------------------------------------------------------------------------------------
def bit_reference(name):
    opcode, *modifiers = name.split(".")
    if opcode == "lop3":
        return lambda *x: bits.lop3(*x, int(modifiers[1], 16))
    if opcode == "prmt":
        return lambda *x: bits.prmt(*x, "".join(modifiers[1:]))
    if opcode == "bfe":
        return lambda *x: bits.bfe(*x, modifiers[0])
    if opcode == "bfi":
        return lambda *x: bits.bfi(*x, int(modifiers[0][1:]))
    if opcode == "shf":
        return lambda *x: bits.shf(modifiers[0], modifiers[1], *x)
    if opcode == "dp4a":
        return lambda *x: bits.dp4a(*x, *modifiers)
    return lambda *x: bits.dp2a(*x, *modifiers[1:], modifiers[0])


BITS = r"lop3\.b32\.0x..|prmt\.b32.*|bf[ei]\..*|shf\..*|dp4a.*|dp2a.*"


@pytest.mark.parametrize("name", names(BITS))
def test_bits(name):
    """The manual restricts positions and lengths to 0..255; beyond, the GPU masks those of 32-bit forms only."""
    wide = re.fullmatch(r"bf[ei]\..64", name)
    check_rows(name, bit_reference(name), lambda *x: not wide or max(x[-2:]) < 256)


TO_PAIR = r"cvt\.(rn|rz)(\.relu)?(\.satfinite)?(\.relu)?\.(f16x2|bf16x2|e4m3x2|e5m2x2)\.f32(\.low)?"
BETWEEN_PAIRS = r"cvt\.rn(\.satfinite)?(\.relu)?\.(f16x2|e4m3x2|e5m2x2)\.(f16x2|e4m3x2|e5m2x2)"
TO_ONE = r"cvt\.(rn|rz|rm|rp|rna)(\.relu)?(\.satfinite)?\.(f16|bf16|tf32)\.f32"


@pytest.mark.parametrize("name", names(TO_PAIR))
def test_conversions_to_pairs(name):
    mode, relu, satfinite, later_relu, to, _ = re.fullmatch(TO_PAIR, name).groups()
    options = {"mode": mode, "relu": bool(relu or later_relu), "satfinite": bool(satfinite)}
    check_rows(name, lambda u, v: convert.cvt_pack(HALF[to], u, v, **options))


@pytest.mark.parametrize("name", names(BETWEEN_PAIRS))
def test_conversions_between_pairs(name):
    satfinite, relu, to, source = re.fullmatch(BETWEEN_PAIRS, name).groups()
    options = {"relu": bool(relu), "satfinite": bool(satfinite)}
    check_rows(name, lambda x: convert.cvt_packed(HALF[to], HALF[source], x, **options))


@pytest.mark.parametrize("name", names(TO_ONE))
def test_conversions_to_one(name):
    mode, relu, satfinite, to = re.fullmatch(TO_ONE, name).groups()
    options = {"mode": mode, "relu": bool(relu), "satfinite": bool(satfinite)}
    # The H200 rounds NaN with .rna as if it were a number, to infinity even, and .satfinite makes it finite.
    check_rows(
        name, lambda x: convert.cvt(FORMATS[to], x, **options), lambda x: mode != "rna" or not is_nan(FORMATS["f32"], x)
    )


PACKED = r"(fma\.rn|mul|add)(\.sat|\.relu)?\.(f16x2|bf16x2)"


@pytest.mark.parametrize("name", [n for n in names(PACKED) if n[:3] == "fma" or "sat" not in n])
def test_packed_arithmetic(name):
    opcode, limit, kind = re.fullmatch(PACKED, name).groups()
    function = {"fma.rn": convert.fma, "mul": convert.mul, "add": convert.add}[opcode]
    function = functools.partial(function, limit=limit[1:]) if limit else function
    check_rows(name, lambda *x: convert.halves(function, HALF[kind], *x))


# ---- lanes -----------------------------------------------------------------------------------------------------------
SHUFFLE = r"shfl\.sync\.(up|down|bfly|idx)\.b32(\.whole|\.width(\d+))?"


@pytest.mark.parametrize("name", names(SHUFFLE))
def test_shuffles(name):
    mode, kind, width = re.fullmatch(SHUFFLE, name).groups()
    clamp = 0 if mode == "up" else 31
    c = [(32 - int(width or 32)) << 8 | clamp] * 32

    def reference(a, b, given=None):
        return [pair[:1] if kind == ".whole" else pair for pair in warp.shfl(mode, a, b, given or c)]

    check_warps(name, reference)


@pytest.mark.parametrize("name", names(r"vote\.sync\.(all|any|uni|ballot)\.(pred|b32)|match\..*|redux\.sync\.\w+\.\w+"))
def test_votes_matches_and_reductions(name):
    opcode, first, second, third = (name.split(".") + [""])[:4]
    wide = name.endswith("b64")

    def values(columns):
        return [low | high << 32 for low, high in zip(*columns, strict=True)] if wide else columns[0]

    def reference(*columns):
        a = values(columns)
        if opcode == "vote":
            return [(warp.vote(second, [x != 0 for x in a]),)] * 32
        if opcode == "redux":
            return [(warp.redux(second, third, a),)] * 32
        return [warp.match_all(a)] * 32 if first == "all" else [(m,) for m in warp.match_any(a)]

    check_warps(name, reference)


LDMATRIX = r"(ld|st)matrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?(\.shared|\.shared::cta)?\.b16"


@pytest.mark.parametrize("name", names(LDMATRIX))
def test_matrices_in_shared_memory(name):
    verb, number, trans, _ = re.fullmatch(LDMATRIX, name).groups()

    def reference(*columns):
        rows = list(zip(*columns, strict=True))
        store = bytearray(b"".join(word.to_bytes(4, "little") for row in rows for word in row[:4]))
        places = [16 * (row[4] & 31) for row in rows]
        if verb == "ld":
            return matrices.ldmatrix(store, places, int(number), bool(trans))
        matrices.stmatrix(store, places, [row[5:] for row in rows], bool(trans))
        words = [int.from_bytes(store[i : i + 4], "little") for i in range(0, 512, 4)]
        return [words[4 * lane : 4 * lane + 4] for lane in range(32)]

    check_warps(name, reference)


def test_movmatrix():
    check_warps("movmatrix.sync.aligned.m8n8.trans.b16", lambda a: [(d,) for d in matrices.movmatrix(a)])


# ---- memory ----------------------------------------------------------------------------------------------------------
ATOM = r"atom\.(global|shared)\.(inc|dec|cas|exch|add|min|max|and|or|xor)\.([bus](?:32|64))"


@pytest.mark.parametrize("name", names(ATOM))
def test_atomics(name):
    space, operation, kind = re.fullmatch(ATOM, name).groups()
    inputs, results, _ = recorded(name)
    for thread, (row, result) in enumerate(zip(inputs, results, strict=True)):
        old, b = row[:2]
        if operation == "cas" and thread % 32 < 16:
            b = old  # the form's kernel lets half of the lanes succeed
        after, before = result if space == "global" else result[::-1]
        assert (before, after) == (old, memory.atom(operation, kind, old, b, *row[2:])), f"{name} thread {thread}"


COPY = r"cp\.async\.c[ag]\.shared\.global\.(4|8|16)(\.zfill|\.none)?\.(all|group)"


@pytest.mark.parametrize("name", names(COPY))
def test_copies(name):
    size, source, _ = re.fullmatch(COPY, name).groups()
    size = int(size)
    _, results, data = recorded(name)
    for thread, words in enumerate(results):
        given = {None: size, ".zfill": thread % 32 & (size - 1), ".none": 0}[source]
        expected = memory.cp_async(data[16 * thread : 16 * thread + 16], size, given) + b"\x5a" * (16 - size)
        assert b"".join(w.to_bytes(4, "little") for w in words) == expected, f"{name} thread {thread}"


# ---- mma -------------------------------------------------------------------------------------------------------------
VARIANTS = {v.opcode: v for v in mma.FLOATS + mma.INTEGER + mma.FP8_LATER}


@pytest.mark.parametrize("name", [n for n in names(r"mma\..*") if n in VARIANTS])
def test_mma(name):
    variant = VARIANTS[name]
    counts = [variant.layout(o).registers for o in "abc"]
    inputs, results, _ = recorded(name)
    for first in range(0, len(inputs), 32):
        rows = inputs[first : first + 32]
        operands, begin = [], 0
        for operand, count in zip("abc", counts, strict=True):
            operands.append(variant.layout(operand).unpack([row[begin : begin + count] for row in rows]))
            begin += count
        found = variant.layout("d").unpack(results[first : first + 32])
        if variant.d == "s32":
            assert found == variant.product(*operands), f"warp {first // 32}"
        else:
            check_product(variant, operands, found)


# Hopper keeps about 13 bits of a sum of fp8 products and about 24 of others, counted from the greatest term.
KEPT = {"e4m3": 2.0**-12, "e5m2": 2.0**-12}


def check_product(variant, operands, found):
    """The GPU sums with few bits; the exact sum lies within what it may lose. Infinities and NaN are as by IEEE 754."""
    a, b, c = operands
    kept = KEPT.get(variant.a, 2.0**-21)
    form = FORMATS[variant.d]
    exact = variant.product(a, b, c)
    for i in range(variant.m):
        for j in range(variant.n):
            got, wanted = decode(form, found[i][j]), decode(form, exact[i][j])
            what = f"{variant.opcode} element {i}, {j}: {got}, exactly {wanted}"
            if wanted.kind != "finite":
                assert got.kind == wanted.kind, what
                continue
            terms = [abs(decode(FORMATS[variant.c], c[i][j]).value)]
            for k in range(variant.k):
                x, y = decode(FORMATS[variant.a], a[i][k]), decode(FORMATS[variant.b], b[k][j])
                terms.append(abs(x.value * y.value))
            if got.kind != "finite":
                # Products of k = 32 are summed in two steps, of which the first may overflow f16.
                assert sum(terms) > decode(form, form.largest << form.padding).value, what
                continue
            rounding = max(abs(wanted.value) * Fraction(2) ** -form.fraction, Fraction(2) ** (
                form.minimum_exponent - form.fraction))
            bound = max(terms) * Fraction(kept) * (variant.k + 1) + rounding
            assert abs(got.value - wanted.value) <= bound, what


def test_tf32_reads_the_upper_bits():
    """What the low 13 bits of a register do is left open by the manual; the reference drops them."""
    assert decode(TF32, 0x3F801FFF) == decode(TF32, 0x3F800000)
