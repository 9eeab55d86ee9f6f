# SPDX-License-Identifier: Apache-2.0
"""ptxas takes every kernel for every processor, with no more registers and shared memory than
tests/golden/nvptx_ceilings.json says, and none of them spills; one or two processors of each, in turn, with --full all.
`tests/ptxsim/machine_code.py --write` makes the file anew, for all."""

import json

import pytest

import machine_code
import toolchain

CEILINGS = json.loads(machine_code.CEILINGS.read_text(encoding="utf-8"))


def test_the_file_has_every_kernel():
    assert list(CEILINGS) == machine_code.requests() + machine_code.scarce()
    assert all(tuple(by) == machine_code.PROCESSORS for by in CEILINGS.values())


@toolchain.needs_toolkit
@pytest.mark.parametrize("index", range(len(CEILINGS)), ids=list(CEILINGS))
def test_registers_and_spills(index, pytestconfig):
    text = list(CEILINGS)[index]
    for processor in machine_code.processors_for(index, pytestconfig.getoption("--full")):
        ceiling, found = CEILINGS[text][processor], machine_code.figures(text, processor)
        fits = all(found[name] <= ceiling[name] for name in ("registers", "shared", "spilled"))
        assert fits and found["spilled"] == 0, (
            f"{text} for {processor}: {found}, ceiling {ceiling}; see machine_code.py")


@toolchain.needs_toolkit
@pytest.mark.parametrize("dim, tokens, blocks, most", [(128, 32, 3, 168), (64, 128, 3, 168), (64, 64, 4, 128)])
def test_blocks_of_a_schedule_bound_the_registers(dim, tokens, blocks, most):
    """65536 registers of a multiprocessor, blocks of 128 threads, registers of a warp in units of 256. What the compiler
    lists fits them."""
    schedule = f"tile_tokens={tokens},rows=1,vectors=1,prefetch=0,blocks={blocks},warps=4"
    for processor in machine_code.PROCESSORS:
        found = machine_code.figures(machine_code.request("attend", dim=dim), processor, schedule)
        assert most - 40 < found["registers"] <= most and found["spilled"] == 0, f"{processor}: {found}"


@toolchain.needs_toolkit
@pytest.mark.parametrize("bits, group", machine_code.LEAN)
def test_the_steady_loop_is_lean(bits, group):
    assert machine_code.slots_per_element(bits, group) <= machine_code.LEAN[bits, group]
