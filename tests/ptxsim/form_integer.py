# SPDX-License-Identifier: Apache-2.0
"""Integer, logic and bit forms, comparisons and selections of integers."""
from forms import Form

INTS = ("s16", "u16", "s32", "u32", "s64", "u64")


def arithmetic():
    for t in INTS:
        for op in ("add", "sub", "min", "max", "mul.lo", "mul.hi"):
            yield Form("%s.%s" % (op, t), t, "%s %s" % (t, t))
        for op in ("div", "rem"):
            yield Form("%s.%s" % (op, t), t, "%s nonzero:%s" % (t, t))
        yield Form("mad.lo.%s" % t, t, "%s %s %s" % (t, t, t))
        yield Form("mad.hi.%s" % t, t, "%s %s %s" % (t, t, t))
        yield Form("sad.%s" % t, t, "%s %s %s" % (t, t, t))
        if t[1:] != "64":
            wide = "%s%d" % (t[0], 2 * int(t[1:]))
            yield Form("mul.wide.%s" % t, wide, "%s %s" % (t, t))
            yield Form("mad.wide.%s" % t, wide, "%s %s %s" % (t, t, wide))
    for op in ("add.sat.s32", "sub.sat.s32", "mad.hi.sat.s32"):
        yield Form(op, "s32", "s32 s32" + " s32" * op.startswith("mad"))
    for t in ("s16", "s32", "s64"):
        yield Form("abs." + t, t, t)
        yield Form("neg." + t, t, t)
    for op in ("mul24.lo.s32", "mul24.hi.s32", "mul24.lo.u32", "mul24.hi.u32"):
        yield Form(op, op[-3:], "%s %s" % (op[-3:], op[-3:]))
    for op in ("mad24.lo.s32", "mad24.hi.u32"):
        yield Form(op, op[-3:], "%s %s %s" % ((op[-3:],) * 3))
    for op in ("add", "min", "max"):
        for t in ("u16x2", "s16x2"):
            yield Form("%s.%s" % (op, t), "b32", "b32 b32", target=90)
    for op in ("min.relu.s32", "max.relu.s32"):
        yield Form(op, "s32", "s32 s32", target=90)
    for op in ("min.relu.s16x2", "max.relu.s16x2"):
        yield Form(op, "b32", "b32 b32", target=90)


def carries():
    for t, other in (("u32", "s32"), ("u64", "s64")):
        for kind in (t, other):
            yield Form("add.cc+addc." + kind, "%s %s %s" % (t, t, t), " ".join([t] * 4),
                       "add.cc.{0} %d0, %a0, %a2;\n  addc.cc.{0} %d1, %a1, %a3;\n  addc.{0} %d2, 0, 0;".format(kind))
            yield Form("sub.cc+subc." + kind, "%s %s %s" % (t, t, t), " ".join([t] * 4),
                       "sub.cc.{0} %d0, %a0, %a2;\n  subc.cc.{0} %d1, %a1, %a3;\n  subc.{0} %d2, 0, 0;".format(kind))
            for half in ("lo", "hi"):
                yield Form("mad.%s.cc+madc.%s" % (half, kind), "%s %s %s" % (t, t, t), " ".join([t] * 4),
                           "mad.{1}.cc.{0} %d0, %a0, %a1, %a2;\n  madc.{1}.cc.{0} %d1, %a1, %a2, %a3;\n"
                           "  addc.{0} %d2, 0, 0;".format(kind, half))


def logic():
    for width in ("16", "32", "64"):
        t = "b" + width
        for op in ("and", "or", "xor"):
            yield Form("%s.%s" % (op, t), t, "%s %s" % (t, t))
        for op in ("not", "cnot"):
            yield Form("%s.%s" % (op, t), t, t)
        yield Form("shl." + t, t, "%s shift" % t)
        for kind in ("b", "u", "s"):
            yield Form("shr.%s%s" % (kind, width), t, "%s shift" % t)
    for op in ("and", "or", "xor"):
        yield Form(op + ".pred", "pred", "pred pred")
    yield Form("not.pred", "pred", "pred")
    for table in (0x00, 0x1E, 0x6A, 0x80, 0x96, 0xCA, 0xD8, 0xE2, 0xE8, 0xEA, 0xF8, 0xFE, 0xFF):
        yield Form("lop3.b32", "b32", "b32 b32 b32", "lop3.b32 %%d0, %%a0, %%a1, %%a2, 0x%02x;" % table,
                   name="lop3.b32.0x%02x" % table)
    for op in ("or", "and"):
        yield Form("lop3.%s.b32" % op, "b32 pred", "b32 b32 b32 pred",
                   "lop3.%s.b32 %%d0|%%d1, %%a0, %%a1, %%a2, 0x80, %%a3;" % op, target=80, version=82)


def bits():
    for t in ("b32", "b64"):
        yield Form("popc." + t, "b32", t)
        yield Form("clz." + t, "b32", t)
        yield Form("brev." + t, t, t)
        yield Form("bfi." + t, t, "%s %s shift shift" % (t, t))
    for t in ("u32", "s32", "u64", "s64"):
        yield Form("bfind." + t, "b32", t)
        yield Form("bfind.shiftamt." + t, "b32", t)
        yield Form("bfe." + t, t, "%s shift shift" % t)
    yield Form("fns.b32", "b32", "b32 lane s8", "cvt.s32.s8 %t0, %a2;\n  and.b32 %t1, %a1, 31;\n"
               "  shr.s32 %t0, %t0, 2;\n  fns.b32 %d0, %a0, %t1, %t0;")
    for mode in ("clamp", "wrap"):
        for op in ("shf.l", "shf.r"):
            yield Form("%s.%s.b32" % (op, mode), "b32", "b32 b32 shift")
    yield Form("prmt.b32", "b32", "b32 b32 selector")
    for mode in ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16"):
        yield Form("prmt.b32." + mode, "b32", "b32 b32 b32")
    yield Form("szext.clamp.s32", "s32", "s32 shift")
    yield Form("szext.wrap.u32", "u32", "u32 shift")
    yield Form("bmsk.clamp.b32", "b32", "shift shift")
    yield Form("bmsk.wrap.b32", "b32", "shift shift")
    for a in ("s32", "u32"):
        for b in ("s32", "u32"):
            d = "s32" if "s32" in (a, b) else "u32"
            yield Form("dp4a.%s.%s" % (a, b), d, "b32 b32 " + d)
            for half in ("lo", "hi"):
                yield Form("dp2a.%s.%s.%s" % (half, a, b), d, "b32 b32 " + d)


def comparisons():
    for width in ("16", "32", "64"):
        for op in ("eq", "ne"):
            t = "b" + width
            yield Form("setp.%s.%s" % (op, t), "pred", "%s %s" % (t, t))
        for op in ("lt", "le", "gt", "ge"):
            t = "s" + width
            yield Form("setp.%s.%s" % (op, t), "pred", "%s %s" % (t, t))
        for op in ("lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"):
            t = "u" + width
            yield Form("setp.%s.%s" % (op, t), "pred", "%s %s" % (t, t))
    for op in ("eq", "ne"):
        for t in ("s32", "u64", "u16"):
            yield Form("setp.%s.%s" % (op, t), "pred", "%s %s" % (t, t))
    for boolean in ("and", "or", "xor"):
        yield Form("setp.lt.%s.s32" % boolean, "pred pred", "s32 s32 pred")
        yield Form("setp.ge.%s.u64" % boolean, "pred pred", "u64 u64 pred")
    yield Form("setp.gt.and.s32.not", "pred pred", "s32 s32 pred", "setp.gt.and.s32 %d0|%d1, %a0, %a1, !%a2;")
    for t in ("s32", "u32", "s64", "u16"):
        yield Form("set.lt.u32." + t, "u32", "%s %s" % (t, t))
        yield Form("set.ge.s32." + t, "s32", "%s %s" % (t, t))
        yield Form("set.ne.f32." + t, "f32", "%s %s" % (t, t))
    yield Form("set.le.or.u32.s32", "u32", "s32 s32 pred")
    yield Form("set.gt.xor.f32.u32", "f32", "u32 u32 pred")
    for t in ("b16", "b32", "b64", "s32", "u16", "u64", "f32", "f64"):
        yield Form("selp." + t, t, "%s %s pred" % (t, t))
    for t in ("b32", "u64", "s16", "f32"):
        yield Form("slct.%s.s32" % t, t, "%s %s s32" % (t, t))
    yield Form("slct.ftz.u32.f32", "u32", "u32 u32 f32")
    yield Form("slct.s32.f32", "s32", "s32 s32 f32")


def moves():
    for t in ("b16", "b32", "b64", "u32", "f32", "f64"):
        yield Form("mov." + t, t, t)
    yield Form("mov.pred", "pred", "pred")
    yield Form("mov.b32.pack2", "b32", "b16 b16", "mov.b32 %d0, {%a0, %a1};")
    yield Form("mov.b32.unpack2", "b16 b16", "b32", "mov.b32 {%d0, %d1}, %a0;")
    yield Form("mov.b64.pack2", "b64", "b32 b32", "mov.b64 %d0, {%a0, %a1};")
    yield Form("mov.b64.unpack2", "b32 b32", "b64", "mov.b64 {%d0, %d1}, %a0;")
    yield Form("mov.b64.pack4", "b64", "b16 b16 b16 b16", "mov.b64 %d0, {%a0, %a1, %a2, %a3};")
    yield Form("mov.b64.unpack4", "b16 b16 b16 b16", "b64", "mov.b64 {%d0, %d1, %d2, %d3}, %a0;")


def forms():
    return [form for family in (arithmetic, carries, logic, bits, comparisons, moves) for form in family()]
