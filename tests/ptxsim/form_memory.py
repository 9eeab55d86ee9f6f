# SPDX-License-Identifier: Apache-2.0
"""Loads, stores, asynchronous copies and atomics."""
from forms import Form

SLOT = "shl.b32 %t0, %lane, 4;\n  add.u32 %t1, %sm, %t0;\n  "


def loads():
    for t in ("u8", "s8", "u16", "s16"):
        to = "b32" if t[1:] == "8" or t[0] == "s" else "b16"
        yield Form("ld.global." + t, to, "b32", "ld.global.%s %%d0, [%%in];" % t)
        yield Form("ld.global.nc.%s.wide" % t, "b32", "b32", "ld.global.nc.%s %%d0, [%%in+1];" % t if t[1:] == "8" else
                   "ld.global.nc.%s %%d0, [%%in+2];" % t)
        yield Form("ld.global.%s.b64" % t, "b64", "b32", "ld.global.%s %%d0, [%%in+2];" % t)
    for cache in (".ca", ".cg", ".cs", ".volatile", ".nc.L1::no_allocate", ".relaxed.gpu", ".acquire.gpu",
                  ".nc.L1::evict_last", ".L2::128B"):
        op = "ld%s.global.b32" % cache if cache[1:] in ("volatile", "relaxed.gpu", "acquire.gpu") else \
            "ld.global%s.b32" % cache
        yield Form(op, "b32", "b32", op + " %d0, [%in];")
    yield Form("ld.global.v2.b32", "b32 b32", "b64", "ld.global.v2.b32 {%d0, %d1}, [%in];")
    yield Form("ld.global.v4.u16", "b16 b16 b16 b16", "b64", "ld.global.v4.u16 {%d0, %d1, %d2, %d3}, [%in];")
    yield Form("ld.global.v4.u8", "b32 b32 b32 b32", "b64", "ld.global.v4.u8 {%d0, %d1, %d2, %d3}, [%in+4];")
    yield Form("ld.generic", "b32", "b64", "cvta.global.u64 %x1, %in;\n  ld.b32 %d0, [%x1+4];")
    for t in ("u8", "s8", "s16", "u32", "b64"):
        yield Form("ld.shared." + t, "b64" if t == "b64" else "b32", "b64",
                   SLOT + "st.shared.b64 [%%t1], %%a0;\n  ld.shared.%s %%d0, [%%t1];" % t)
        yield Form("ld.local." + t, "b64" if t == "b64" else "b32", "b64",
                   ".local .align 8 .b8 slots[16];\n  st.local.b64 [slots+8], %%a0;\n"
                   "  ld.local.%s %%d0, [slots+8];" % t)
    yield Form("ld.generic.shared", "b32", "b64", SLOT + "st.shared.b64 [%t1], %a0;\n  cvt.u64.u32 %x1, %t1;\n"
               "  cvta.shared.u64 %x1, %x1;\n  ld.u32 %d0, [%x1+4];")
    yield Form("st.shared.v4", "b64", "b32 b32 b32 b32", SLOT + "st.shared.v4.b32 [%t1], {%a0, %a1, %a2, %a3};\n"
               "  ld.shared.b64 %d0, [%t1+4+4];")
    for t in ("b8", "b16", "b32"):
        narrow = "cvt.u16.u32 %h0, %a0;\n  st.global.b16 [%m0+2], %h0;" if t == "b16" else \
            "st.global.%s [%%m0+4], %%a0;" % t
        yield Form("st.global." + t, "memory.b64", "b32 b64", "st.global.b64 [%m0], %a1;\n  " + narrow)
    for op in ("st.relaxed.gpu.global.b32", "st.release.gpu.global.b32", "st.volatile.global.b32", "st.global.cs.b32",
               "st.global.wb.b32"):
        yield Form(op, "memory.b32", "b32", op + " [%m0], %a0;")
    for space in ("global", "shared", "local"):
        yield Form("isspacep." + space, "pred pred", "b32",
                   SLOT + "st.shared.b32 [%t1], %a0;\n  cvt.u64.u32 %x1, %t1;\n  cvta.shared.u64 %x1, %x1;\n"
                   "  isspacep.{0} %d0, %x1;\n  cvta.global.u64 %x2, %out;\n  isspacep.{0} %d1, %x2;".format(space))


def copies():
    """cp.async of 4, 8 and 16 bytes, with zero fill by source size; the input is read as 16-byte units."""
    start = "mul.wide.u32 %x1, %i, 16;\n  add.s64 %x1, %base, %x1;\n  " + SLOT + \
        "mov.b32 %t2, 0x5a5a5a5a;\n  st.shared.v4.b32 [%t1], {%t2, %t2, %t2, %t2};\n  "
    finish = "\n  ld.shared.v4.b32 {%d0, %d1, %d2, %d3}, [%t1];"
    for cache, size in (("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)):
        op = "cp.async.%s.shared.global" % cache
        for name, tail in (("", ""), (".zfill", ", %t3"), (".none", ", 0")):
            for wait in ("cp.async.wait_all;", "cp.async.commit_group;\n  cp.async.wait_group 0;"):
                count = "and.b32 %%t3, %%lane, %d;\n  " % (size - 1) if name == ".zfill" else ""
                yield Form("%s.%d%s.%s" % (op, size, name, "all" if "all" in wait else "group"),
                           "b32 b32 b32 b32", "b64 b64", "%s%s%s [%%t1], [%%x1], %d%s;\n  %s%s"
                           % (start, count, op, size, tail, wait, finish))
    yield Form("cp.async.ignore-src", "b32 b32 b32 b32", "b64 b64",
               start + "setp.gt.u32 %p, %lane, 9;\n  cp.async.cg.shared.global [%t1], [%x1], 16, %p;\n"
               "  cp.async.wait_all;" + finish, version=83)
    yield Form("cp.async.L2::128B", "b32 b32 b32 b32", "b64 b64",
               start + "cp.async.cg.shared.global.L2::128B [%t1], [%x1], 16;\n  cp.async.wait_all;" + finish)


def atomics():
    word = "add.u32 add.s32 min.u32 max.u32 min.s32 max.s32 and.b32 or.b32 xor.b32 exch.b32 inc.u32 dec.u32 add.f32 " \
        "cas.b32"
    double = "add.u64 min.u64 max.u64 min.s64 max.s64 and.b64 or.b64 xor.b64 exch.b64 cas.b64 add.f64"
    half = "add.noftz.f16 add.noftz.f16x2 add.noftz.bf16 add.noftz.bf16x2 cas.b16"
    for op, _, t in (name.rpartition(".") for name in (word + " " + double + " " + half).split()):
        target = 90 if "bf16" in t else 80
        width = "b16" if t in ("f16", "bf16") else "b32" if t in ("f16x2", "bf16x2") else "b" + t[1:]
        compares = op == "cas"
        ins = " ".join([t] * (3 if compares else 2))
        operands = "%a1, %a2" if compares else "%a1"
        prepare = "setp.lt.u32 %p, %lane, 16;\n  @%p mov.{0} %a1, %a0;\n  ".format(width) if compares else ""
        for space in (".global", ".shared", ""):
            if not space and (op, t) not in (("add", "u32"), ("add", "f32"), ("cas", "b32"), ("add.noftz", "f16x2")):
                continue
            full = "atom%s.%s.%s" % (space, op, t)
            if space == ".shared":
                yield Form(full, "%s %s" % (width, width), ins, prepare + SLOT +
                           "st.shared.%s [%%t1], %%a0;\n  %s %%d0, [%%t1], %s;\n  ld.shared.%s %%d1, [%%t1];"
                           % (width, full, operands, width), target=target)
                continue
            address = "%m0" if space else "%x1"
            generic = "" if space else "cvta.global.u64 %x1, %m0;\n  "
            yield Form(full, "memory.%s %s" % (width, width), ins, prepare + generic +
                       "st.global.%s [%%m0], %%a0;\n  %s %%d1, [%s], %s;" % (width, full, address, operands),
                       target=target)
        if op not in ("cas", "exch"):
            full = "red.global.%s.%s" % (op, t)
            yield Form(full, "memory." + width, ins, "st.global.%s [%%m0], %%a0;\n  %s [%%m0], %%a1;" % (width, full),
                       target=target)


def contention():
    """All lanes of a warp on one word: results that no order of the lanes can change."""
    start = "st.shared.b32 [%sm], %a1;\n  bar.sync 0;\n  "
    finish = "\n  bar.sync 0;\n  ld.shared.b32 %d0, [%sm];"
    same = "shfl.sync.idx.b32 %a1, %a1, 0, 31, 0xffffffff;\n  "
    for op in ("add.u32", "min.s32", "max.u32", "and.b32", "or.b32", "xor.b32"):
        yield Form("red.shared.%s.contended" % op, "b32", "b32 b32",
                   same + start + "red.shared.%s [%%sm], %%a0;%s" % (op, finish))
    for op in ("inc", "dec"):
        yield Form("atom.shared.%s.u32.contended" % op, "b32", "b32 b32",
                   same + start + "atom.shared.%s.u32 %%t2, [%%sm], 20;" % op + finish)


def forms():
    return [form for family in (loads, copies, atomics, contention) for form in family()]
