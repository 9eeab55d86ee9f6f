# SPDX-License-Identifier: Apache-2.0
"""Tensors where a context's kernels see them, whatever the device, each with a copy on the host."""

import numpy as np
import torch


class DeviceTensor:
    """`host`, a contiguous torch tensor, in a buffer of the context; `array` is what calls of a cache take."""

    def __init__(self, context, host):
        self.host = host.contiguous()
        self.buffer = context.buffer(max(1, self.host.nbytes))
        if self.host.nbytes:
            self.buffer.upload(self._bytes())
        self.array = self.buffer.array(list(self.host.shape), str(self.host.dtype).removeprefix("torch."))

    def _bytes(self):
        return self.host.reshape(-1).view(torch.uint8).numpy()

    def fetch(self):
        """What is in the buffer now, as float32: exact for every type that a cache has."""
        if self.host.nbytes:
            self.buffer.download(self._bytes())
        return self.host.float().numpy().copy()


def random_tensor(context, shape, rng, dtype):
    return DeviceTensor(context, torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(dtype))


def empty_tensor(context, shape, dtype):
    return DeviceTensor(context, torch.zeros(shape, dtype=dtype))
