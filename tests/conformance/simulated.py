# SPDX-License-Identifier: Apache-2.0
"""Built-in kernels of an NVIDIA level in the simulator, by the launches that CPU kernels get.

Every array of a launch becomes a buffer of device "ptxsim" of exactly its size: an access beside it is a finding, as is
every other mistake that the simulator knows (docs/ptxsim.md). Afterwards all of them come back, also those that only
are inputs, so that Memory.check sees what was written to them.
"""

import numpy as np
import torch

PREFIX = "nvptx:"


def is_simulated(level):
    return level is not None and level.startswith(PREFIX)


def device_of(level):
    """Where kernels of a level run."""
    return "ptxsim" if is_simulated(level) else "cpu"


def as_bytes(array):
    """The same memory; a torch tensor is how bf16 arrives (kernels.as_dlpack)."""
    if not isinstance(array, np.ndarray):
        array = array.view(torch.int16).numpy()
    return array.reshape(-1).view(np.uint8)


class SimulatedKernel:
    """A kernel of a context on device "ptxsim" that takes arrays of the host."""

    def __init__(self, context, real):
        self.context, self.real = context, real

    def launch(self, args, grid):
        given, arrays = [], []
        for arg in args:
            if isinstance(arg, int | float):
                given.append(arg)
                continue
            body = as_bytes(arg)
            given.append(self.context.buffer(body.nbytes))
            given[-1].upload(body)
            arrays.append((given[-1], body))
        self.real.launch(given, grid=grid)
        for buffer, body in arrays:
            buffer.download(body)
