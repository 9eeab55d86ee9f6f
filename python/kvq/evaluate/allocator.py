# SPDX-License-Identifier: Apache-2.0
"""Starts the process again with the allocator settings that a fair baseline needs. Imports no torch.

glibc gives large blocks back to the system at once: an ordinary cache, which reallocates K and V at every step, then
spends most of its time in page faults. The settings are read only when a process begins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

SETTINGS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


def tune(module: str, arguments: Sequence[str]) -> None:
    """Replaces this process by `python -m module arguments` unless every setting has a value, a caller's own too."""
    missing = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    if missing:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], {**os.environ, **missing})


def settings() -> dict[str, str]:
    """What this process runs with."""
    return {name: os.environ.get(name, "default") for name in SETTINGS}
