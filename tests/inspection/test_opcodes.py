# SPDX-License-Identifier: Apache-2.0
"""Classes and pipes of machine instructions."""

from collections import Counter

import pytest
from kvq.inspect import opcodes, sass, steady


def instruction(text):
    opcode, _, operands = text.partition(" ")
    return sass.Instruction(0, opcode, operands, "", None)


@pytest.mark.parametrize(
    "text, group, pipe, amount",
    [
        ("LOP3.LUT R4, R5, 0xff00ff, RZ, 0xc0, !PT", "LOP3", "alu", 32),
        ("PRMT R4, R5, 0x4341, RZ", "PRMT", "alu", 32),
        ("HMMA.16816.F32 R4, R8, R12, R4", "HMMA", "tensor", 16 * 8 * 16),
        ("HMMA.1688.F32.TF32 R4, R8, R12, R4", "HMMA", "tensor", 2 * 16 * 8 * 8),
        ("HMMA.16816.F32.BF16 R4, R8, R12, R4", "HMMA", "tensor", 16 * 8 * 16),
        ("IMMA.16832.S8.S8 R4, R8.ROW, R12.COL, R4", "IMMA", "tensor", 16 * 8 * 32 / 2),
        ("IMMA.16864.U4.S4 R4, R8.ROW, R12.COL, R4", "IMMA", "tensor", 16 * 8 * 64 / 4),
        ("QMMA.16832.F32.E4M3.E4M3 R4, R8, R12, R4", "FP8 MMA", "tensor", 16 * 8 * 32 / 2),
        ("FFMA R4, R4, 2, R13", "FP32", "fma", 32),
        ("FMNMX R4, R4, R5, !PT", "FP32 compare", "alu", 32),
        ("HFMA2 R4, R5, R6.H0_H0, R7", "HMUL2/HFMA2", "half", 32),
        ("HFMA2.MMA R4, -RZ, RZ, 1.875, 0", "move", "half", 32),
        ("IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28]", "move", "fmaheavy", 32),
        ("IMAD.U32 R2, RZ, RZ, UR8", "move", "fmaheavy", 32),
        ("IMAD R2, R3, R4, R5", "integer multiply", "fmaheavy", 32),
        ("IMAD.WIDE R2, RZ, RZ, R5", "integer multiply", "fmaheavy", 32),
        ("IADD3 R4, R0, -0x1, RZ", "integer", "alu", 32),
        ("IADD3 R4, R0, RZ, RZ", "move", "alu", 32),
        ("IADD3 R4, -R0, RZ, RZ", "integer", "alu", 32),
        ("MUFU.EX2 R13, R5", "MUFU", "xu", 32),
        ("I2F.RP R5, R7", "conversion", "xu", 32),
        ("F2FP.F16.F32.PACK_AB R4, R5, R6", "packed conversion", "alu", 32),
        ("LDG.E.128.CONSTANT R4, [R2.64]", "LDG", "lsu", 4),
        ("LDG.E.64 R4, [R2.64]", "LDG", "lsu", 2),
        ("LDG.E.U8 R4, [R2.64]", "LDG", "lsu", 1),
        ("LDGSTS.E.BYPASS.128 [R4], [R2.64]", "async copy", "lsu", 4),
        ("LDSM.16.M88.4 R4, [R2]", "shared", "lsu", 4),
        ("LDSM.16.MT88.2 R4, [R2]", "shared", "lsu", 2),
        ("MOVM.16.MT88 R4, R5", "movmatrix", "lsu", 1),
        ("SHFL.BFLY PT, R4, R5, 0x4, 0x1f", "shuffle", "lsu", 1),
        ("BAR.SYNC.DEFER_BLOCKING 0x0", "barrier", "adu", 32),
        ("BRA `(.L_x_0)", "branch", "cbu", 32),
        ("ULOP3.LUT UR4, UR5, 0x1, URZ, 0xc0, !UPT", "uniform", "uniform", 32),
    ],
)
def test_classes(text, group, pipe, amount):
    assert opcodes.cost_of(instruction(text)) == opcodes.Cost(group, pipe, amount)


UNKNOWN = ("FROBNICATE.U32 R4, R5", "HMMA.SP.X R4, R5", "OMMA.SF.16864.F32 R4, R8, R12", "HGMMA.64x8x16.F32 R24, R4")


@pytest.mark.parametrize("text", UNKNOWN)
def test_unknown_opcodes_are_reported(text):
    """By name, and they take an issue slot and no pipe."""
    cost = opcodes.cost_of(instruction(text))
    assert (cost.group, cost.pipe) == (opcodes.UNKNOWN, "none")
    code = f"""
.text.k:
.L_x_0:
        /*0000*/                   {text} ;
        /*0010*/                   MOV R1, R2 ;
        /*0020*/              @!P0 BRA `(.L_x_0) ;
        /*0030*/                   EXIT ;
"""
    loop = steady.steady_loop(sass.parse(code)["k"])
    assert loop.unknown == [text.split()[0]] and loop.issue_slots == 3
    assert loop.pipes == {"alu": 32, "cbu": 32}
    assert loop.classes == {"branch": 1, "move": 1, opcodes.UNKNOWN: 1}


def test_an_opcode_has_one_class():
    twice = Counter(name for _, names in opcodes._TABLE.values() for name in names.split())
    assert [name for name, count in twice.items() if count > 1] == []
