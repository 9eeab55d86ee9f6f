# SPDX-License-Identifier: Apache-2.0
"""What a time depends on of a machine, as plain data: the capability vector, and its hash.

The runtime alone describes a machine that is here (runtime/device/machine.h): by the same text it finds the schedules
that were chosen, so that an entry of the database and a choice are of the same machine or of none. Memory bandwidth is
left out: it is measured, and a measurement is not the same twice. What identifies a machine must be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvq import lowlevel
from kvq.errors import InvalidArgument

UNKNOWN_LAST_LEVEL = 32 << 20  # bytes, where the system says nothing of its caches
MOST_SECOND_LEVEL = 128 << 20  # bytes, assumed of every GPU: the runtime does not say them
HASH_LETTERS = 32
# Keys of the runtime's descriptions, by kind.
KEYS = {"cpu": {"kind", "target", "name", "cores", "caches"}, "accelerator": {"kind", "target", "name"}}


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

    @property
    def is_current(self) -> bool:
        """Whether a machine is described so today. Rows of versions before have other facts."""
        vector = self.vector
        return set(vector) == KEYS.get(vector.get("kind", ""))

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


def this_cpu(level: str | None = None) -> Machine:
    """This processor as the runtime describes it, for kernels of a level (None: the best one)."""
    return Machine(lowlevel.shared_context(level=level, threads=1).machine)


def parse_machine(text: str) -> Machine:
    """Of what a context says of its machine (kvq_context_machine)."""
    try:
        vector = json.loads(text)
        machine = machine_of(vector) if isinstance(vector, dict) else None
    except ValueError:
        machine = None
    if machine is None or not machine.is_current:
        raise InvalidArgument(f"'{text}' describes no machine: give what kvq.lowlevel.Context(..).machine is there")
    return machine


def accelerator(target: str, name: str) -> Machine:
    """A GPU by the text of its target, `nvptx:sm_90`, and the name of the device."""
    if not target.startswith("nvptx:"):
        raise InvalidArgument(f"the target '{target}' is no accelerator's: write nvptx:sm_90 or another of kvqc")
    return machine_of({"kind": "accelerator", "target": target, "name": name})


def last_level_bytes(machine: Machine) -> int:
    """Of the largest cache of the vector; of a GPU, whose vector has none, at least that."""
    if machine.vector.get("kind") == "accelerator":
        return MOST_SECOND_LEVEL
    return max(machine.vector.get("caches", {}).values(), default=UNKNOWN_LAST_LEVEL)
