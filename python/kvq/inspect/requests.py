# SPDX-License-Identifier: Apache-2.0
"""Kernel requests, compiled by kvqc, and what their schedules say of the machine code's loop."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvq.inspect import tools

DEFAULT = " (default)"  # behind a line of kvqc --list-schedules


@dataclass(frozen=True)
class Compiled:
    ptx: str
    schedule: str  # "": kvqc names none

    @property
    def tile_tokens(self) -> int | None:
        """Tokens of one turn of attention's key loop."""
        found = re.search(r"\btile_tokens=(\d+)", self.schedule)
        return int(found[1]) if found else None


def compile_request(request: str, target: str, schedule: str | None = None) -> Compiled:
    """With the schedule, one of `kvqc --list-schedules`; None: the default one."""
    chosen = [f"--schedule={schedule}"] if schedule else []
    ptx = tools.run("kvqc", [f"--target={target}", f"--request={request}", *chosen, "--no-bundle"]).stdout
    return Compiled(ptx, schedule or default_schedule(request, target))


def default_schedule(request: str, target: str) -> str:
    listed = tools.run("kvqc", [f"--target={target}", f"--request={request}", "--list-schedules"]).stdout
    marked = (line.removesuffix(DEFAULT) for line in listed.splitlines() if line.endswith(DEFAULT))
    return next(marked, "")
