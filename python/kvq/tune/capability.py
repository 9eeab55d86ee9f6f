# SPDX-License-Identifier: Apache-2.0
"""What a time depends on of a machine, as plain data: the capability vector, and its hash.

Memory bandwidth is left out: it is measured, and a measurement is not the same twice. What identifies a machine must
be.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvq import lowlevel
from kvq.errors import InvalidArgument

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNKNOWN_LAST_LEVEL = 32 << 20  # bytes, where the system says nothing of its caches
HASH_LETTERS = 32


@dataclass(frozen=True)
class Machine:
    """A capability vector as canonical JSON: the same machine has the same text and the same hash."""

    text: str

    @property
    def vector(self) -> dict[str, Any]:
        return json.loads(self.text)

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:HASH_LETTERS]

    @property
    def target(self) -> str:
        return str(self.vector["target"])

    def __str__(self) -> str:
        return f"{self.vector.get('name', 'a machine')} ({self.target})"


def machine_of(vector: Mapping[str, Any]) -> Machine:
    """The machine of a vector, which must name its target."""
    if not isinstance(vector.get("target"), str):
        raise InvalidArgument(f"the capability vector {dict(vector)} names no target: add 'target'")
    try:
        return Machine(json.dumps(vector, sort_keys=True, separators=(",", ":"), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"the capability vector is not JSON ({error}): use texts, numbers, lists") from error


def this_cpu(level: str | None = None, threads: int = 1) -> Machine:
    """This processor as the runtime sees it, for kernels of a level (None: the best one)."""
    from kvq.evaluate import machine  # reads /proc; imports no torch

    context = lowlevel.shared_context(level=level, threads=threads)
    return machine_of({
        "kind": "cpu", "target": context.level, "name": machine.processor(), "features": machine.features(),
        "cores": len(os.sched_getaffinity(0)), "caches": cache_sizes(),
    })  # fmt: skip


def accelerator(target: str, name: str) -> Machine:
    """A GPU by the text of its target, `nvptx:sm_90`, and the name of the device."""
    if not target.startswith("nvptx:"):
        raise InvalidArgument(f"the target '{target}' is no accelerator's: write nvptx:sm_90 or another of kvqc")
    return machine_of({"kind": "accelerator", "target": target, "name": name})


def cache_sizes(folder: Path = CACHES) -> dict[str, int]:
    """Bytes of the data caches of the first processor: {"L1": .., "L2": .., "L3": ..}; empty where nothing is said."""
    sizes = {}
    for index in sorted(folder.glob("index*")):
        try:
            words = ((index / name).read_text(encoding="ascii").strip() for name in ("type", "level", "size"))
            kind, level, size = words
        except OSError:
            continue
        found = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and found:
            sizes[f"L{level}"] = int(found[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[found[2]]
    return sizes


def last_level_bytes(machine: Machine) -> int:
    """Of the largest cache of the vector."""
    return max(machine.vector.get("caches", {}).values(), default=UNKNOWN_LAST_LEVEL)
