# SPDX-License-Identifier: Apache-2.0
"""PTX that kvqc gives out: executed on the simulator, and accepted by ptxas for every processor.

The kernel is tests/lit/nvptx/vector-add.mlir, written in scf, arith and math, with the arguments and the programs of
the device kernel ABI: one warp a program, warps beyond the number of programs return.
"""
import functools
import pathlib
import subprocess

import numpy as np
import pytest

import toolchain
from ptx_run import In, Out, U64, run
from sim_env import BUILD, ROOT

KERNEL = ROOT / "tests/lit/nvptx/vector-add.mlir"
PROCESSORS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


@functools.cache
def compiled(processor):
    """The PTX of the kernel for a processor."""
    command = [BUILD / "bin/kvqc", KERNEL, f"--target=nvptx:{processor}", "--compile-from=lanes", "--no-bundle"]
    done = subprocess.run([*command, "--emit=ptx"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("count,programs,blocks", [(1, 1, 1), (31, 1, 1), (1000, 3, 1), (1000, 9, 3)])
def test_results(count, programs, blocks):
    """z = 2^(x * y + y), product and sum rounded apart; only elements that exist are touched."""
    random = np.random.default_rng(count)
    x, y = (random.standard_normal(count).astype(np.float32) for _ in range(2))
    (z,), report = run(compiled("sm_80"), blocks, 128, In(x), In(y), Out((count,), "float32"), U64(count),
                       U64(programs))
    np.testing.assert_array_equal(z, np.exp2((x * y + y).astype(np.float64)).astype(np.float32))
    assert report["coverage"]["missed"] == []


@toolchain.needs_toolkit
@pytest.mark.parametrize("processor", PROCESSORS)
def test_ptxas_accepts(processor, tmp_path: pathlib.Path):
    path = tmp_path / "kernel.ptx"
    path.write_text(compiled(processor), encoding="utf-8")
    toolchain.accept(path, processor)
