# SPDX-License-Identifier: Apache-2.0
"""Random tile programs, compiled for the levels of this host in turn, against the same programs in NumPy: every word of
the memory that they leave is equal. A failure prints the program; its seed is all there is to it."""

from itertools import count

import numpy as np
import pytest

import tile_ops
from kvq import lowlevel
from tile_programs import CODES, WORDS, Program

PROGRAMS = 200
LAUNCHES = [(0, 0), (1, 2), (3, 3)]  # trips of the loops, also none; a number to branch on


@pytest.fixture(scope="module")
def contexts():
    levels = lowlevel.Context("cpu", threads=1, store_dir="").levels
    return [lowlevel.Context("cpu", level=level, threads=1, store_dir="") for level in levels]


def exact_program(seed):
    """The first program from this seed on whose values f32 holds exactly, with the memory it starts from, the page of
    codes it reads and the memory it must leave after each launch."""
    for attempt in count():
        program, values = Program(seed + attempt * PROGRAMS), np.random.default_rng(seed)
        memory = values.integers(-1000, 1000, WORDS).astype(np.int32)
        page = values.integers(0, 256, CODES * CODES).astype(np.uint8)
        expected = [memory.copy() for _ in LAUNCHES]
        try:
            for launch, result in zip(LAUNCHES, expected):
                program.interpret(result, page, *launch)
        except tile_ops.Inexact:
            continue
        return program, memory, page, expected


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_a_tile_program_leaves_the_memory_that_numpy_does(seed, contexts):
    program, memory, page, expected = exact_program(seed)
    kernel = lowlevel.compile(contexts[seed % len(contexts)], program.text)
    for launch, wanted in zip(LAUNCHES, expected):
        result = memory.copy()
        kernel.launch([result, page, *launch], grid=(1, 1, 1))
        np.testing.assert_array_equal(result, wanted, err_msg=f"{program.text}\nlaunch {launch}")
