# SPDX-License-Identifier: Apache-2.0
"""What a kernel stores when ptxas could compute it: constants read from the machine code of a cubin.

The encodings (16 bytes an instruction, sm_80 to sm_90) are not documented; an instruction that is not known here makes
its result unknown, never wrong. A kernel is a straight line of moves and stores to one base address.
"""
import struct

# The low 12 bits of an instruction.
MOVE_IMMEDIATE, MOVE_REGISTER, ADD_MOVE_IMMEDIATE, ADD_MOVE_REGISTER = 0x802, 0x202, 0x424, 0x224
HALF_IMMEDIATE, ZERO_PAIR, STORE, EXIT = 0x435, 0x805, 0x986, 0x94D
# Bits 72 to 95 of a move: modifiers. With others, IMAD adds a carry, for one.
PLAIN = {MOVE_IMMEDIATE: 0x00000F, MOVE_REGISTER: 0x00000F, ADD_MOVE_IMMEDIATE: 0x078E00, ADD_MOVE_REGISTER: 0x078E00,
         HALF_IMMEDIATE: 0x000001, ZERO_PAIR: 0x0001FF}
# Branches, calls, returns, and the marks of where paths meet: the kernel is not a straight line.
BRANCHES = (0x947, 0x944, 0x943, 0x950, 0x949, 0x945, 0x941, 0x942)
ZERO = 255  # the register that reads as zero
STORE_WORDS = {4: 1, 5: 2, 6: 4}
# Registers that other instructions of such kernels write: loads of parameters (a move, IMAD.MOV, a load of one or two
# words), loads to uniform registers, and no operation.
WRITTEN = {0xA02: 1, 0x624: 1, 0xB82: 2, 0xAB9: 0, 0x918: 0}
UNKNOWN_WRITES = 4


def sections(cubin):
    """(name, content) of every section of an ELF file."""
    table, = struct.unpack_from("<Q", cubin, 40)
    count, names = struct.unpack_from("<HH", cubin, 60)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, table + 64 * index) for index in range(count)]
    strings = headers[names][4]
    for header in headers:
        begin = strings + header[0]
        yield cubin[begin:cubin.index(b"\0", begin)].decode(), cubin[header[4]:header[4] + header[5]]


def kernels(cubin):
    """The machine code of every kernel by name."""
    return {name[len(".text."):]: content for name, content in sections(cubin) if name.startswith(".text.")}


def field(word, begin, size):
    return word >> begin & ((1 << size) - 1)


def stored_constants(code):
    """{byte offset from the base: 32-bit constant} of the words that the kernel stores and that are known."""
    registers, stored = {}, {}
    for offset in range(0, len(code), 16):
        word = int.from_bytes(code[offset:offset + 16], "little")
        operation, target = field(word, 0, 12), field(word, 16, 8)
        if operation == EXIT:
            break
        if field(word, 12, 4) != 7 or operation in BRANCHES:
            return {}
        if operation == STORE:
            store(word, registers, stored)
        else:
            move(operation, word, target, registers)
    return stored


def read(registers, number):
    return 0 if number == ZERO else registers.get(number)


def store(word, registers, stored):
    place, source, size = field(word, 40, 24), field(word, 32, 8), field(word, 73, 3)
    place -= (place >> 23) << 24
    for part in range(STORE_WORDS.get(size, 0)):
        value = read(registers, source if source == ZERO else source + part)
        if value is not None:
            stored[place + 4 * part] = value


def move(operation, word, target, registers):
    immediate, a, c = field(word, 32, 32), field(word, 24, 8), field(word, 64, 8)
    value = None
    if field(word, 72, 24) != PLAIN.get(operation):
        operation = 0
    if operation == MOVE_IMMEDIATE:
        value = immediate
    elif operation == MOVE_REGISTER:
        value = read(registers, immediate & 0xFF)
    elif operation == ADD_MOVE_IMMEDIATE and a == ZERO and c == ZERO:
        value = immediate
    elif operation == ADD_MOVE_REGISTER and a == ZERO and immediate & 0xFF == ZERO:
        value = read(registers, c)
    elif operation == HALF_IMMEDIATE and a == ZERO and c == ZERO:
        value = immediate
    elif operation == ZERO_PAIR:
        registers[target] = registers[target + 1] = 0
        return
    if value is None:
        for part in range(WRITTEN.get(field(word, 0, 12), UNKNOWN_WRITES)):
            registers.pop(target + part, None)
    else:
        registers[target] = value
