# SPDX-License-Identifier: Apache-2.0
"""NVRTC, in process as the runtime calls it, takes every kernel of tests/golden/nvptx_ceilings.json: no spills, and no
more shared memory than there. Registers differ a little (8 of 90, measured): it gets the PTX inside of a function that it
inlines. Each on one processor in turn, with --full on all."""

import json
import subprocess

import pytest

import machine_code
import nvrtc_env
from sim_env import BUILD

pytestmark = nvrtc_env.needs_nvrtc

CEILINGS = json.loads(machine_code.CEILINGS.read_text(encoding="utf-8"))


def processors(index, full):
    """Others than those for which test_nvptx_machine_code.py compiles the same request."""
    return machine_code.PROCESSORS if full else machine_code.processors_for(index + 1, full)[:1]


@pytest.mark.parametrize("index", range(len(CEILINGS)), ids=list(CEILINGS))
def test_nvrtc_takes_it_without_spills(index, tmp_path, pytestconfig):
    text, ceilings = list(CEILINGS.items())[index]
    for processor in processors(index, pytestconfig.getoption("--full")):
        ptx = tmp_path / f"{processor}.ptx"
        command = [BUILD / "bin/kvqc", f"--request={text}", f"--target=nvptx:{processor}", "--no-bundle", "-o", ptx]
        subprocess.run(command, check=True)
        found, = nvrtc_env.compile_ptx(ptx, [processor], tmp_path).values()
        assert found["spill_stores"] == found["spill_loads"] == 0, (processor, found)
        assert found["shared"] <= ceilings[processor]["shared"], (processor, found)
