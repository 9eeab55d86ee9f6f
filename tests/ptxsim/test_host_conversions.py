# SPDX-License-Identifier: Apache-2.0
"""The simulator's half, bfloat16, fp8 and fp4 against the host side of CUDA's headers, over all inputs of 16 bits."""
import pathlib
import shutil
import subprocess
import sysconfig

import numpy as np
import pytest

import float_bits
import form_run
import forms
import golden_file

HERE = pathlib.Path(__file__).parent
GOLDENS = golden_file.load(HERE / "golden")
FORMS = {form.name: form for form in forms.all_forms()}
HEADERS = next((path.parent for path in sorted(pathlib.Path(sysconfig.get_paths()["purelib"], "nvidia")
                                               .glob("*/include/cuda_fp8.h"), reverse=True)), None)
COMPILER = shutil.which("c++") or shutil.which("g++")
pytestmark = [pytest.mark.skipif(HEADERS is None, reason="CUDA's headers are not installed"),
              pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")]
COUNT = 1 << 16
ALL = np.arange(COUNT, dtype=np.uint64)
PTX_ROUNDING = {"rn": "rn", "rz": "rz", "rd": "rm", "ru": "rp"}


def single_floats():
    """All upper halves, with lower halves about where narrower floats have their midpoints."""
    low = np.array([0, 0x8000, 0x7FFF, 0x8001, 0x1000, 0x0FFF, 0x1001, 0xFFFF, 0x3000, 0x2000, 0x1234], np.uint64)
    return ALL << np.uint64(16) | low[ALL % np.uint64(len(low))]


def integers(bits):
    if bits == 16:
        return ALL
    values = np.random.default_rng(bits).integers(0, 2 ** bits, COUNT, np.uint64, endpoint=False)
    return np.where(ALL % 2 == 0, values >> (ALL % np.uint64(bits)), -(values >> (ALL % np.uint64(bits)))) \
        & np.uint64(2 ** bits - 1)


def doubles():
    values = np.random.default_rng(64).integers(0, 2 ** 64, COUNT, np.uint64)
    with np.errstate(invalid="ignore"):
        near_half = single_floats().astype(np.uint32).view(np.float32).astype(np.float64).view(np.uint64)
    return np.where(ALL % 4 == 0, values, near_half ^ (ALL % 3))


def partners():
    """For each 16-bit pattern another: any, a neighbour, its negative's neighbour, one of the same exponent."""
    any_other = (ALL * np.uint64(40503) + np.uint64(977)) & np.uint64(0xFFFF)
    near = (ALL + ALL % 5 - np.uint64(2)) & np.uint64(0xFFFF)
    same = ALL & np.uint64(0xFF00) | any_other & np.uint64(0xFF)
    return np.choose((ALL >> np.uint64(3)).astype(int) % 4, [any_other, near, near ^ np.uint64(0x8000), same])


def conversions():
    """(function of the header, form, operands)"""
    cases = []
    for suffix, rounding in PTX_ROUNDING.items():
        cases.append((f"__float2half_{suffix}", f"cvt.{rounding}.f16.f32", single_floats()))
        cases.append((f"__float2bfloat16_{suffix}", f"cvt.{rounding}.bf16.f32", single_floats()))
        for c, ptx, bits in (("int", "s32", 32), ("uint", "u32", 32), ("short", "s16", 16), ("ushort", "u16", 16),
                             ("ll", "s64", 64), ("ull", "u64", 64)):
            cases.append((f"__{c}2half_{suffix}", f"cvt.{rounding}.f16.{ptx}", integers(bits)))
    for c, ptx, bits in (("int", "s32", 32), ("uint", "u32", 32), ("short", "s16", 16), ("ushort", "u16", 16),
                         ("ll", "s64", 64), ("ull", "u64", 64)):
        cases.append((f"__half2{c}_rz", f"cvt.rzi.{ptx}.f16", ALL))
        cases.append((f"__bfloat162{c}_rz", f"cvt.rzi.{ptx}.bf16", ALL))
        cases.append((f"__{c}2bfloat16_rn", f"cvt.rn.bf16.{ptx}", integers(bits)))
    cases += [("__half2char_rz", "cvt.rzi.s8.f16", ALL), ("__half2uchar_rz", "cvt.rzi.u8.f16", ALL),
              ("__half2float", "cvt.f32.f16", ALL), ("__bfloat162float", "cvt.f32.bf16", ALL),
              ("__double2half", "cvt.rn.f16.f64", doubles()), ("__double2bfloat16", "cvt.rn.bf16.f64", doubles())]
    return [(name, form, [operand]) for name, form, operand in cases]


def arithmetic():
    functions = {"__hadd": "add", "__hsub": "sub", "__hmul": "mul", "__hmax": "max", "__hmin": "min",
                 "__hmax_nan": "max.NaN", "__hmin_nan": "min.NaN"}
    functions.update({f"__h{op}": f"setp.{op}" for op in ("eq", "ne", "lt", "le", "gt", "ge", "ltu", "geu", "neu")})
    cases = [(f"{name}.{kind}", f"{op}.{kind}", [ALL, partners()]) for kind in ("f16", "bf16")
             for name, op in functions.items()]
    return cases + [(f"__h{op}_sat.f16", f"{op}.sat.f16", [ALL, partners()]) for op in ("add", "sub", "mul")]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Calls a function of the headers, compiled for the host."""
    program = tmp_path_factory.mktemp("host") / "host_conversions"
    subprocess.run([COMPILER, "-std=c++20", "-O1", "-isystem", str(HEADERS), str(HERE / "host_conversions.cpp"), "-o",
                    str(program)], check=True)

    def call(name, operands):
        given = np.concatenate(operands).astype(np.uint64).tobytes()
        done = subprocess.run([program, name, str(len(operands))], input=given, capture_output=True, check=True)
        return np.frombuffer(done.stdout, np.uint64)
    return call


def simulate(name, operands):
    """The form's results on these operands."""
    form = FORMS[name]
    given = [operand.tolist() for operand in operands]
    whole = forms.Form(form.op, " ".join(form.outs), " ".join(form.ins), form.body, target=form.target, arch=form.arch,
                       version=form.version, count=len(given[0]), block=256, given=given)
    return form_run.execute(whole)


def same(kind, got, expected):
    """Equal, or both not a number: the host leaves payloads as they fall."""
    bits = 1 if kind == "pred" else forms.form_draw.width(kind)
    equal = (got ^ expected) & np.uint64(2 ** bits - 1) == 0
    if kind in forms.form_draw.FLOATS:
        values = [float_bits.decode(kind, words & np.uint64(2 ** bits - 1)) for words in (got, expected)]
        equal |= np.isnan(values[0]) & np.isnan(values[1])
    return equal


def agrees(form, got, expected):
    kind = form.outs[0]
    # A byte in a 32-bit register is extended by its sign there; the host's answer is the byte.
    byte = np.uint64(0xFF if kind == "b32" and "8." in form.name else 2 ** 64 - 1)
    return same(kind, got & byte, expected & byte)


@pytest.mark.parametrize("file", GOLDENS)
def test_host_agrees_with_the_gpu(file, host):
    """Both sources that are not ours say the same."""
    for function, name, _ in conversions() + arithmetic():
        form = FORMS[name]
        machine = np.array(golden_file.unpack(form, GOLDENS[file][1][name][1])[0], np.uint64)
        expected = host(function, [np.array(column, np.uint64) for column in form.inputs()])
        assert agrees(form, machine, expected).all(), name


@pytest.mark.parametrize("function, name, operands", conversions() + arithmetic(),
                         ids=[f"{case[0]}-{case[1]}" for case in conversions() + arithmetic()])
def test_halves(function, name, operands, host):
    expected = host(function, operands)
    got = simulate(name, operands)[0]
    wrong = np.flatnonzero(~agrees(FORMS[name], got, expected))
    examples = [(hex(operands[0][i]), hex(operands[-1][i]), hex(got[i]), hex(expected[i])) for i in wrong[:5]]
    assert not len(wrong), (len(wrong), examples)


@pytest.mark.parametrize("kind", ["e4m3", "e5m2", "e2m1"])
def test_to_small_from_float(kind, host):
    values = single_floats()
    other = values[::-1].copy()
    got = simulate(f"cvt.rn.satfinite.{kind}x2.f32", [values, other])[0]
    bits = 4 if kind == "e2m1" else 8
    expected = host(f"float.{kind}", [values]) << np.uint64(bits) | host(f"float.{kind}", [other])
    check_bytes(got, expected, values, other)


@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
def test_to_small_from_half(kind, host):
    other = partners()
    got = simulate(f"cvt.rn.satfinite.{kind}x2.f16x2", [ALL << np.uint64(16) | other])[0]
    expected = host(f"half.{kind}", [ALL]) << np.uint64(8) | host(f"half.{kind}", [other])
    check_bytes(got, expected, ALL, other)


@pytest.mark.parametrize("kind", ["e4m3", "e5m2", "e2m1"])
def test_from_small(kind, host):
    bits = np.uint64(4 if kind == "e2m1" else 8)
    pairs = ALL[:1 << int(2 * bits)]
    got = simulate(f"cvt.rn.f16x2.{kind}x2", [pairs])[0]
    low, high = host(f"{kind}.half", [pairs & (1 << bits) - np.uint64(1)]), host(f"{kind}.half", [pairs >> bits])
    good = same("f16", got & np.uint64(0xFFFF), low) & same("f16", got >> np.uint64(16), high)
    wrong = np.flatnonzero(~good)
    assert not len(wrong), [(hex(pairs[i]), hex(got[i]), hex(low[i]), hex(high[i])) for i in wrong[:5]]


def check_bytes(got, expected, first, second):
    wrong = np.flatnonzero(got != expected)
    examples = [(hex(first[i]), hex(second[i]), hex(got[i]), hex(expected[i])) for i in wrong[:5]]
    assert not len(wrong), (len(wrong), examples)
