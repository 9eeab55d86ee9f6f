# SPDX-License-Identifier: Apache-2.0
"""The tuning database: trials of candidates and, for each key, the schedule that won.

Every change is one transaction that either is there as a whole or not at all, and any number of processes may change
one database at once. Reading changes nothing.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from kvq.errors import FailedPrecondition, InvalidArgument
from kvq.tune import database_file
from kvq.tune.capability import Machine
from kvq.tune.database_file import explained
from kvq.tune.rows import OK, Entry, Key, Trial, better, entry_from, more_is_known, trial_from

_SAME_KEY = "request = ? AND machine = ? AND compiler = ? AND conditions = ?"
_TRIAL = "request, machine, compiler, conditions, schedule, status, message, seconds, noise, predicted, at, samples"
_ENTRY = f"{_TRIAL}, default_schedule"


class Database:
    """An open database; a context manager. `readonly`: a file that is not there is an empty database, and none of the
    methods that change anything may be called."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, readonly: bool = False) -> None:
        self.path = database_file.default_path() if path is None else Path(path)
        self.readonly = readonly
        opened = database_file.open_for_reading if readonly else database_file.open_for_writing
        self._connection = opened(self.path)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    # -- reading -------------------------------------------------------------------------------------------------------

    def entry(self, key: Key) -> Entry | None:
        found = self._rows(f"SELECT {_ENTRY} FROM entry WHERE {_SAME_KEY}", _key_values(key))
        return _entry(found[0]) if found else None

    def entries(self, request_begins: str = "") -> list[Entry]:
        """All entries whose request begins so, in the order of their keys."""
        where = "WHERE substr(request, 1, ?) = ?"
        values = (len(request_begins), request_begins)
        return [_entry(row) for row in self._rows(f"SELECT {_ENTRY} FROM entry {where} ORDER BY {_TRIAL}", values)]

    def trials(self, key: Key | None = None) -> list[Trial]:
        """Those of a key, or all."""
        where, values = (f"WHERE {_SAME_KEY}", _key_values(key)) if key else ("", ())
        return [_trial(row) for row in self._rows(f"SELECT {_TRIAL} FROM trial {where} ORDER BY {_TRIAL}", values)]

    def machines(self) -> dict[str, Machine]:
        """By hash."""
        return {hash: Machine(vector) for hash, vector in self._rows("SELECT hash, vector FROM machine ORDER BY hash")}

    def verify(self) -> list[str]:
        """What is wrong with the file or with a row, one sentence each; empty where all is well."""
        broken = [f"SQLite finds: {row[0]}" for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]
        if broken:
            return broken
        broken += [
            f"machine {hash} has the hash of another vector"
            for hash, machine in self.machines().items()
            if machine.hash != hash
        ]
        for parent in self._rows("PRAGMA foreign_key_check"):
            broken.append(f"a row of table {parent[0]} names a machine that is not there")
        for table, columns, parse in (("trial", _TRIAL, _checked_trial), ("entry", _ENTRY, _checked_entry)):
            for row in self._rows(f"SELECT {columns} FROM {table} ORDER BY {_TRIAL}"):
                try:
                    parse(row)
                except (InvalidArgument, ValueError) as error:
                    broken.append(f"the {table} '{row[4]}' of {row[0]}: {error}")
        return broken

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        if self._connection is None:
            return []
        with explained(self.path):
            return self._connection.execute(query, values).fetchall()

    # -- changing ------------------------------------------------------------------------------------------------------

    def record(
        self,
        machines: Iterable[Machine],
        trials: Iterable[Trial] = (),
        entries: Iterable[Entry] = (),
        *,
        replace: bool = False,
    ) -> int:
        """Adds rows, all of them or none, and returns how many changed something. Of two trials of one candidate the
        one stays of which more is known, of two entries the better one (kvq.tune.rows); replace=True: the new one."""
        changed = 0
        with self._transaction() as connection:
            for machine in machines:
                connection.execute("INSERT OR IGNORE INTO machine VALUES (?, ?)", (machine.hash, machine.text))
            for trial in trials:
                changed += self._put_trial(connection, trial, replace)
            for entry in entries:
                changed += self._put_entry(connection, entry, replace)
        return changed

    def prune(
        self, *, compiler_other_than: str | None = None, before: str | None = None, trials_only: bool = False,
        request_begins: str = "",
    ) -> tuple[int, int]:  # fmt: skip
        """Removes rows that meet all that is given, and machines that nothing names any more; returns how many trials
        and entries went. `compiler_other_than`: how the hash begins that stays; `before`: a date, 2026-05-31."""
        where, values = "WHERE substr(request, 1, ?) = ?", [len(request_begins), request_begins]
        if compiler_other_than is not None:
            where = f"{where} AND substr(compiler, 1, ?) <> ?"
            values += [len(compiler_other_than), compiler_other_than]
        if before is not None:
            where, values = f"{where} AND at < ?", [*values, before]
        with self._transaction() as connection:
            trials = connection.execute(f"DELETE FROM trial {where}", values).rowcount
            entries = 0 if trials_only else connection.execute(f"DELETE FROM entry {where}", values).rowcount
            connection.execute(
                "DELETE FROM machine WHERE hash NOT IN (SELECT machine FROM trial UNION SELECT machine FROM entry)"
            )
        return trials, entries

    def forget(self, key: Key) -> None:
        """Removes all that is known of a key."""
        with self._transaction() as connection:
            for table in ("trial", "entry"):
                connection.execute(f"DELETE FROM {table} WHERE {_SAME_KEY}", _key_values(key))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self.readonly or self._connection is None:
            raise FailedPrecondition(f"the tuning database {self.path} was opened for reading: open it for writing")
        connection = self._connection
        with explained(self.path):
            connection.execute("BEGIN IMMEDIATE")  # waits for other writers here, and never in the middle
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _put_trial(self, connection: sqlite3.Connection, trial: Trial, replace: bool) -> bool:
        same = (*_key_values(trial.key), trial.schedule, trial.predicted)
        where = f"{_SAME_KEY} AND schedule = ? AND predicted = ?"
        old = connection.execute(f"SELECT {_TRIAL} FROM trial WHERE {where}", same).fetchone()
        if old is not None and (_trial(old) == trial or not (replace or more_is_known(trial, _trial(old)))):
            return False
        if trial.status == "wrong":  # found out by whomever: it is nobody's schedule any more
            connection.execute(f"DELETE FROM entry WHERE {_SAME_KEY} AND schedule = ? AND status = 'ok'", same[:5])
        connection.execute(f"REPLACE INTO trial ({_TRIAL}) VALUES ({_marks(_TRIAL)})", _trial_values(trial))
        return True

    def _put_entry(self, connection: sqlite3.Connection, entry: Entry, replace: bool) -> bool:
        same = _key_values(entry.key)
        if entry.status == OK and connection.execute(
            f"SELECT 1 FROM trial WHERE {_SAME_KEY} AND schedule = ? AND status = 'wrong'", (*same, entry.schedule)
        ).fetchone():
            return False
        old = connection.execute(f"SELECT {_ENTRY} FROM entry WHERE {_SAME_KEY}", same).fetchone()
        if old is not None and (_entry(old) == entry or not (replace or better(entry, _entry(old)))):
            return False
        connection.execute(f"REPLACE INTO entry ({_ENTRY}) VALUES ({_marks(_ENTRY)})", _entry_values(entry))
        return True


# -- rows and columns --------------------------------------------------------------------------------------------------


def _key_values(key: Key) -> tuple[str, ...]:
    return (key.request, key.machine, key.compiler, key.conditions)


def _marks(columns: str) -> str:
    return ", ".join("?" * len(columns.split(",")))


def _trial_values(trial: Trial) -> tuple[Any, ...]:
    return (*_key_values(trial.key), trial.schedule, trial.status, trial.message, trial.seconds, trial.noise,
            trial.predicted, trial.at, json.dumps(trial.samples))  # fmt: skip


def _entry_values(entry: Entry) -> tuple[Any, ...]:
    return (*_key_values(entry.key), entry.schedule, entry.status, entry.message, entry.seconds, entry.noise,
            entry.predicted, entry.at, entry.samples, entry.default)  # fmt: skip


def _trial(row: Sequence[Any]) -> Trial:
    return Trial(Key(*row[:4]), *row[4:9], samples=tuple(json.loads(row[11])), predicted=bool(row[9]), at=row[10])


def _entry(row: Sequence[Any]) -> Entry:
    schedule, *figures = row[4:9]
    return Entry(Key(*row[:4]), schedule, row[12], *figures, samples=row[11], predicted=bool(row[9]), at=row[10])


def _checked_trial(row: Sequence[Any]) -> None:
    trial_from(_named(row, _TRIAL) | {"samples": json.loads(row[11])})


def _checked_entry(row: Sequence[Any]) -> None:
    named = _named(row, _ENTRY)
    entry_from({**{name: value for name, value in named.items() if name != "default_schedule"}, "default": row[12]})


def _named(row: Sequence[Any], columns: str) -> dict[str, Any]:
    return dict(zip(columns.split(", "), row, strict=True)) | {"predicted": bool(row[9])}
