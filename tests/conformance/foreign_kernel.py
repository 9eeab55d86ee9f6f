# SPDX-License-Identifier: Apache-2.0
"""Kernels for a machine that this one is not, run by QEMU's user-mode emulator.

Compiled by kvqc, linked by lld with tests/conformance/foreign/launch.c, launched with the arguments that
kvq.lowlevel's kernels take, on the same NumPy memory.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KVQC = ROOT / "build" / "release" / "bin" / "kvqc"
TARGET = "aarch64-unknown-linux-gnu"
EMULATOR = ("qemu-aarch64", "-cpu", "max")
TOOLS = ("clang-22", "ld.lld-22", EMULATOR[0])


def missing_tools():
    """What is not there of what this needs; `./dev setup` installs it."""
    return [tool for tool in TOOLS if not shutil.which(tool)] + ([] if KVQC.exists() else [str(KVQC)])


class ForeignKernel:
    def __init__(self, request, level, folder):
        kernel, main = folder / "kernel.o", folder / "launch.o"
        self.program = folder / "launch"
        run = lambda *command: subprocess.run([str(part) for part in command], check=True)
        run(KVQC, f"--request={request}", f"--level={level}", "--no-bundle", "-o", kernel)
        run("clang-22", f"--target={TARGET}", "-O1", "-ffreestanding", "-fno-stack-protector", "-c",
            HERE / "foreign" / "launch.c", "-o", main)  # fmt: skip
        run("ld.lld-22", "-static", main, kernel, "-o", self.program)

    def launch(self, args, grid):
        """Arrays are written in place, whatever the kernel has done to them."""
        assert grid[1:] == (1, 1)
        arrays = [arg for arg in args if not isinstance(arg, (int, float))]
        message = [struct.pack("<QQ", len(args), grid[0])]
        for arg in args:
            if isinstance(arg, float):
                message.append(struct.pack("<QfI", 0, arg, 0))
            elif isinstance(arg, int):
                message.append(struct.pack("<Qq", 0, arg))
            else:
                data = bytes_of(arg).tobytes()
                message += [struct.pack("<QQ", 1, len(data)), data, b"\0" * (-len(data) % 64)]
        done = subprocess.run([*EMULATOR, self.program], input=b"".join(message), capture_output=True)
        assert done.returncode == 0, f"{self.program} ended with {done.returncode}: {done.stderr.decode()}"
        at = 0
        for array in arrays:
            view = bytes_of(array)
            view[...] = np.frombuffer(done.stdout, np.uint8, view.size, at).reshape(view.shape)
            at += view.size


def bytes_of(array):
    """The memory of a NumPy array or a torch tensor as bytes."""
    array = array if isinstance(array, np.ndarray) else array.view(torch.uint8).numpy()
    return array.reshape(-1).view(np.uint8)
