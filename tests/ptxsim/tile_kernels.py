# SPDX-License-Identifier: Apache-2.0
"""Tile programs in text, compiled for an NVIDIA processor and run in the simulator."""

import functools
import subprocess

import numpy as np

import ptx_run
from kvq.inspect import machine_code
from sim_env import BUILD

class Refused(Exception):
    """kvqc refused the program; the text is what it said."""


@functools.cache
def compiled(text, processor="sm_80", **options):
    command = [BUILD / "bin/kvqc", "-", f"--target=nvptx:{processor}", "--no-bundle"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def kernel(arguments, body, warps=1):
    """A tile program of so many warps: arguments by name and type (an element's name is a pointer to it), lines of the
    body."""
    listed = ", ".join(f"%{name}: {kind}" for name, kind in arguments.items())
    lines = ["  %c0 = arith.constant 0 : index", *(f"  {line}" for line in body.strip().splitlines())]
    schedule = f"tile_tokens = 64, rows = 1, vectors = 1, prefetch = 0, warps = {warps}"
    attributes = f"kvq_tile.kernel, kvq_tile.schedule = #kvq_tile.schedule<{schedule}>"
    return f"func.func @f({listed}) attributes {{{attributes}}} {{\n" + "\n".join(lines) + "\n  return\n}\n"


def tile(element, *shape):
    return f"tensor<{'x'.join(map(str, shape))}x{element}>" if shape else element


def pointer(element, aligned=False):
    return f"!kvq_tile.ptr<{element}>" + (" {kvq_tile.multiple = 64 : i64}" if aligned else "")


def load(name, source, element, *shape):
    """Lines that load a whole array of 1 or 2 dimensions; the offsets are %name_at."""
    if len(shape) == 1:
        return f"%{name} = kvq_tile.load %{source}[%c0] : {pointer(element)}, index -> {tile(element, *shape)}"
    return (f"{rows_at(f'{name}_at', *shape)}\n%{name} = kvq_tile.load %{source}[%{name}_at] : {pointer(element)}, "
            f"{tile('index', shape[0])} -> {tile(element, *shape)}")


def store(name, to, element, *shape):
    if len(shape) == 0:
        return f"kvq_tile.store %{name}, %{to}[%c0] : {element}, {pointer(element)}, index"
    if len(shape) == 1:
        return f"kvq_tile.store %{name}, %{to}[%c0] : {tile(element, *shape)}, {pointer(element)}, index"
    return (f"{rows_at(f'{to}_to', *shape)}\nkvq_tile.store %{name}, %{to}[%{to}_to] : {tile(element, *shape)}, "
            f"{pointer(element)}, {tile('index', shape[0])}")


def rows_at(name, rows, width):
    """Lines that make %name, the offset of each row."""
    offsets = tile("index", rows)
    return (f"%{name}_i = kvq_tile.iota : {offsets}\n%{name}_w = arith.constant dense<{width}> : {offsets}\n"
            f"%{name} = arith.muli %{name}_i, %{name}_w : {offsets}")


def run(text, *arguments, programs=1, processor="sm_80", **options):
    """What the program leaves in the arrays that it may write; a finding of the simulator raises."""
    ptx = compiled(text, processor)
    grid, block = machine_code.of_programs(ptx, programs)
    outputs, _ = ptx_run.run(ptx, grid, block, *arguments, ptx_run.U64(programs), **options)
    return outputs


def expect(text, inputs, expected, **options):
    """The program reads `inputs` in order and writes arrays like `expected`, which must come out bit by bit."""
    arguments = [ptx_run.In(x) for x in inputs] + [ptx_run.Out(e.shape, str(e.dtype)) for e in expected]
    outputs = run(text, *arguments, **options)
    for actual, wanted in zip(outputs, expected):
        np.testing.assert_array_equal(actual, wanted, err_msg=text)
    return outputs
