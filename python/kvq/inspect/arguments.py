# SPDX-License-Identifier: Apache-2.0
"""Arguments of ptx-run for kernels of kernel_abi.h as a device takes them: one parameter of 64 bits for each."""

from __future__ import annotations

import random
import struct
from pathlib import Path

# Without the bits 3 and 7 a byte is no upper half of an infinite number or a NaN, in f16 and in bf16.
_FINITE = bytes(byte & 0x77 for byte in range(256))


def number(value: int) -> str:
    return f"u64:{value}"


def real(value: float) -> str:
    return number(struct.unpack("<I", struct.pack("<f", value))[0])


class Buffers:
    """Files that ptx-run reads, as arrays of bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._random = random.Random(1)

    def read(self, name: str, content: bytes) -> str:
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(content)},), }}"
        header += " " * (-(len(header) + 11) % 64) + "\n"
        file = self._folder / f"{name}.npy"
        file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content)
        return f"in:{file}"

    def noise(self, name: str, size: int) -> str:
        return self.read(name, self._random.randbytes(size).translate(_FINITE))
