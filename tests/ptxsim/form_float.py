# SPDX-License-Identifier: Apache-2.0
"""Floating-point arithmetic, comparisons and approximate functions; packed half and bfloat16."""
from forms import Form

ROUNDINGS = ("rn", "rz", "rm", "rp")
HALVES = ("f16", "f16x2", "bf16", "bf16x2")


def single():
    for op, inputs in (("add", 2), ("sub", 2), ("mul", 2), ("fma", 3), ("div", 2), ("rcp", 1), ("sqrt", 1)):
        for rounding in ROUNDINGS:
            for mode in ("", ".ftz"):
                yield Form("%s.%s%s.f32" % (op, rounding, mode), "f32", " ".join(["f32"] * inputs), count=256)
            yield Form("%s.%s.f64" % (op, rounding), "f64", " ".join(["f64"] * inputs))
    for op in ("add", "sub", "mul", "fma.rn"):
        for mode in (".sat", ".ftz.sat"):
            yield Form("%s%s.f32" % (op, mode), "f32", "f32 f32" + " f32" * op.startswith("fma"))
    for op in ("add", "sub", "mul"):
        yield Form(op + ".f32", "f32", "f32 f32")
        yield Form(op + ".f64", "f64", "f64 f64")
    for op in ("abs", "neg"):
        for kind in (".f32", ".ftz.f32", ".f64"):
            yield Form(op + kind, kind[-3:], kind[-3:])
    for op in ("min", "max"):
        for mode in ("", ".ftz", ".NaN", ".ftz.NaN"):
            yield Form("%s%s.f32" % (op, mode), "f32", "f32 f32", count=256)
        for mode in (".xorsign.abs", ".ftz.NaN.xorsign.abs"):
            yield Form("%s%s.f32" % (op, mode), "f32", "f32 f32", target=86)
        yield Form(op + ".f64", "f64", "f64 f64")
    for kind in ("f32", "f64"):
        yield Form("copysign." + kind, kind, "%s %s" % (kind, kind))
        for test in ("finite", "infinite", "number", "notanumber", "normal", "subnormal"):
            yield Form("testp.%s.%s" % (test, kind), "pred", kind)


def halves():
    for kind in HALVES:
        two, three, bf = "%s %s" % (kind, kind), "%s %s %s" % (kind, kind, kind), kind.startswith("bf")
        arithmetic = 90 if bf else 80
        for op in ("add", "sub", "mul"):
            for mode in ("", ".rn"):
                yield Form("%s%s.%s" % (op, mode, kind), kind, two, target=arithmetic)
            if not bf:
                for mode in (".ftz", ".sat", ".rn.ftz.sat"):
                    yield Form("%s%s.%s" % (op, mode, kind), kind, two)
        for mode in (("", ".relu") if bf else ("", ".ftz", ".sat", ".ftz.sat", ".relu", ".ftz.relu")):
            yield Form("fma.rn%s.%s" % (mode, kind), kind, three, count=256)
        for op in ("neg", "abs"):
            for mode in (("",) if bf else ("", ".ftz")):
                yield Form("%s%s.%s" % (op, mode, kind), kind, kind)
        for op in ("min", "max"):
            for mode in (("", ".NaN") if bf else ("", ".ftz", ".NaN", ".ftz.NaN")):
                yield Form("%s%s.%s" % (op, mode, kind), kind, two)
            for mode in (".xorsign.abs", ".NaN.xorsign.abs"):
                yield Form("%s%s.%s" % (op, mode, kind), kind, two, target=86)


def comparisons():
    operators = ("eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")
    for op in operators:
        yield Form("setp.%s.f32" % op, "pred", "f32 f32")
        yield Form("setp.%s.f64" % op, "pred", "f64 f64")
        yield Form("setp.%s.f16" % op, "pred", "f16 f16")
        yield Form("setp.%s.bf16" % op, "pred", "bf16 bf16", target=90)
    for op in ("eq", "lt", "geu", "neu"):
        yield Form("setp.%s.ftz.f32" % op, "pred", "f32 f32")
        yield Form("setp.%s.f16x2" % op, "pred pred", "f16x2 f16x2")
        yield Form("setp.%s.bf16x2" % op, "pred pred", "bf16x2 bf16x2", target=90)
    for op in ("lt", "ge"):
        yield Form("setp.%s.ftz.f16" % op, "pred", "f16 f16")
    for boolean in ("and", "or", "xor"):
        yield Form("setp.gt.%s.f32" % boolean, "pred pred", "f32 f32 pred")
        yield Form("setp.leu.%s.ftz.f32" % boolean, "pred pred", "f32 f32 pred")
        yield Form("setp.lt.%s.f64" % boolean, "pred pred", "f64 f64 pred")
    for op in ("lt", "geu", "nan"):
        yield Form("set.%s.u32.f32" % op, "u32", "f32 f32")
        yield Form("set.%s.f32.f32" % op, "f32", "f32 f32")
        yield Form("set.%s.f16.f16" % op, "f16", "f16 f16")
        yield Form("set.%s.f16x2.f16x2" % op, "f16x2", "f16x2 f16x2")
        yield Form("set.%s.bf16x2.bf16x2" % op, "bf16x2", "bf16x2 bf16x2", target=90)
    yield Form("set.eq.and.s32.f64", "s32", "f64 f64 pred")


def mixed():
    """Sources of 16 bits for f32 operations. No GPU that has them was at hand: test_mixed_precision.py computes them."""
    for kind in ("f16", "bf16"):
        for how in (".rn", ".rz", ".rm", ".rp", ".rn.sat"):
            for op, operands in (("add", "%s f32"), ("sub", "%s f32"), ("fma", "%s %s f32")):
                yield Form("%s%s.f32.%s" % (op, how, kind), "f32", operands.replace("%s", kind), target=100, arch="a",
                           version=86, gpu=False)


def approximate():
    """The bounds are those of the PTX ISA: relative, absolute or in units of the last place."""
    for mode in ("", ".ftz"):
        for op, check in (("ex2", ("rel", 2.0 ** -22)), ("rcp", ("ulp", 1)), ("rsqrt", ("rel", 2.0 ** -22.9)),
                          ("sqrt", ("rel", 2.0 ** -22)), ("lg2", ("lg2", 2.0 ** -22))):
            yield Form("%s.approx%s.f32" % (op, mode), "f32", "f32", check=check, count=256)
            yield Form("%s.approx%s.f32" % (op, mode), "f32", "low:f32", check=check,
                       name="%s.approx%s.f32.low" % (op, mode))
        for op in ("sin", "cos"):
            # The ISA states 2^-20.5 up to two pi; operands go up to 8, where ptxas and an H200 are 2^-19.9 apart.
            yield Form("%s.approx%s.f32" % (op, mode), "f32", "low:f32", check=("abs", 2.0 ** -19.5))
        for op in ("div.approx", "div.full"):
            yield Form("%s%s.f32" % (op, mode), "f32", "f32 f32", check=("ulp", 2), count=256)
            yield Form("%s%s.f32" % (op, mode), "f32", "low:f32 low:f32", check=("ulp", 2),
                       name="%s%s.f32.low" % (op, mode))
    yield Form("tanh.approx.f32", "f32", "low:f32", check=("rel", 2.0 ** -10.9))
    for kind in ("f16", "f16x2"):
        yield Form("tanh.approx." + kind, kind, kind, check=("abs", 2.0 ** -10.9))
        yield Form("ex2.approx." + kind, kind, kind, check=("rel", 2.0 ** -9.9))
    for kind in ("bf16", "bf16x2"):
        yield Form("tanh.approx." + kind, kind, kind, check=("abs", 2.0 ** -8), target=90)
        yield Form("ex2.approx.ftz." + kind, kind, kind, check=("rel", 2.0 ** -7), target=90)
    yield Form("rcp.approx.ftz.f64", "f64", "f64", check=("rel", 2.0 ** -18))
    yield Form("rsqrt.approx.f64", "f64", "f64", check=("rel", 2.0 ** -18))
    yield Form("rsqrt.approx.ftz.f64", "f64", "f64", check=("rel", 2.0 ** -18))


def forms():
    return [form for family in (single, halves, comparisons, mixed, approximate) for form in family()]
