# SPDX-License-Identifier: Apache-2.0
"""Where a real NVRTC is, and the program that the tests of this folder run it with (nvrtc_tool.cpp)."""

import functools
import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import sim_env
import toolchain

TOOL = sim_env.BUILD / "tests/jit/nvrtc_tool"
ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
# What finds a library, none of which a test inherits.
VARIABLES = ("KVQ_NVRTC", "KVQ_CUDA_LIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH")


@functools.cache
def folder():
    """The folder with libnvrtc: of $KVQ_CUDA_LIB_PATH, else of the wheel in this environment; or None."""
    found = importlib.util.find_spec("nvidia")
    places = [Path(p) for p in os.environ.get("KVQ_CUDA_LIB_PATH", "").split(":") if p]
    places += [Path(p) / "cu13/lib" for p in (found.submodule_search_locations if found else ())]
    return next((place for place in places if (place / "libnvrtc.so.13").exists()), None)


needs_nvrtc = pytest.mark.skipif(
    folder() is None, reason="NVRTC is not installed: pip install -r python/requirements/cuda.txt")


@functools.cache
def version():
    """Of the library, "13.0"."""
    return run_well("version").split()[0]


@functools.cache
def ptxas_version():
    done = subprocess.run([toolchain.toolkit() / "bin/ptxas", "--version"], capture_output=True, text=True, check=True)
    return re.search(r"release (\d+\.\d+)", done.stdout)[1]


def environment(**variables):
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**kept, **variables}


def run(*words, env=None):
    """(exit code, standard output, standard error)"""
    assert TOOL.exists(), f"{TOOL} is not built: ./dev build"
    env = environment(KVQ_CUDA_LIB_PATH=str(folder())) if env is None else env
    done = subprocess.run([str(TOOL), *map(str, words)], env=env, capture_output=True, text=True, timeout=300,
                          check=False)
    return done.returncode, done.stdout, done.stderr.strip()


def run_well(*words, env=None):
    code, out, error = run(*words, env=env)
    assert code == 0, error
    return out


def refusal(*words, env=None):
    """The sentence that the command is refused with."""
    code, out, error = run(*words, env=env)
    assert code == 1, (code, out, error)
    assert "\n" not in error, error
    return error


def text_file(tmp_path, source, variant):
    """The PTX of a kernel of tests/ptxsim as a file."""
    if reason := toolchain.missing(variant):
        pytest.skip(reason)
    path = tmp_path / f"{source}.ptx"
    path.write_text(toolchain.ptx(source, variant), encoding="utf-8")
    return path


def compile_ptx(path, archs, out, registers=None):
    """{(kernel, arch): what the cubin says}"""
    words = [registers] if registers else []
    lines = run_well("compile", path, ",".join(archs), out, *words).splitlines()
    return {(line["kernel"], line["arch"]): line for line in map(json.loads, lines)}


USED = re.compile(r"Used (\d+) registers, used (\d+) barriers(?:, (\d+) bytes cumulative stack size)?"
                  r"(?:, (\d+) bytes smem)?")
SPILLED = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def ptxas(path, arch, out):
    """{kernel: what ptxas -v says}; its cubin goes to `out`."""
    done = subprocess.run([toolchain.toolkit() / "bin/ptxas", "-v", f"-arch={arch}", "-o", out, path],
                          capture_output=True, text=True, check=True)
    said, name = {}, None
    for line in done.stderr.splitlines():
        if " Compiling entry function " in line:
            name = line.split("'")[1]
            said[name] = {}
        elif match := SPILLED.search(line):
            said[name].update(zip(("frame", "spill_stores", "spill_loads"), map(int, match.groups())))
        elif match := USED.search(line):
            numbers = (int(group or 0) for group in match.groups())
            said[name].update(zip(("registers", "barriers", "stack", "shared"), numbers))
    return said
