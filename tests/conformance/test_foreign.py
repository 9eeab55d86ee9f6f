# SPDX-License-Identifier: Apache-2.0
"""Kernels of levels that this host cannot run, against the oracle.

As machine code under QEMU: a corner of each operation. In plain IR, as `LEVEL@host`: the multiplications of every level
step by step, compiled for this host (codegen/cpu/Target.h); what this leaves out is LLVM's own choice of instructions.
"""

import numpy as np
import pytest

import checks
from attend_kernel import AttendCase, ragged_sequences
from foreign_kernel import ForeignKernel, missing_tools
from kernels import Shape

ARM_LEVELS = ("aarch64", "aarch64-dotprod")
SPELLED_OUT = ("x86-64-v3-vnni@host", "x86-64-v4@host", "x86-64-v4-vnni@host", "aarch64-dotprod@host")

SHAPES = {
    "k4c32-v4t32": Shape("k4c32-v4t32", 64, 64, 64, 4, "f32", 4),
    "k8t80-v8t80": Shape("k8t80-v8t80", 64, 80, 80, 5, "bf16", 5),
    "k2c64-v2c32-lag": Shape("k2c64-v2t32", 64, 128, 96, 3, "f16", 12, True),
}


@pytest.fixture
def on_arm(monkeypatch, tmp_path_factory):
    """checks' kernels of device cpu come from QEMU where the level is one of Arm."""
    missing = missing_tools()
    assert not missing, f"{', '.join(missing)} not found: run ./dev setup and ./dev build"
    native = checks.kernel

    def kernel(device, level, request, mode=()):
        if device != "cpu" or level not in ARM_LEVELS:
            return native(device, level, request, mode)
        return ForeignKernel(request, level, tmp_path_factory.mktemp("kernel"))

    monkeypatch.setattr(checks, "kernel", kernel)


@pytest.mark.parametrize("level", ARM_LEVELS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_attend_under_an_emulator(on_arm, shape, level):
    checks.check_attend(AttendCase(shape, ragged_sequences(shape)), level)


@pytest.mark.parametrize("level", ARM_LEVELS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_pages_and_append_under_an_emulator(on_arm, shape, level):
    checks.check_append(shape, level)
    checks.check_pages(shape, level)


@pytest.mark.parametrize("level", SPELLED_OUT)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_attend_in_plain_ir(shape, level):
    checks.check_attend(AttendCase(shape, ragged_sequences(shape)), level)
