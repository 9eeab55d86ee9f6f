# SPDX-License-Identifier: Apache-2.0
"""What figures depend on: processor, system, versions, the build of kvq, allocator. Imports no torch."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import kvq
from kvq import _native
from kvq.evaluate import allocator

PACKAGE = Path(kvq.__file__).resolve().parent
LIBRARIES = ("libkvq.so", "libkvq-compiler.so")
FEATURES = ("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx512", "avx_vnni", "amx")


def describe(context: kvq.lowlevel.Context, torch_threads: int) -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch_threads,
        "level": context.level,
        "system": platform.platform(),
        "versions": {
            "kvq": kvq.__version__,
            "python": platform.python_version(),
            **versions("torch", "transformers"),
        },
        "commit": commit(),
        "allocator": allocator.settings(),
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def features() -> list[str]:
    """The instruction sets of the processor that matter to kernels, as Linux names them."""
    flags: set[str] = set()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            flags.update(line.split(":", 1)[1].split())
    return sorted(flag for flag in flags if flag.startswith(FEATURES))


def versions(*names: str) -> dict[str, str | None]:
    """Versions of installed distributions; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that this package lies in, with "+" where tracked files were changed; None where it
    lies in none, or in one that tracks something else."""
    root = PACKAGE.parent.parent
    if not (root / "python" / "kvq" / "__init__.py").is_file() or not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return result.stdout.strip()


def native_files() -> list[Path]:
    """The loaded shared objects of kvq, and the compiler plug-in where it is found."""
    files = {Path(str(_native.__file__))}
    files.update(path for path in _mapped() if path.name in LIBRARIES)
    plugin = compiler_path()
    if plugin is not None:
        files.add(plugin)
    return sorted(files)


def compiler_path() -> Path | None:
    """The compiler plug-in that the runtime takes by default: $KVQ_COMPILER, else the one beside libkvq.so."""
    named = os.environ.get("KVQ_COMPILER")
    if named:
        return Path(named) if Path(named).is_file() else None
    for path in _mapped():
        plugin = path.with_name("libkvq-compiler.so")
        if path.name == "libkvq.so" and plugin.is_file():
            return plugin
    return None


def compiler_facts() -> dict[str, Any]:
    """The plug-in with the version of LLVM and the hash of what compiles, which is part of every kernel's key."""
    path = compiler_path()
    facts: dict[str, Any] = {"plug-in": str(path) if path else None, "LLVM": None, "hash": None}
    if path is None:
        return facts
    try:
        library = ctypes.CDLL(str(path))
        library.kvq_compiler_hash.restype = library.kvq_compiler_llvm_version.restype = ctypes.c_char_p
        facts["LLVM"] = library.kvq_compiler_llvm_version().decode()
        facts["hash"] = library.kvq_compiler_hash().decode()
    except (OSError, AttributeError) as error:
        facts["error"] = f"it cannot be loaded ({error})"
    return facts


def _mapped() -> set[Path]:
    """Files that are mapped into this process."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return {Path(fields[5]) for line in lines if len(fields := line.split(maxsplit=5)) == 6}


@functools.cache
def build_identity() -> str:
    """Hash of all code of kvq that takes part in a measurement: a result of other code is not a result of this one."""
    digest = hashlib.sha256()
    sources = [file for folder in ("hf", "evaluate") for file in sorted((PACKAGE / folder).rglob("*.py"))]
    for file in [*sources, *native_files()]:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
