# SPDX-License-Identifier: Apache-2.0
"""Moves of 8x8 matrices of 16-bit elements: ldmatrix, stmatrix, movmatrix (PTX ISA, sections of these names)."""


def held(lane, transposed):
    """The two (row, column) of a matrix in a lane's register, low half first; with .trans of its transpose."""
    row, column = lane // 4, lane % 4 * 2
    places = [(row, column), (row, column + 1)]
    return [(c, r) for r, c in places] if transposed else places


def _half(memory, address):
    return memory[address] | memory[address + 1] << 8


def ldmatrix(memory, addresses, number, transposed=False):
    """Registers [32][number]; lanes 8j to 8j + 7 give the addresses of the rows of matrix j, each of 16 bytes."""
    registers = [[0] * number for _ in range(32)]
    for j in range(number):
        for lane in range(32):
            for half, (row, column) in enumerate(held(lane, transposed)):
                registers[lane][j] |= _half(memory, addresses[8 * j + row] + 2 * column) << 16 * half
    return registers


def stmatrix(memory, addresses, registers, transposed=False):
    """Writes the matrices into memory, a bytearray."""
    for j in range(len(registers[0])):
        for lane in range(32):
            for half, (row, column) in enumerate(held(lane, transposed)):
                address = addresses[8 * j + row] + 2 * column
                memory[address : address + 2] = (registers[lane][j] >> 16 * half & 0xFFFF).to_bytes(2, "little")


def movmatrix(registers):
    """The registers of the transposed matrix, one for each lane."""
    matrix = [[0] * 8 for _ in range(8)]
    for lane in range(32):
        for half, (row, column) in enumerate(held(lane, False)):
            matrix[row][column] = registers[lane] >> 16 * half & 0xFFFF
    return [sum(matrix[r][c] << 16 * half for half, (r, c) in enumerate(held(lane, True))) for lane in range(32)]
