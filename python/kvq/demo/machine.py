# SPDX-License-Identifier: Apache-2.0
"""What the figures of a report depend on: processor, threads, versions, allocator."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import kvq


def describe(context: kvq.lowlevel.Context, torch_threads: int) -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch_threads,
        "level": context.level,
        "system": platform.platform(),
        "versions": {
            "kvq": kvq.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
        "allocator": {
            name: os.environ.get(name, "default") for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
        },
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
