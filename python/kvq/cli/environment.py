# SPDX-License-Identifier: Apache-2.0
"""`kvq env`: what a bug report needs. Neither torch nor transformers is imported; nothing secret and no user's name is
shown."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import stat
import sys
from pathlib import Path
from typing import Any

import click

import kvq
from kvq import _native
from kvq._folders import store_folder
from kvq.errors import Error
from kvq.evaluate import machine

PACKAGES = ("torch", "transformers", "numpy", "tokenizers", "safetensors", "gguf", "optimum-quanto", "hqq")
VARIABLES = ("KVQ_", "MALLOC_", "OMP_", "MKL_NUM_THREADS", "HF_HUB_OFFLINE", "LD_PRELOAD", "XDG_CACHE_HOME")


@click.command("env", short_help="Show what a bug report needs.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def env(as_json: bool) -> None:
    """Show what a bug report needs: versions, processor, GPU, kernel store, compiler, settings.

    The home folder is shown as ~. Of the environment only the variables that change how kvq runs are shown.
    """
    facts = _shorten(describe())
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for section, values in facts.items():
        click.echo(f"{section}:")
        for name, value in values.items():
            click.echo(f"  {name}: {_text(value)}")


def describe() -> dict[str, dict[str, Any]]:
    return {
        "kvq": _kvq(),
        "compiler": machine.compiler_facts(),
        "processor": _processor(),
        "accelerators": {"cuda": _accelerator("cuda")},
        "memory": _memory(),
        "kernel store": _store(),
        "python": {"version": platform.python_version(), "executable": sys.executable, **machine.versions(*PACKAGES)},
        "system": {
            "name": _os_name(),
            "kernel": platform.release(),
            "libc": " ".join(platform.libc_ver()).strip() or None,
        },
        "environment": {name: _value(name) for name in sorted(os.environ) if name.startswith(VARIABLES)},
    }


def _value(name: str) -> str:
    """A variable's value, unless it may hold a secret: an address may have a password in it."""
    value = os.environ[name]
    return "(set)" if "://" in value or any(word in name for word in ("TOKEN", "SECRET", "PASSWORD", "KEY")) else value


def _kvq() -> dict[str, Any]:
    foreign = foreign_distributions()
    return {
        "version": kvq.__version__,
        "commit": machine.commit(),
        "kernel ABI": _native.kernel_abi,
        "accuracy classes": list(kvq.lowlevel.ACCURACY_CLASSES),
        "default accuracy class": kvq.lowlevel.DEFAULT_ACCURACY,
        "package": str(machine.PACKAGE),
        "libraries": [str(path) for path in machine.native_files()],
        "foreign distributions": foreign or None,
    }


def foreign_distributions() -> list[str]:
    """Installed distributions that are called kvq, or bring a package kvq, and are not this package."""
    found = []
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"] or ""
        entry = Path(str(distribution.locate_file("kvq/__init__.py")))
        brings = entry.is_file() and any(str(file) == "kvq/__init__.py" for file in distribution.files or ())
        if (name.lower() == "kvq" or brings) and entry.resolve().parent != machine.PACKAGE:
            found.append(f"{name} {distribution.version} in {distribution.locate_file('')}")
    return sorted(found)


def _processor() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": machine.processor(),
        "architecture": platform.machine(),
        "cores of the machine": os.cpu_count(),
        "cores for this process": len(os.sched_getaffinity(0)),
        "features": machine.features(),
    }
    try:
        context = kvq.lowlevel.shared_context()
        return {**facts, "levels": context.levels, "level in use": context.level}
    except Error as error:
        return {**facts, "levels": None, "level in use": None, "error": str(error)}


def _accelerator(device: str) -> str:
    """What it is, or why it cannot be used, in one line."""
    try:
        return kvq.lowlevel.Context(device, threads=1).description
    except Error as error:
        return f"cannot be used: {error}"


def _memory() -> dict[str, Any]:
    values = {}
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            values[name] = int(rest.split()[0]) * 1024
    group = Path("/sys/fs/cgroup/memory.max")
    limit = group.read_text(encoding="ascii").strip() if group.is_file() else "max"
    return {
        "bytes in all": values.get("MemTotal"),
        "bytes available": values.get("MemAvailable"),
        "bytes allowed by the control group": None if limit == "max" else int(limit),
    }


def _store() -> dict[str, Any]:
    folder = store_folder()
    facts: dict[str, Any] = {"folder": str(folder) if folder else None, "exists": bool(folder and folder.is_dir())}
    if not facts["exists"]:
        return facts
    info = folder.stat()
    files = [file.stat() for file in folder.iterdir() if file.is_file()]
    return {
        **facts,
        "mode": stat.filemode(info.st_mode),
        "owned by this user": info.st_uid == os.geteuid(),
        "writable": os.access(folder, os.W_OK),
        "files": len(files),
        "bytes": sum(file.st_size for file in files),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _shorten(value: Any) -> Any:
    """The same with the home folder as ~ in every text."""
    home = str(Path.home())
    if isinstance(value, dict):
        return {name: _shorten(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shorten(item) for item in value]
    if isinstance(value, str) and len(home) > 1:
        return value.replace(home, "~")
    return value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
