# SPDX-License-Identifier: Apache-2.0
"""Instructions on bits and bytes of one thread: lop3, prmt, bfe, bfi, shf, dp4a, dp2a."""


def mask(width):
    return (1 << width) - 1


def signed(value, width):
    value &= mask(width)
    return value - (1 << width) if value >> (width - 1) else value


def lop3(a, b, c, table):
    """PTX ISA, "Logic and Shift Instructions: lop3".

    immLut = F(0xF0, 0xCC, 0xAA); so bit 4a + 2b + c of the table is F of one bit each.
    """
    d = 0
    for i in range(32):
        index = (a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)
        d |= (table >> index & 1) << i
    return d


# "Data Movement and Conversion Instructions: prmt", the table of modes: the source bytes for d.b3 d.b2 d.b1 d.b0, one
# entry for each value of c[1:0].
PRMT_MODES = {
    "f4e": ("3210", "4321", "5432", "6543"),
    "b4e": ("5670", "6701", "7012", "0123"),
    "rc8": ("0000", "1111", "2222", "3333"),
    "ecl": ("3210", "3211", "3222", "3333"),
    "ecr": ("0000", "1110", "2210", "3210"),
    "rc16": ("1010", "3232", "1010", "3232"),
}


def prmt(a, b, c, mode=""):
    """PTX ISA, "Data Movement and Conversion Instructions: prmt".

    Bytes {b, a} are numbered 7..0; in the generic form bit 3 of a selector replicates the sign.
    """
    source = [(b << 32 | a) >> 8 * i & 0xFF for i in range(8)]
    d = 0
    for position in range(4):
        if mode:
            byte = source[int(PRMT_MODES[mode][c & 3][3 - position])]
        else:
            selector = c >> 4 * position & 0xF
            byte = source[selector & 7]
            if selector & 8:
                byte = 0xFF if byte & 0x80 else 0
        d |= byte << 8 * position
    return d


def bfe(a, b, c, kind):
    """PTX ISA, "Integer Arithmetic Instructions: bfe".

    For u32, s32, u64, s64: position and length are the low bytes of b and c.
    """
    msb = int(kind[1:]) - 1
    position, length = b & 0xFF, c & 0xFF
    sign = 0 if kind[0] == "u" or length == 0 else a >> min(position + length - 1, msb) & 1
    d = 0
    for i in range(msb + 1):
        bit = a >> (position + i) & 1 if i < length and position + i <= msb else sign
        d |= bit << i
    return d


def bfi(a, b, c, d, width):
    """PTX ISA, "Integer Arithmetic Instructions: bfi".

    Inserts the low bits of a into b at position c, length d.
    """
    msb = width - 1
    position, length = c & 0xFF, d & 0xFF
    f = b
    for i in range(length):
        if position + i <= msb:
            f = f & ~(1 << (position + i)) | (a >> i & 1) << (position + i)
    return f


def shf(direction, mode, a, b, c):
    """PTX ISA, "Logic and Shift Instructions: shf".

    Operand b holds bits 63:32 and a bits 31:0; .l gives the upper half after the shift, .r the lower half.
    """
    n = min(c, 32) if mode == "clamp" else c & 31
    both = b << 32 | a
    return (both << n >> 32 if direction == "l" else both >> n) & mask(32)


def _parts(value, width, kind):
    parts = [value >> width * i & mask(width) for i in range(32 // width)]
    return [signed(p, width) for p in parts] if kind == "s32" else parts


def dp4a(a, b, c, a_kind, b_kind):
    """PTX ISA, "Integer Arithmetic Instructions: dp4a".

    Four products of bytes are added to c, modulo 2^32.
    """
    products = (x * y for x, y in zip(_parts(a, 8, a_kind), _parts(b, 8, b_kind)))
    return (c + sum(products)) & mask(32)


def dp2a(a, b, c, a_kind, b_kind, half):
    """PTX ISA, "Integer Arithmetic Instructions: dp2a".

    Two 16-bit values of a with the lower (.lo) or upper (.hi) two bytes of b.
    """
    chosen = _parts(b, 8, b_kind)[2 if half == "hi" else 0 :][:2]
    return (c + sum(x * y for x, y in zip(_parts(a, 16, a_kind), chosen))) & mask(32)
