# SPDX-License-Identifier: Apache-2.0
"""cvt between integers, floats and packed small floats."""
from forms import Form

INTS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
TO_INT = ("rni", "rzi", "rmi", "rpi")
ROUNDINGS = ("rn", "rz", "rm", "rp")


def result(kind):
    """A byte is observed in a 32-bit register, as cvt extends it."""
    return "b32" if kind[1:] == "8" else kind


def with_bfloat(op, out, source):
    """Between bf16 and a byte ptxas takes no register wider than the byte."""
    if ".u8" not in op and ".s8" not in op:
        return Form(op, out, source, target=90)
    byte = "s8" if ".s8" in op else "u8"
    body = "cvt.u8.u32 %%byte, %%a0;\n  %s %%d0, %%byte;" % op if out == "bf16" else \
        "%s %%byte, %%a0;\n  cvt.%s32.%s %%d0, %%byte;" % (op, byte[0], byte)
    return Form(op, out, source, "{\n  .reg .b8 %%byte;\n  %s\n  }" % body, target=90)


def integers():
    for to in INTS:
        for source in INTS:
            if to != source:
                yield Form("cvt.%s.%s" % (to, source), result(to), source)
                saturates = source[0] == "s" and to[0] == "u" or int(to[1:]) < int(source[1:]) or \
                    source[0] == "u" and to[0] == "s" and int(to[1:]) == int(source[1:])
                if saturates:
                    yield Form("cvt.sat.%s.%s" % (to, source), result(to), source)
    for to, source in (("u16", "s32"), ("s16", "s32")):
        yield Form("cvt.pack.sat.%s.%s" % (to, source), "b32", "s32 s32")
    for to in ("u8", "s8", "u4", "s4", "u2", "s2"):
        yield Form("cvt.pack.sat.%s.s32.b32" % to, "b32", "s32 s32 b32")


def from_integers():
    for source in INTS:
        for rounding in ROUNDINGS:
            for to in ("f16", "f32", "f64"):
                yield Form("cvt.%s.%s.%s" % (rounding, to, source), to, source)
            if rounding == "rn" or source in ("s32", "u64"):
                yield with_bfloat("cvt.%s.bf16.%s" % (rounding, source), "bf16", source)


def to_integers():
    for source in ("f16", "f32", "f64"):
        for to in INTS:
            for rounding in TO_INT:
                yield Form("cvt.%s.%s.%s" % (rounding, to, source), result(to), "int:" + source)
    for to in INTS:
        yield with_bfloat("cvt.rzi.%s.bf16" % to, result(to), "int:bf16")
        yield Form("cvt.rni.sat.%s.f32" % to, result(to), "int:f32")
        yield Form("cvt.rpi.ftz.%s.f32" % to, result(to), "int:f32")
        yield Form("cvt.rmi.ftz.sat.%s.f32" % to, result(to), "int:f32")
    for to in ("s32", "u8"):
        for rounding in ("rni", "rmi", "rpi"):
            yield with_bfloat("cvt.%s.%s.bf16" % (rounding, to), result(to), "int:bf16")


def floats():
    for kind in ("f16", "f32", "f64"):
        for rounding in TO_INT:
            for mode in ("", ".sat") if kind != "f32" else ("", ".sat", ".ftz", ".ftz.sat"):
                yield Form("cvt.%s%s.%s.%s" % (rounding, mode, kind, kind), kind, "int:" + kind)
    for rounding in TO_INT:
        yield Form("cvt.%s.bf16.bf16" % rounding, "bf16", "int:bf16", target=90)
    for rounding in ROUNDINGS:
        for to, source in (("f16", "f64"), ("f32", "f64"), ("f16", "f32")):
            yield Form("cvt.%s.%s.%s" % (rounding, to, source), to, source, count=256)
            yield Form("cvt.%s.sat.%s.%s" % (rounding, to, source), to, source)
        for mode in (".ftz", ".ftz.sat"):
            yield Form("cvt.%s%s.f16.f32" % (rounding, mode), "f16", "f32")
            yield Form("cvt.%s%s.f32.f64" % (rounding, mode), "f32", "f64")
        yield Form("cvt.%s.bf16.f64" % rounding, "bf16", "f64", target=90)
    for mode in ("", ".ftz", ".sat", ".ftz.sat"):
        yield Form("cvt%s.f32.f16" % mode, "f32", "f16", count=256)
        yield Form("cvt%s.f64.f32" % mode, "f64", "f32")
    for mode in ("", ".sat"):
        yield Form("cvt%s.f64.f16" % mode, "f64", "f16")
        yield Form("cvt%s.f32.f32" % mode, "f32", "f32")
        yield Form("cvt%s.f16.f16" % mode, "f16", "f16")
        yield Form("cvt%s.f64.f64" % mode, "f64", "f64")
    yield Form("cvt.f32.bf16", "f32", "bf16", target=90, count=256)
    yield Form("cvt.f64.bf16", "f64", "bf16", target=90)
    yield Form("cvt.rn.bf16.f16", "bf16", "f16", target=90)
    yield Form("cvt.rn.f16.bf16", "f16", "bf16", target=90)
    yield Form("cvt.rz.f16.bf16", "f16", "bf16", target=90)


def narrow():
    for rounding in ("rn", "rz"):
        for relu in ("", ".relu"):
            yield Form("cvt.%s%s.bf16.f32" % (rounding, relu), "bf16", "f32", count=256)
            yield Form("cvt.%s%s.bf16x2.f32" % (rounding, relu), "bf16x2", "f32 f32", count=256)
            yield Form("cvt.%s%s.f16x2.f32" % (rounding, relu), "f16x2", "f32 f32", count=256)
            if relu:
                yield Form("cvt.%s%s.f16.f32" % (rounding, relu), "f16", "f32")
            yield Form("cvt.%s%s.tf32.f32" % (rounding, relu), "b32", "f32", target=90)
    for rounding in ("rm", "rp"):
        yield Form("cvt.%s.bf16.f32" % rounding, "bf16", "f32", target=90)
    yield Form("cvt.rna.tf32.f32", "b32", "f32")
    yield Form("cvt.rna.satfinite.tf32.f32", "b32", "f32", version=81)
    for rounding in ("rn", "rz"):
        for relu in ("", ".relu"):
            yield Form("cvt.%s%s.satfinite.f16x2.f32" % (rounding, relu), "f16x2", "f32 f32", version=81)
            yield Form("cvt.%s%s.satfinite.bf16x2.f32" % (rounding, relu), "bf16x2", "f32 f32", version=81)
            yield Form("cvt.%s%s.satfinite.bf16.f32" % (rounding, relu), "bf16", "f32", version=81)
            yield Form("cvt.%s%s.satfinite.f16.f32" % (rounding, relu), "f16", "f32", version=81)


def fp8():
    for kind in ("e4m3x2", "e5m2x2"):
        for relu in ("", ".relu"):
            yield Form("cvt.rn.satfinite%s.%s.f32" % (relu, kind), "b16", "f32 f32", target=89, version=81, count=256)
            yield Form("cvt.rn.satfinite%s.%s.f16x2" % (relu, kind), "b16", "f16x2", target=89, version=81, count=256)
            yield Form("cvt.rn%s.f16x2.%s" % (relu, kind), "f16x2", kind, target=89, version=81, count=256)
    for kind in ("e4m3x2", "e5m2x2"):
        # Between two of its numbers: values about one, where halfway cases are.
        yield Form("cvt.rn.satfinite.%s.f32" % kind, "b16", "low:f32 int:f32", target=89, version=81, count=256,
                   name="cvt.rn.satfinite.%s.f32.low" % kind)
        yield Form("cvt.rn.satfinite.%s.f16x2" % kind, "b16", "int:f16 int:f16",
                   "mov.b32 %%t0, {%%a0, %%a1};\n  cvt.rn.satfinite.%s.f16x2 %%d0, %%t0;" % kind, target=89,
                   version=81, count=256, name="cvt.rn.satfinite.%s.f16x2.halfway" % kind)
    # Only later GPUs have the four-bit numbers; they are compared with the host's header, not with a golden file.
    for relu in ("", ".relu"):
        yield Form("cvt.rn.satfinite%s.e2m1x2.f32" % relu, "b32", "f32 f32",
                   "{\n  .reg .b8 %%byte;\n  cvt.rn.satfinite%s.e2m1x2.f32 %%byte, %%a0, %%a1;\n"
                   "  cvt.u32.u8 %%d0, %%byte;\n  }" % relu, target=100, arch="a", version=86, gpu=False)
        yield Form("cvt.rn%s.f16x2.e2m1x2" % relu, "f16x2", "b32",
                   "{\n  .reg .b8 %%byte;\n  cvt.u8.u32 %%byte, %%a0;\n"
                   "  cvt.rn%s.f16x2.e2m1x2 %%d0, %%byte;\n  }" % relu,
                   target=100, arch="a", version=86, gpu=False)


def forms():
    return [form for family in (integers, from_integers, to_integers, floats, narrow, fp8) for form in family()]
