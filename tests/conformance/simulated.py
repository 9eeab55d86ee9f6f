# SPDX-License-Identifier: Apache-2.0
"""Built-in kernels of an NVIDIA level in the simulator, by the launches that CPU kernels get.

Every array of a launch becomes a buffer of device "ptxsim" of exactly its size: an access beside it is a finding, as is
every other mistake that the simulator knows (docs/ptxsim.md). Afterwards all of them come back, also those that only
are inputs, so that Memory.check sees what was written to them.

With KVQ_TEST_ACCELERATOR=cuda the same launches run over a driver; what is about the simulator is then skipped.
"""

import atexit
import os
import subprocess
import tempfile
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pytest
import torch

import kvq
from kvq import lowlevel
from kvq.inspect import machine_code
from sim_env import BUILD

DEVICE = os.environ.get("KVQ_TEST_ACCELERATOR", "ptxsim")
on_simulator = pytest.mark.skipif(DEVICE != "ptxsim", reason="about the simulator")
PREFIX = "nvptx:"
MAGIC = "+magic"  # behind a level: kernels without subnormal halves


def is_simulated(level):
    return level is not None and level.startswith(PREFIX)


def device_of(level):
    """Where kernels of a level run."""
    return DEVICE if is_simulated(level) else "cpu"


@lru_cache(maxsize=1)
def usual_level():
    """The level that tests of no particular one run: the oldest in the simulator, a GPU's own on a GPU."""
    return f"{PREFIX}sm_80" if DEVICE == "ptxsim" else lowlevel.Context(DEVICE).level.removesuffix(MAGIC)


def as_bytes(array):
    """The same memory; a torch tensor is how bf16 arrives (kernels.as_dlpack)."""
    if not isinstance(array, np.ndarray):
        array = array.view(torch.int16).numpy()
    return array.reshape(-1).view(np.uint8)


class SimulatedKernel:
    """A kernel of a context on device "ptxsim" that takes arrays of the host.

    unwritten: arrays that begin uninitialised. schedule: None takes the one that contexts take.
    """

    def __init__(self, level, request, modes, schedule=None):
        self.level, self.request, self.schedule, self.modes = level, request, schedule, tuple(modes.items())
        self.unwritten, self.kernel = [], None
        self.opened()

    def opened(self):
        """The context and its kernel. A context with a finding answers nothing else: then both are made anew."""
        context = context_of(self.level, self.modes)
        if self.kernel is None or self.kernel[0] is not context:
            self.kernel = context, self.load(context)
        return self.kernel

    def load(self, context):
        return lowlevel.open_kernel(context, self.request, schedule=self.schedule)

    def start(self, kernel, given, grid):
        kernel.launch(given, grid=grid)

    def launch(self, args, grid):
        context, kernel = self.opened()
        given, arrays = [], []
        for arg in args:
            if isinstance(arg, int | float):
                given.append(arg)
                continue
            body = as_bytes(arg)
            given.append(context.buffer(body.nbytes))
            if not any(np.shares_memory(body, other) for other in self.unwritten):
                given[-1].upload(body)
            arrays.append((given[-1], body))
        try:
            self.start(kernel, given, grid)
            context.synchronize()
        except kvq.Error:
            context_of.cache_clear()
            raise
        for buffer, body in arrays:
            buffer.download(body)


@contextmanager
def environment(**variables):
    """Contexts of device ptxsim that are made inside have these modes: KVQ_PTXSIM_SEED=3 is seed=3."""
    names = {f"KVQ_PTXSIM_{name.upper()}": str(value) for name, value in variables.items()}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@lru_cache(maxsize=1)
def store():
    """A folder of this process: a request that another test or another mode compiled is compiled once."""
    folder = tempfile.TemporaryDirectory(prefix="kvq-simulated-")
    atexit.register(folder.cleanup)
    return folder.name


@lru_cache(maxsize=4)
def context_of(level, modes):
    if DEVICE != "ptxsim":
        return driver_context(level, modes)
    arch = level.removeprefix(PREFIX).removesuffix(MAGIC)
    with environment(arch=arch, **dict(modes)):
        return lowlevel.Context("ptxsim", level=level, threads=1, store_dir=store())


def driver_context(level, modes):
    if set(modes) - {("mma", "exact")}:  # the simulator's default
        pytest.skip("a GPU has no modes")
    if level.removesuffix(MAGIC) not in lowlevel.Context(DEVICE).levels:
        pytest.skip(f"this GPU does not run {level}")
    return lowlevel.Context(DEVICE, level=level, store_dir=store())


def simulated_kernel(level, request, **modes):
    """A built-in kernel in the simulator, in a mode of it (docs/ptxsim.md)."""
    return SimulatedKernel(level, request, modes)


class PtxKernel(SimulatedKernel):
    """The same of PTX text, which may be anything: `ptx_of` gives that of a built-in kernel."""

    def __init__(self, level, ptx, modes):
        self.ptx = ptx
        super().__init__(level, "", modes)

    def load(self, context):
        return lowlevel.compile(context, self.ptx, "kvq_entry")

    def start(self, kernel, given, grid):
        words = [int(np.float32(x).view(np.uint32)) if isinstance(x, float) else x for x in given]
        blocks, block = machine_code.of_programs(self.ptx, grid[0])
        kernel.launch([*words, grid[0]], grid=[*blocks, *grid[1:]], block=list(block))


@lru_cache(maxsize=None)
def ptx_of(level, request):
    """What the compiler makes of a request, by kvqc: the same text that contexts get."""
    command = [BUILD / "bin/kvqc", f"--request={request}", f"--target={level}", "--no-bundle", "--emit=ptx", "-o", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
