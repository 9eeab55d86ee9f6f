# SPDX-License-Identifier: Apache-2.0
"""Classes of machine instructions, the pipe of a multiprocessor that executes each, and how long it takes there.

Pipes are named as in Nsight Compute's Kernel Profiling Guide, "Pipelines". An opcode that is not in the table has the
class `unknown` and no pipe: it is reported by name, and never counted as something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvq.inspect.sass import Instruction

UNKNOWN = "unknown"

# class: (pipe, opcodes)
_TABLE = {
    "LOP3": ("alu", "LOP3 LOP LOP32I PLOP3"),
    "PRMT": ("alu", "PRMT"),
    "integer": ("alu", "IADD IADD3 IADD32I VIADD IABS IMNMX VIMNMX VIMNMX3 VIADDMNMX ISETP ISCADD LEA SHF SHL SHR BMSK "
                       "SGXT SEL FLO BREV VABSDIFF VABSDIFF4 P2R R2P ICMP"),
    "integer multiply": ("fmaheavy", "IMAD IMUL IDP IDP4A XMAD"),
    "FP32": ("fma", "FADD FMUL FFMA FADD32I FMUL32I FFMA32I FADD2 FMUL2 FFMA2 FSWZADD"),
    "FP32 compare": ("alu", "FMNMX FMNMX3 FSETP FSEL FSET FCHK"),
    "HMUL2/HFMA2": ("half", "HADD2 HMUL2 HFMA2 HADD2_32I HMUL2_32I HFMA2_32I"),
    "half compare": ("alu", "HMNMX2 HSETP2 HSET2 VHMNMX"),
    "FP64": ("fp64", "DADD DMUL DFMA DSETP DMMA"),
    "HMMA": ("tensor", "HMMA"),
    "IMMA": ("tensor", "IMMA BMMA"),
    "FP8 MMA": ("tensor", "QMMA OMMA"),
    "MUFU": ("xu", "MUFU"),
    "conversion": ("xu", "F2F F2I I2F I2I FRND F2IP POPC"),
    "packed conversion": ("alu", "F2FP I2FP I2IP"),
    "move": ("alu", "MOV MOV32I CS2R"),
    "special register": ("lsu", "S2R"),
    "movmatrix": ("lsu", "MOVM"),
    "shuffle": ("lsu", "SHFL"),
    "vote": ("alu", "VOTE MATCH REDUX CREDUX ELECT"),
    "LDG": ("lsu", "LDG LD"),
    "async copy": ("lsu", "LDGSTS"),
    "cache control": ("lsu", "CCTL CCTLL"),  # prefetches among it
    "STG": ("lsu", "STG ST"),
    "shared": ("lsu", "LDS STS LDSM STSM"),
    "local": ("lsu", "LDL STL"),
    "atomic": ("lsu", "ATOM ATOMG ATOMS RED REDG REDS"),
    "constant": ("adu", "LDC"),
    "uniform": ("uniform", "UMOV UIADD3 UIMAD ULOP3 USHF ULEA UISETP USEL UPLOP3 UFLO UPRMT UPOPC USGXT UBMSK UBREV "
                           "ULDC LDCU R2UR S2UR VOTEU UIADD UVIMNMX UIMNMX UIABS UCLEA UP2UR UR2UP UR2P UF2FP UFMUL "
                           "UFADD UFFMA UFSETP UFSEL UFMNMX UI2F UI2FP UF2I UVIADD UVIADDMNMX"),
    "barrier": ("adu", "BAR B2R SYNCS MEMBAR FENCE ERRBAR ARRIVES"),
    "warp barrier": ("cbu", "WARPSYNC"),
    "wait": ("none", "DEPBAR LDGDEPBAR NOP NANOSLEEP YIELD ACQBULK PREEXIT"),
    "branch": ("cbu", "BRA EXIT CALL RET JMP BRX JMX BRXU JMXU BSSY BSYNC BREAK BMOV KILL BPT RPCMOV LEPC"),
}  # fmt: skip
_CLASS_OF = {name: (group, pipe) for group, (pipe, names) in _TABLE.items() for name in names.split()}
CLASSES = (*_TABLE, UNKNOWN)

_ZERO = re.compile(r"^-?U?RZ(?:\.H[01]_H[01])?$")
_SHAPE = re.compile(r"^(16|8)(8)(4|8|16|32|64|128|256)$")


@dataclass(frozen=True)
class Cost:
    """Of one instruction of a warp: its class, its pipe, and what it takes of the pipe.

    `lanes`: of `alu`, `fma`, ... 32, one for each thread. `lsu`: cycles of a path of 128 bytes. `tensor`:
    multiply-adds of halves in the same time.
    """

    group: str
    pipe: str
    amount: float


def cost_of(instruction: Instruction) -> Cost:
    group, pipe = _CLASS_OF.get(instruction.name, (UNKNOWN, "none"))
    if _moves(instruction):
        group = "move"
    if pipe == "tensor":
        amount = _multiply_adds(instruction)
        return Cost(group, pipe, amount) if amount else Cost(UNKNOWN, "none", 0.0)
    return Cost(group, pipe, _wavefronts(instruction) if pipe == "lsu" else 32.0)


def _moves(instruction: Instruction) -> bool:
    """ptxas spreads moves over pipes that are free: IMAD.MOV, a multiplication by zero, HFMA2 of two constants."""
    if instruction.name not in ("IMAD", "HFMA2", "IADD3") or "WIDE" in instruction.modifiers:
        return False
    operands = [part.strip() for part in instruction.operands.split(",")]
    if instruction.name == "IMAD":
        return "MOV" in instruction.modifiers or (len(operands) >= 4 and all(_ZERO.match(o) for o in operands[1:3]))
    if instruction.name == "IADD3":  # of one register and two zeros
        return len(operands) == 4 and sum(bool(_ZERO.match(o)) for o in operands[1:]) == 2 and not _negated(operands)
    return len(operands) >= 4 and all(_ZERO.match(o) for o in operands[1:3])


def _negated(operands: list[str]) -> bool:
    return any(operand.startswith("-") and not _ZERO.match(operand) for operand in operands)


def _wavefronts(instruction: Instruction) -> float:
    """Cycles of the 128 bytes a clock between a multiprocessor's first-level memory and its registers, no conflicts."""
    modifiers = instruction.modifiers
    if instruction.name in ("LDSM", "STSM"):
        return max([float(m) for m in modifiers if m in ("2", "4")], default=1.0)
    if instruction.name == "MOVM":
        return 1.0
    for width, cycles in (("128", 4.0), ("64", 2.0)):
        if width in modifiers:
            return cycles
    return 1.0


def _multiply_adds(instruction: Instruction) -> float:
    """m * n * k, at the rate of halves: bytes go twice as fast, TF32 half as fast. 0: the form is not known."""
    shapes = [match for modifier in instruction.modifiers if (match := _SHAPE.match(modifier))]
    if not shapes:
        return 0.0
    m, n, k = map(int, shapes[0].groups())
    modifiers = set(instruction.modifiers)
    if instruction.name == "IMMA":
        rate = 4.0 if modifiers & {"S4", "U4"} else 2.0
    elif instruction.name == "QMMA":
        rate = 2.0
    elif instruction.name == "HMMA":
        rate = 0.5 if "TF32" in modifiers else 1.0
    else:
        return 0.0
    return m * n * k / rate
