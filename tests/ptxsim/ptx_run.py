# SPDX-License-Identifier: Apache-2.0
"""Runs a PTX kernel in the simulator `ptx-run` from a test: arrays in, arrays and the report out.

    arrays, report = run(ptx, 1, 32, In(x), Out((32,), "uint32"), U32(7))

The arrays come back in the order of the arguments that the kernel may write (InOut, Out, Fill). NumPy has no bf16 or
fp8: such buffers are arrays of their codes (uint16, uint8).
"""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim_env import PTX_RUN

CLEAN, FINDINGS, REFUSED, STUCK = range(4)
HEADER = ".version 8.7\n.target sm_90a\n.address_size 64\n"


class PtxRefused(Exception):
    """The simulator refused the module or the command line; the text is its sentence."""


class PtxFindings(AssertionError):
    """The simulator reported findings, a deadlock or its limit where a clean run was asked for; .report is whole."""

    def __init__(self, report):
        lines = [f"{f['check']} at line {f['line']}: {f['message']}" for f in report.get("findings", [])]
        super().__init__("\n".join([report["status"], report.get("message", ""), *lines]))
        self.report = report


@dataclass
class Scalar:
    """A parameter by value: type as in PTX without the dot, value an integer or a float."""

    type: str
    value: object

    def spec(self, folder, index):
        return f"{self.type}:{self.value!r}"


def U32(value):
    return Scalar("u32", int(value))


def U64(value):
    return Scalar("u64", int(value))


def F32(value):
    return Scalar("f32", float(value))


@dataclass
class In:
    """A buffer that the kernel may only read."""

    array: np.ndarray

    def spec(self, folder, index):
        np.save(folder / f"{index}.npy", np.ascontiguousarray(self.array))
        return f"in:{folder}/{index}.npy"


@dataclass
class InOut:
    """A buffer that the kernel may read and write; it comes back."""

    array: np.ndarray

    def spec(self, folder, index):
        np.save(folder / f"{index}.npy", np.ascontiguousarray(self.array))
        return f"inout:{folder}/{index}.npy:{folder}/{index}.out.npy"


@dataclass
class Out:
    """An uninitialised buffer; it comes back. Reading what was not written is a finding."""

    shape: tuple
    dtype: str

    def spec(self, folder, index):
        return f"out:{np.dtype(self.dtype)}:{'x'.join(map(str, self.shape))}:{folder}/{index}.out.npy"


@dataclass
class Fill:
    """A buffer filled with one value; it comes back."""

    value: object
    shape: tuple
    dtype: str

    def spec(self, folder, index):
        shape = "x".join(map(str, self.shape))
        return f"fill:{self.value!r}:{np.dtype(self.dtype)}:{shape}:{folder}/{index}.out.npy"


@dataclass
class Bytes:
    """A struct parameter by value."""

    data: bytes

    def spec(self, folder, index):
        (folder / f"{index}.bin").write_bytes(self.data)
        return f"bytes:{folder}/{index}.bin"


def _dims(value):
    return ",".join(map(str, value if isinstance(value, tuple) else (value,)))


def _options(options):
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            yield flag
        elif value is not None and value is not False:
            yield from (flag, str(value))


def run(ptx, grid, block, *arguments, clean=True, timeout=120, **options):
    """Runs the kernel; returns the list of the written arrays and the report (a dict: docs/ptxsim.md).

    options are those of ptx-run with "_" for "-": kernel, shared, checks, schedule, seed, mma, cp_async, threads ...
    With clean=True everything but a clean run raises PtxFindings. A refusal raises PtxRefused in any case.
    """
    with tempfile.TemporaryDirectory(prefix="ptx-run-") as name:
        folder = Path(name)
        (folder / "kernel.ptx").write_text(ptx, encoding="utf-8")
        command = [PTX_RUN, str(folder / "kernel.ptx"), "--grid", _dims(grid), "--block", _dims(block), "--quiet"]
        for index, argument in enumerate(arguments):
            command += ["--arg", argument.spec(folder, index)]
        command += ["--json", str(folder / "report.json"), *_options(options)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode == REFUSED:
            raise PtxRefused(done.stderr.strip().replace(f"{folder}/", ""))
        if done.returncode not in (CLEAN, FINDINGS, STUCK):
            raise RuntimeError(f"ptx-run ended with {done.returncode}: {done.stderr.strip()}")
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if clean and done.returncode != CLEAN:
            raise PtxFindings(report)
        outputs = [folder / f"{i}.out.npy" for i, a in enumerate(arguments) if isinstance(a, (InOut, Out, Fill))]
        return [np.load(path) if path.exists() else None for path in outputs], report
