# SPDX-License-Identifier: Apache-2.0
"""Blocks a multiprocessor: values by hand, and CUDA's header cuda_occupancy.h on random kernels."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import toolchain
from kvq.errors import InvalidArgument
from kvq.inspect.gpus import ARCHITECTURES, KIB
from kvq.inspect.occupancy import occupancy

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(
    "target, threads, registers, shared, blocks, limiter",
    [
        # 65536 / (64 * 32) = 32 warps.
        ("sm_80", 128, 64, 0, 8, "registers"),
        ("sm_86", 128, 64, 0, 8, "registers"),
        ("sm_80", 1024, 32, 0, 2, "warps, registers"),
        ("sm_89", 1024, 32, 0, 1, "warps"),
        ("sm_90", 32, 16, 0, 32, "blocks"),
        ("sm_86", 32, 16, 0, 16, "blocks"),
        ("sm_120", 32, 16, 0, 24, "blocks"),
        # 216 registers are 6912 a warp, 2 warps in a partition of 16384; 168 are 5376, 3 of them.
        ("sm_80", 128, 216, 0, 2, "registers"),
        ("sm_80", 128, 168, 0, 3, "registers"),
        # Registers in units of 256 a warp: 65 * 32 = 2080 become 2304, and 28 warps instead of 31.
        ("sm_80", 32, 65, 0, 28, "registers"),
        # Shared memory in units of 128, and 1024 more a block: 164 KiB / 29 KiB, / (28 KiB + 1), / 164 KiB.
        ("sm_80", 128, 32, 28 * KIB, 5, "shared memory"),
        ("sm_80", 128, 32, 27 * KIB + 1, 5, "shared memory"),
        ("sm_100", 128, 32, 56 * KIB, 4, "shared memory"),
        ("sm_100", 128, 32, 56 * KIB + 1, 3, "shared memory"),
        ("sm_89", 128, 32, 99 * KIB, 1, "shared memory"),
        ("sm_89", 128, 32, 99 * KIB + 1, 0, "shared memory"),
        # 255 registers are 8192 a warp: 2 warps in a partition, 8 in all.
        ("sm_80", 160, 255, 0, 1, "registers"),
        ("sm_80", 288, 255, 0, 0, "registers"),
        ("sm_80", 128, 256, 0, 0, "registers"),
    ],
)
def test_by_hand(target, threads, registers, shared, blocks, limiter):
    found = occupancy(ARCHITECTURES[target], threads, registers, shared)
    assert (found.blocks, found.limiter) == (blocks, limiter)
    assert found.warps == blocks * -(-threads // 32) and found.share == found.warps / ARCHITECTURES[target].warps_per_sm


@pytest.mark.parametrize("threads, registers, shared", [(0, 32, 0), (1025, 32, 0), (128, -1, 0), (128, 32, -1)])
def test_what_is_no_kernel_is_refused(threads, registers, shared):
    with pytest.raises(InvalidArgument, match="give"):
        occupancy(ARCHITECTURES["sm_80"], threads, registers, shared)


@pytest.fixture(name="oracle", scope="module")
def cuda_header(tmp_path_factory):
    compiler = shutil.which("c++") or shutil.which("clang++-22")
    if toolchain.toolkit() is None or not compiler:
        pytest.skip("CUDA's headers are not installed: pip install -r python/requirements/cuda.txt")
    program = tmp_path_factory.mktemp("occupancy") / "cuda_occupancy"
    headers = f"-I{toolchain.toolkit()}/include"
    subprocess.run([compiler, "-O1", headers, "-o", program, HERE / "cuda_occupancy.cpp"], check=True)
    return program


@pytest.mark.parametrize("target", ARCHITECTURES)
def test_as_cuda_counts(oracle, target):
    a, number = ARCHITECTURES[target], int(target.removeprefix("sm_"))
    random = np.random.default_rng(number)
    cases = [
        (int(random.integers(1, 1025)), int(random.integers(16, 256)),
         int(random.integers(0, a.shared_per_block + 2000)) if random.integers(2) else 0)
        for _ in range(3000)
    ]  # fmt: skip
    device = f"{number // 10} {number % 10} {a.warps_per_sm} {a.shared_per_sm} {a.shared_per_block}"
    lines = [" ".join(map(str, (device, *case))) for case in cases]
    done = subprocess.run([oracle], input="\n".join(lines), capture_output=True, text=True, check=True)
    expected = list(map(int, done.stdout.split()))
    assert len(expected) == len(cases) and len(set(expected)) > 5
    found = [occupancy(a, *case).blocks for case in cases]
    assert found == expected
