# SPDX-License-Identifier: Apache-2.0
"""Forms whose lanes exchange data: shuffles, votes, matches, reductions, matrices through shared memory, barriers."""
from forms import Form

FULL = "0xffffffff"


def shuffles():
    for mode in ("up", "down", "bfly", "idx"):
        yield Form("shfl.sync.%s.b32" % mode, "b32 pred", "b32 lane segment",
                   "shfl.sync.%s.b32 %%d0|%%d1, %%a0, %%a1, %%a2, %s;" % (mode, FULL), count=256)
        clamp = "0" if mode == "up" else "31"
        yield Form("shfl.sync.%s.b32.whole" % mode, "b32", "b32 lane",
                   "shfl.sync.%s.b32 %%d0, %%a0, %%a1, %s, %s;" % (mode, clamp, FULL))
        for width in (2, 8, 16):
            c = ((32 - width) << 8) | (0 if mode == "up" else 31)
            yield Form("shfl.sync.%s.b32.width%d" % (mode, width), "b32 pred", "b32 lane",
                       "shfl.sync.%s.b32 %%d0|%%d1, %%a0, %%a1, 0x%x, %s;" % (mode, c, FULL))
    # Half of the lanes on each side of a branch, each with its own member mask.
    yield Form("shfl.sync.bfly.b32.divergent", "b32 pred", "b32",
               "and.b32 %t0, %lane, 1;\n  setp.ne.b32 %p, %t0, 0;\n  @%p bra ODD;\n"
               "  shfl.sync.bfly.b32 %d0|%d1, %a0, 6, 31, 0x55555555;\n  bra JOIN;\nODD:\n"
               "  shfl.sync.bfly.b32 %d0|%d1, %a0, 8, 31, 0xaaaaaaaa;\nJOIN:")
    yield Form("shfl.sync.idx.b32.predicated", "b32", "b32 lane",
               "setp.lt.u32 %p, %lane, 16;\n  mov.b32 %d0, 7;\n  and.b32 %t0, %a1, 15;\n"
               "  @%p shfl.sync.idx.b32 %d0, %a0, %t0, 31, 0x0000ffff;")


def votes():
    for mode in ("all", "any", "uni"):
        yield Form("vote.sync.%s.pred" % mode, "pred", "pred",
                   "vote.sync.%s.pred %%d0, %%a0, %s;" % (mode, FULL), count=512)
        yield Form("vote.sync.%s.pred.not" % mode, "pred", "pred",
                   "vote.sync.%s.pred %%d0, !%%a0, %s;" % (mode, FULL), count=512)
    yield Form("vote.sync.ballot.b32", "b32", "pred", "vote.sync.ballot.b32 %%d0, %%a0, %s;" % FULL, count=512)
    yield Form("vote.sync.ballot.b32.divergent", "b32", "pred",
               "setp.lt.u32 %p, %lane, 12;\n  @%p bra LOW;\n  vote.sync.ballot.b32 %d0, %a0, 0xfffff000;\n  bra JOIN;\n"
               "LOW:\n  vote.sync.ballot.b32 %d0, !%a0, 0x00000fff;\nJOIN:", count=256)
    for width in ("32", "64"):
        kinds = "few" if width == "32" else "few few"
        wide = "" if width == "32" else "mov.b64 %x1, {%a0, %a1};\n  "
        a = "%a0" if width == "32" else "%x1"
        yield Form("match.any.sync.b" + width, "b32", kinds,
                   "%smatch.any.sync.b%s %%d0, %s, %s;" % (wide, width, a, FULL), count=512)
        yield Form("match.all.sync.b" + width, "b32 pred", kinds,
                   "%smatch.all.sync.b%s %%d0|%%d1, %s, %s;" % (wide, width, a, FULL), count=512)
    for op in ("add", "min", "max"):
        for t in ("u32", "s32"):
            yield Form("redux.sync.%s.%s" % (op, t), t, t,
                       "redux.sync.%s.%s %%d0, %%a0, %s;" % (op, t, FULL), count=256)
    for op in ("and", "or", "xor"):
        yield Form("redux.sync.%s.b32" % op, "b32", "b32", "redux.sync.%s.b32 %%d0, %%a0, %s;" % (op, FULL), count=256)
    yield Form("redux.sync.add.u32.divergent", "u32", "u32",
               "setp.lt.u32 %p, %lane, 12;\n  @%p bra LOW;\n  redux.sync.add.u32 %d0, %a0, 0xfffff000;\n  bra JOIN;\n"
               "LOW:\n  redux.sync.add.u32 %d0, %a0, 0x00000fff;\nJOIN:")
    yield Form("activemask.b32", "b32", "b32",
               "setp.gt.u32 %p, %lane, 20;\n  mov.b32 %d0, %a0;\n  @!%p bra DONE;\n  activemask.b32 %d0;\nDONE:\n"
               "  bar.warp.sync 0xffffffff;")
    yield Form("elect.sync", "b32 pred", "b32",
               "elect.sync %%d0|%%d1, %s;\n  xor.b32 %%d0, %%d0, %%a0;" % FULL, target=90)
    yield Form("elect.sync.partial", "b32 pred", "b32",
               "setp.lt.u32 %p, %lane, 12;\n  @%p bra LOW;\n  elect.sync %d0|%d1, 0xfffff000;\n  bra JOIN;\nLOW:\n"
               "  elect.sync %d0|%d1, 0x00000fff;\nJOIN:\n  xor.b32 %d0, %d0, %a0;", target=90)


def registers():
    for name in ("laneid", "lanemask_eq", "lanemask_lt", "lanemask_le", "lanemask_gt", "lanemask_ge", "tid.x", "tid.y",
                 "ntid.x", "ntid.z", "ctaid.x", "ctaid.z", "nctaid.x", "nctaid.y", "dynamic_smem_size"):
        yield Form("mov.u32.%" + name, "b32", "b32", "mov.u32 %%d0, %%%s;\n  xor.b32 %%d0, %%d0, %%a0;" % name)


FILL = """shl.b32 %t0, %lane, 4;
  add.u32 %t1, %sm, %t0;
  st.shared.v4.b32 [%t1], {%a0, %a1, %a2, %a3};
  bar.sync 0;
"""
READ_BACK = "  bar.sync 0;\n  ld.shared.v4.b32 {%d0, %d1, %d2, %d3}, [%t1];"
ROW = "  shl.b32 %t2, %a4, 4;\n  add.u32 %t2, %sm, %t2;\n"


def matrices():
    for trans in ("", ".trans"):
        for count in (1, 2, 4):
            group = ", ".join("%%d%d" % k for k in range(count))
            for space in (".shared", ".shared::cta", ""):
                if space and space != ".shared" and (trans or count != 2):
                    continue
                if not space and count != 4:
                    continue
                address = "[%t2]" if space else "[%x2]"
                widen = "" if space else "  cvt.u64.u32 %x2, %t2;\n  cvta.shared.u64 %x2, %x2;\n"
                op = "ldmatrix.sync.aligned.m8n8.x%d%s%s.b16" % (count, trans, space)
                yield Form(op, " ".join(["b32"] * count), "b32 b32 b32 b32 lane",
                           FILL + "  and.b32 %%a4, %%a4, 31;\n%s%s  %s {%s}, %s;" % (ROW, widen, op, group, address))
            op = "stmatrix.sync.aligned.m8n8.x%d%s.shared.b16" % (count, trans)
            values = ", ".join("%%a%d" % (5 + k) for k in range(count))
            yield Form(op, "b32 b32 b32 b32", "b32 b32 b32 b32 perm" + " b32" * count,
                       FILL + ROW + "  %s [%%t2], {%s};\n" % (op, values) + READ_BACK, target=90)
    yield Form("movmatrix.sync.aligned.m8n8.trans.b16", "b32", "b32")


def barriers():
    yield Form("bar.red.popc.u32", "b32", "pred", "bar.red.popc.u32 %d0, 0, %a0;", block=64, count=512)
    yield Form("bar.red.popc.u32.not", "b32", "pred", "bar.red.popc.u32 %d0, 1, !%a0;", block=128, count=512)
    yield Form("bar.red.and.pred", "pred", "pred", "bar.red.and.pred %d0, 2, %a0;", block=64, count=512)
    yield Form("bar.red.or.pred", "pred", "pred", "bar.red.or.pred %d0, 2, 64, %a0;", block=64, count=512)
    swap = "mov.u32 %t3, %tid.x;\n  shl.b32 %t4, %t3, 2;\n  add.u32 %t5, %sm, %t4;\n"
    yield Form("bar.sync.named", "b32", "b32", swap + "  st.shared.b32 [%t5], %a0;\n  bar.sync 3, 64;\n"
               "  xor.b32 %t4, %t4, 128;\n  add.u32 %t5, %sm, %t4;\n  ld.shared.b32 %d0, [%t5];", block=64)
    yield Form("barrier.sync", "b32", "b32", swap + "  st.shared.b32 [%t5], %a0;\n  barrier.sync 4;\n"
               "  xor.b32 %t4, %t4, 128;\n  add.u32 %t5, %sm, %t4;\n  ld.shared.b32 %d0, [%t5];", block=64)
    # The first warp produces and arrives, the second waits and consumes.
    yield Form("bar.arrive", "b32", "b32", swap + "  setp.ge.u32 %p, %t3, 32;\n  mov.b32 %d0, 5;\n  @%p bra CONSUMER;\n"
               "  st.shared.b32 [%t5], %a0;\n  bar.arrive 1, 64;\n  bra DONE;\nCONSUMER:\n  bar.sync 1, 64;\n"
               "  ld.shared.b32 %d0, [%t5+-128];\nDONE:", block=64)
    yield Form("bar.warp.sync", "b32", "b32", "shl.b32 %t4, %lane, 2;\n  add.u32 %t5, %sm, %t4;\n"
               "  st.shared.b32 [%t5], %a0;\n  bar.warp.sync 0xffffffff;\n  xor.b32 %t4, %t4, 124;\n"
               "  add.u32 %t5, %sm, %t4;\n  ld.shared.b32 %d0, [%t5];")


def forms():
    return [form for family in (shuffles, votes, registers, matrices, barriers) for form in family()]
