# SPDX-License-Identifier: Apache-2.0
"""Which element of A, B and C/D each lane of a warp holds: PTX ISA, "Matrix Fragments for mma.*".

Every function is one formula of the manual: (lane, i) -> (row, column) of element i of the fragment. Elements are
packed from the low bits of the first register on.
"""

from dataclasses import dataclass
from typing import Callable


def group(lane):
    return lane >> 2


def member(lane):
    return lane % 4


# ---- C and D -------------------------------------------------------------------------------------------------------
def c_m16n8(lane, i):
    """All m16n8 shapes: row = groupID for c0, c1, groupID + 8 for c2, c3; col = threadID_in_group * 2 + (i & 1)."""
    return group(lane) + (8 if i >= 2 else 0), member(lane) * 2 + (i & 1)


def c_m8n8(lane, i):
    """m8n8k16 and m8n8k32: row = groupID, col = threadID_in_group * 2 + i."""
    return group(lane), member(lane) * 2 + i


# ---- m8n8k16 with .s8/.u8, m8n8k32 with .s4/.u4 --------------------------------------------------------------------
def a_m8n8k16(lane, i):
    return group(lane), member(lane) * 4 + i


def b_m8n8k16(lane, i):
    return member(lane) * 4 + i, group(lane)


def a_m8n8k32(lane, i):
    return group(lane), member(lane) * 8 + i


def b_m8n8k32(lane, i):
    return member(lane) * 8 + i, group(lane)


# ---- m16n8k4 with .tf32 --------------------------------------------------------------------------------------------
def a_m16n8k4(lane, i):
    """row = groupID for a0, groupID + 8 for a1; col = threadID_in_group."""
    return group(lane) + (8 if i == 1 else 0), member(lane)


def b_m16n8k4(lane, i):
    return member(lane), group(lane)


# ---- m16n8k8 -------------------------------------------------------------------------------------------------------
def a_m16n8k8_half(lane, i):
    """.f16, .bf16: row = groupID for a0, a1, groupID + 8 for a2, a3; col = threadID_in_group * 2 + (i & 1)."""
    return group(lane) + (8 if i in (2, 3) else 0), member(lane) * 2 + (i & 1)


def b_m16n8k8_half(lane, i):
    return member(lane) * 2 + i, group(lane)


def a_m16n8k8_tf32(lane, i):
    """row = groupID for a0, a2, + 8 for a1, a3; col = threadID_in_group for a0, a1, + 4 for a2, a3."""
    return group(lane) + (8 if i in (1, 3) else 0), member(lane) + (4 if i in (2, 3) else 0)


def b_m16n8k8_tf32(lane, i):
    return member(lane) + (4 if i == 1 else 0), group(lane)


# ---- m16n8k16 ------------------------------------------------------------------------------------------------------
def a_m16n8k16_half(lane, i):
    """row = groupID for 0 <= i < 2 || 4 <= i < 6, else + 8; col = threadID_in_group * 2 + (i & 1), + 8 for i >= 4."""
    row = group(lane) if 0 <= i < 2 or 4 <= i < 6 else group(lane) + 8
    return row, member(lane) * 2 + (i & 1) + (8 if i >= 4 else 0)


def b_m16n8k16_half(lane, i):
    return member(lane) * 2 + (i & 1) + (8 if i >= 2 else 0), group(lane)


def a_m16n8k16_byte(lane, i):
    """row = groupID for i < 4, + 8 for i >= 4; col = threadID_in_group * 4 + (i & 3)."""
    return group(lane) + (8 if i >= 4 else 0), member(lane) * 4 + (i & 3)


def b_m16n8k16_byte(lane, i):
    return member(lane) * 4 + i, group(lane)


# ---- m16n8k32 ------------------------------------------------------------------------------------------------------
def a_m16n8k32_byte(lane, i):
    """row = groupID for 0 <= i < 4 || 8 <= i < 12, else + 8; col = threadID_in_group * 4 + (i & 3), + 16 for i >= 8."""
    row = group(lane) if 0 <= i < 4 or 8 <= i < 12 else group(lane) + 8
    return row, member(lane) * 4 + (i & 3) + (16 if i >= 8 else 0)


def b_m16n8k32_byte(lane, i):
    return member(lane) * 4 + (i & 3) + (16 if i >= 4 else 0), group(lane)


def a_m16n8k32_nibble(lane, i):
    """row = groupID for i < 8, + 8 for i >= 8; col = threadID_in_group * 8 + (i & 7)."""
    return group(lane) + (8 if i >= 8 else 0), member(lane) * 8 + (i & 7)


def b_m16n8k32_nibble(lane, i):
    return member(lane) * 8 + i, group(lane)


# ---- m16n8k64 with .s4/.u4 -----------------------------------------------------------------------------------------
def a_m16n8k64(lane, i):
    """row = groupID for 0 <= i < 8 || 16 <= i < 24, else + 8.

    col = threadID_in_group * 8 + (i & 7), 32 more if i >= 16.
    """
    row = group(lane) if 0 <= i < 8 or 16 <= i < 24 else group(lane) + 8
    return row, member(lane) * 8 + (i & 7) + (32 if i >= 16 else 0)


def b_m16n8k64(lane, i):
    return member(lane) * 8 + (i & 7) + (32 if i >= 8 else 0), group(lane)


@dataclass(frozen=True)
class Layout:
    """Where the elements of one operand lie: `bits` each, `shape` rows and columns."""

    at: Callable
    shape: tuple
    bits: int

    @property
    def elements(self):
        return self.shape[0] * self.shape[1] // 32

    @property
    def registers(self):
        return self.elements * self.bits // 32

    def pack(self, matrix):
        """The registers of each lane, [32][registers], that hold a matrix of codes."""
        per_register = 32 // self.bits
        lanes = [[0] * self.registers for _ in range(32)]
        for lane in range(32):
            for i in range(self.elements):
                row, column = self.at(lane, i)
                code = int(matrix[row][column]) & ((1 << self.bits) - 1)
                lanes[lane][i // per_register] |= code << i % per_register * self.bits
        return lanes

    def unpack(self, lanes):
        """The matrix of codes, rows of columns, that the registers hold."""
        per_register = 32 // self.bits
        matrix = [[0] * self.shape[1] for _ in range(self.shape[0])]
        for lane in range(32):
            for i in range(self.elements):
                row, column = self.at(lane, i)
                code = int(lanes[lane][i // per_register]) >> i % per_register * self.bits
                matrix[row][column] = code & ((1 << self.bits) - 1)
        return matrix


# (m, n, k), bits of an element of A and B -> the formulas for A and B.
_FORMULAS = {
    ((8, 8, 16), 8): (a_m8n8k16, b_m8n8k16),
    ((8, 8, 32), 4): (a_m8n8k32, b_m8n8k32),
    ((16, 8, 4), 32): (a_m16n8k4, b_m16n8k4),
    ((16, 8, 8), 16): (a_m16n8k8_half, b_m16n8k8_half),
    ((16, 8, 8), 32): (a_m16n8k8_tf32, b_m16n8k8_tf32),
    ((16, 8, 16), 16): (a_m16n8k16_half, b_m16n8k16_half),
    ((16, 8, 16), 8): (a_m16n8k16_byte, b_m16n8k16_byte),
    ((16, 8, 32), 8): (a_m16n8k32_byte, b_m16n8k32_byte),
    ((16, 8, 32), 4): (a_m16n8k32_nibble, b_m16n8k32_nibble),
    ((16, 8, 64), 4): (a_m16n8k64, b_m16n8k64),
}


def layouts(m, n, k, bits, accumulator_bits):
    """The layouts of A, B and C (D is like C)."""
    a, b = _FORMULAS[(m, n, k), bits]
    c = c_m8n8 if m == 8 else c_m16n8
    return Layout(a, (m, k), bits), Layout(b, (k, n), bits), Layout(c, (m, n), accumulator_bits)
