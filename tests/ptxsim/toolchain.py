# SPDX-License-Identifier: Apache-2.0
"""CUDA C++ to PTX: nvcc from the wheels of python/requirements/cuda.txt, and clang++-22 with their headers.

What is compiled stays in build/test/ptx under a hash of everything that went into it; a PTX file is there only after
ptxas took it.
"""

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parent / "kernels"
CACHE = Path(__file__).resolve().parents[2] / "build/test/ptx"


@dataclass(frozen=True)
class Variant:
    """A compiler, its optimization level, and the processor."""

    compiler: str
    level: str
    processor: str = "sm_80"

    def __str__(self):
        return f"{self.compiler}-{self.level}-{self.processor}"


# nvcc's -O is for the host; the level of device code is that of its part cicc, 3 when nothing is said.
VARIANTS = (
    Variant("nvcc", "O0"), Variant("nvcc", "O1"), Variant("nvcc", "O3"), Variant("nvcc", "O3", "sm_90"),
    Variant("clang", "O0"), Variant("clang", "O1"), Variant("clang", "O2"), Variant("clang", "O3"),
    Variant("clang", "O3", "sm_90"),
)
PLAIN = Variant("nvcc", "O3")


@functools.cache
def toolkit():
    """The folder of the wheels' toolkit, or None."""
    found = importlib.util.find_spec("nvidia")
    for place in found.submodule_search_locations if found else ():
        if all((Path(place) / "cu13" / part).exists() for part in ("bin/nvcc", "bin/ptxas", "nvvm/bin/cicc")):
            return Path(place) / "cu13"
    return None


needs_toolkit = pytest.mark.skipif(
    toolkit() is None, reason="nvcc is not installed: pip install -r python/requirements/cuda.txt")


def missing(variant):
    """Why this variant cannot be compiled here, or None."""
    if toolkit() is None:
        return "the wheels of python/requirements/cuda.txt are not installed"
    if variant.compiler == "clang" and not shutil.which("clang++-22"):
        return "there is no clang++-22"
    return None


def _command(source, variant, out, scratch):
    if variant.compiler == "nvcc":
        level = [] if variant.level == "O3" else ["-Xcicc", f"-{variant.level}"]
        return [toolkit() / "bin/nvcc", "-std=c++17", "-ptx", f"-arch={variant.processor}", *level, "-I", KERNELS, "-o",
                out, source]
    # clang includes a header that is part of another wheel, of which nothing is used.
    (scratch / "curand_mtgp32_kernel.h").touch()
    return ["clang++-22", "-std=c++17", "-x", "cuda", "--cuda-device-only", f"--cuda-gpu-arch={variant.processor}",
            f"--cuda-path={toolkit()}", "-I", KERNELS, "-isystem", scratch, "-Wno-unknown-cuda-version",
            f"-{variant.level}", "-S", "-o", out, source]


@functools.cache
def _inputs():
    """What every compilation depends on besides its source: headers, the compilers, this file."""
    digest = hashlib.sha256()
    for path in (*sorted(KERNELS.glob("*.cuh")), Path(__file__)):
        digest.update(path.read_bytes())
    for tool in (str(toolkit() / "bin/nvcc"), "clang++-22"):
        if shutil.which(tool):
            digest.update(subprocess.run([tool, "--version"], capture_output=True, check=True).stdout)
    return digest.hexdigest()


def _run(command, folder=KERNELS):
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")


def accept(path, processor):
    """ptxas takes the file, or an AssertionError says what it said."""
    _run([toolkit() / "bin/ptxas", f"-arch={processor}", "-o", os.devnull, path])


@functools.cache
def ptx(source, variant=PLAIN, folder=KERNELS):
    """The PTX of SOURCE.cu, by default below kernels/, whose headers every source may include."""
    key = hashlib.sha256((folder / f"{source}.cu").read_bytes() + f"{variant} {_inputs()}".encode()).hexdigest()[:16]
    kept = CACHE / f"{source}-{variant}-{key}.ptx"
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix="kvq-ptx-") as name:
            scratch = Path(name)
            # By its name alone: a path would be part of names that nvcc makes up.
            _run(_command(f"{source}.cu", variant, scratch / "kernel.ptx", scratch), folder)
            accept(scratch / "kernel.ptx", variant.processor)
            CACHE.mkdir(parents=True, exist_ok=True)
            for old in CACHE.glob(f"{source}-{variant}-*.ptx"):
                old.unlink()
            # Renamed, never half written: two workers may make the same file.
            complete = kept.with_suffix(f".{os.getpid()}")
            shutil.copyfile(scratch / "kernel.ptx", complete)
            complete.replace(kept)
    return kept.read_text(encoding="utf-8")
