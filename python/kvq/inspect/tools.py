# SPDX-License-Identifier: Apache-2.0
"""The programs that an inspection runs, where they are looked for, and what becomes of their errors.

A variable names a file, and nothing else is tried then. Otherwise: this build tree, the wheels of the running Python
(python/requirements/cuda.txt), CUDA_HOME or CUDA_PATH, PATH.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import kvq
from kvq.errors import InvalidArgument, Unsupported

# name: (variable, below the build tree, how to get it)
_PROGRAMS = {
    "ptxas": ("KVQ_PTXAS", None, "pip install nvidia-cuda-nvcc==13.0.88"),
    "nvdisasm": ("KVQ_NVDISASM", None, "pip install nvidia-cuda-nvdisasm==13.5.37"),
    "ptx-run": ("KVQ_PTX_RUN", "runtime/ptxsim/ptx-run", "build the project: ./dev build"),
    "kvqc": ("KVQ_KVQC", "bin/kvqc", "build the project: ./dev build"),
}
SECONDS = 600
LONGEST = 400  # letters of what a program said


def find(name: str) -> Path:
    variable, in_build, advice = _PROGRAMS[name]
    if given := os.environ.get(variable):
        if not os.access(given, os.X_OK) or Path(given).is_dir():
            raise InvalidArgument(f"{variable} is {given}, which is no program: name the file of {name}, or unset it")
        return Path(given).absolute()
    for place in _places(name, in_build):
        if place.is_file() and os.access(place, os.X_OK):
            return place.absolute()
    raise Unsupported(f"{name} is not to be found: {advice}, or name its file in {variable}")


def _places(name: str, in_build: str | None) -> Iterator[Path]:
    if in_build:  # build/<preset>/python/kvq/__init__.py
        yield Path(kvq.__file__).parent.parent.parent / in_build
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or ()) if found else ():
        yield Path(folder) / "cu13" / "bin" / name
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]) / "bin" / name
    if path := shutil.which(name):
        yield Path(path)


def run(
    name: str, arguments: Sequence[object], accepted: Sequence[int] = (0,), folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """In the folder, so that what it says of files there is short. Any other status than the accepted ones is the
    program's refusal of its input, in its words."""
    command = [str(find(name)), *map(str, arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise Unsupported(f"{name} did not end within {SECONDS} s: give it a smaller kernel or workload") from error
    if done.returncode not in accepted:
        raise InvalidArgument(f"{name} ended with {done.returncode} and said: {_complaint(done.stderr or done.stdout)}")
    return done


def _complaint(text: str) -> str:
    """The line with the error, or the first one: a compiler may print its whole program behind it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["nothing"]
    line = next((line for line in lines if "error" in line.lower()), lines[0])
    return line if len(line) <= LONGEST else line[:LONGEST] + " ..."
