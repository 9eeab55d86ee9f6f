# SPDX-License-Identifier: Apache-2.0
"""Kernels with a mistake: they run the right one and then spoil a little of what it wrote."""

import numpy as np


class Spoiled:
    """`spoil(outputs)` changes arrays by name in place; a launch's own outputs are found by kvq.tune.launch_memory."""

    def __init__(self, kernel, launch, spoil):
        self.kernel, self.outputs, self.spoil = kernel, launch.outputs, spoil

    def launch(self, arguments, grid):
        self.kernel.launch(arguments, grid=grid)
        arrays = {name: output.read() for name, output in self.outputs.items()}
        self.spoil(arrays)
        for name, output in self.outputs.items():
            output.buffer.upload(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8))
