# SPDX-License-Identifier: Apache-2.0
"""Databases as text, and one database into another.

A text has one JSON object on each line: a header, then machines, trials and entries. It is read as a whole before
anything of it is kept: a mistake in line 900 leaves the database as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kvq.errors import InvalidArgument
from kvq.tune.capability import Machine, machine_of
from kvq.tune.database import Database
from kvq.tune.rows import Entry, Trial, entry_from, to_json, trial_from

HEADER = {"kvq-tune": 1}


@dataclass
class Rows:
    """What a text or a database holds."""

    machines: list[Machine] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def add_to(self, database: Database) -> int:
        """How many rows changed something."""
        return database.record(self.machines, self.trials, self.entries)


def rows_of(database: Database) -> Rows:
    return Rows(list(database.machines().values()), database.trials(), database.entries())


def merge(database: Database, others: Iterable[Database]) -> int:
    """Takes over the rows of others, which stay as they are; returns how many changed something."""
    return sum(rows_of(other).add_to(database) for other in others)


def to_lines(rows: Rows) -> Iterator[str]:
    """JSON lines, in an order that depends on the rows alone."""
    yield _line(HEADER)
    for machine in rows.machines:
        yield _line({"machine": machine.vector})
    for trial in rows.trials:
        yield _line({"trial": to_json(trial)})
    for entry in rows.entries:
        yield _line({"entry": to_json(entry)})


def from_lines(lines: Iterable[str], source: str) -> Rows:
    """The rows of a text. InvalidArgument names the source and the line."""
    rows, known = Rows(), set()
    numbered = enumerate(lines, 1)
    if _parsed(next(numbered, (1, "null"))[1]) != HEADER:
        raise InvalidArgument(f"{source}:1: the first line is not {_line(HEADER)}: give what kvq tune export wrote")
    for number, line in numbered:
        try:
            machine = _add(rows, _parsed(line))
        except (InvalidArgument, TypeError) as error:
            raise InvalidArgument(f"{source}:{number}: {error}; nothing was imported") from error
        if isinstance(machine, Machine):
            known.add(machine.hash)
        elif machine not in known:
            raise InvalidArgument(
                f"{source}:{number}: its machine {machine} is in no line before; nothing was imported"
            )
    return rows


def _add(rows: Rows, data: Any) -> Machine | str:
    """Keeps a row and returns the machine that it is, or the hash of the one that it names."""
    kind, content = next(iter(data.items())) if isinstance(data, dict) and len(data) == 1 else (None, None)
    if not isinstance(content, dict) or kind not in ("machine", "trial", "entry"):
        raise InvalidArgument("the line is none of {\"machine\": {..}}, {\"trial\": {..}}, {\"entry\": {..}}")
    if kind == "machine":
        rows.machines.append(machine_of(content))
        return rows.machines[-1]
    if kind == "trial":
        rows.trials.append(trial_from(content))
        return rows.trials[-1].key.machine
    rows.entries.append(entry_from(content))
    return rows.entries[-1].key.machine


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
