# SPDX-License-Identifier: Apache-2.0
"""Guarded memory for kernel launches: what a kernel must not touch is checked byte by byte after the launch."""

import numpy as np

from kvq_oracle.quantize import from_bf16, to_bf16

GUARD = 256
GUARD_BYTE = 0xA5
ALIGNMENT = 64
ELEMENT = {"f32": np.dtype(np.float32), "bf16": np.dtype(np.uint16), "f16": np.dtype(np.float16)}


def encode(x, dtype):
    x = np.ascontiguousarray(x, np.float32)
    if dtype == "bf16":
        return to_bf16(x)
    with np.errstate(over="ignore"):  # NumPy rounds to nearest even, to infinity where nothing is nearer
        return x.astype(ELEMENT[dtype])


def decode(x, dtype):
    return from_bf16(x) if dtype == "bf16" else np.asarray(x).astype(np.float32)


def round_to(x, dtype):
    """The f32 value that a tensor of that dtype keeps of x."""
    return decode(encode(x, dtype), dtype)


class Memory:
    """Arrays between guard bytes. Those given by `put` must also hold the same bits after the launch."""

    def __init__(self):
        self._arrays = []  # (name, storage, begin, size, expected bytes or None)

    def _allocate(self, name, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        storage = np.full(size + 2 * GUARD + ALIGNMENT, GUARD_BYTE, np.uint8)
        begin = GUARD + -(storage.ctypes.data + GUARD) % ALIGNMENT
        body = storage[begin : begin + size]
        self._arrays.append([name, storage, begin, size, None])
        return body.view(dtype).reshape(shape)

    def put(self, name, values):
        values = np.ascontiguousarray(values)
        array = self._allocate(name, values.shape, values.dtype)
        array[...] = values
        self._arrays[-1][4] = values.tobytes()
        return array

    def filled(self, name, shape, dtype, byte):
        """Memory that the kernel may write, every byte set: what it leaves alone can be told."""
        array = self._allocate(name, shape, dtype)
        array.view(np.uint8)[...] = byte
        return array

    def copied(self, name, values):
        """Memory that the kernel may write, with values to begin with."""
        array = self._allocate(name, values.shape, values.dtype)
        array[...] = values
        return array

    def check(self):
        for name, storage, begin, size, expected in self._arrays:
            touched = np.flatnonzero(np.concatenate([storage[:begin], storage[begin + size :]]) != GUARD_BYTE)
            assert not touched.size, f"{touched.size} guard bytes around {name} were overwritten"
            if expected is not None:
                assert storage[begin : begin + size].tobytes() == expected, f"the input {name} was overwritten"
