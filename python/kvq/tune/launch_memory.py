# SPDX-License-Identifier: Apache-2.0
"""Arguments of launches: arrays in memory of a context, which begins at a line of the cache as a cache's does. NumPy is
imported by the first call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kvq import lowlevel

if TYPE_CHECKING:
    import numpy as np

ELEMENT = {"f32": "float32", "bf16": "uint16", "f16": "float16"}  # NumPy has no bf16
NOBODY = 0xFF  # bytes that no kernel reads: a NaN in every type


def element_bytes(dtype: str) -> int:
    return 4 if dtype == "f32" else 2


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values of float32 as a tensor of the type holds them."""
    import numpy as np

    values = np.ascontiguousarray(values, np.float32)
    if dtype != "bf16":
        return values.astype(ELEMENT[dtype])
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to nearest even


def decode(values: np.ndarray, dtype: str) -> np.ndarray:
    import numpy as np

    if dtype != "bf16":
        return values.astype(np.float32)
    return (values.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Output:
    """What a kernel writes."""

    buffer: lowlevel.Buffer
    dtype: str  # f32, bf16, f16, or uint8 for bytes
    shape: tuple[int, ...]
    before: np.ndarray | None = None  # its bytes ahead of every launch; None: NOBODY

    def reset(self) -> None:
        if self.before is None:
            self.buffer.fill(NOBODY)
        else:
            self.buffer.upload(self.before)

    def read(self) -> np.ndarray:
        import numpy as np

        raw = np.empty(self.shape, ELEMENT.get(self.dtype, self.dtype))
        self.buffer.download(raw.view(np.uint8))
        return raw


@dataclass(frozen=True)
class Launch:
    arguments: tuple[Any, ...]
    grid: tuple[int, int, int]
    outputs: dict[str, Output]

    def run(self, kernel: lowlevel.Kernel) -> dict[str, np.ndarray]:
        """What the kernel writes, over memory that is as it was before every launch."""
        for output in self.outputs.values():
            output.reset()
        kernel.launch(self.arguments, grid=self.grid)
        return {name: output.read() for name, output in self.outputs.items()}


@dataclass
class LaunchMemory:
    """Buffers of a host's context, whose kernels and all others of this host may use them. `bytes` counts."""

    context: lowlevel.Context
    bytes: int = 0
    held: list[lowlevel.Buffer] = field(default_factory=list)

    def put(self, values: np.ndarray) -> lowlevel.Buffer:
        import numpy as np

        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        buffer = self._make(raw.nbytes)
        if raw.nbytes:
            buffer.upload(raw)
        return buffer

    def output(self, shape: tuple[int, ...], dtype: str) -> Output:
        import numpy as np

        size = int(np.prod(shape)) * np.dtype(ELEMENT.get(dtype, dtype)).itemsize
        return Output(self._make(size), dtype, shape)

    def changed(self, values: np.ndarray, dtype: str) -> Output:
        """Memory with values that a kernel changes."""
        import numpy as np

        raw = np.ascontiguousarray(values)
        return Output(self.put(raw), dtype, raw.shape, raw.reshape(-1).view(np.uint8).copy())

    def _make(self, size: int) -> lowlevel.Buffer:
        self.bytes += size
        self.held.append(self.context.buffer(max(size, 64)))
        return self.held[-1]
