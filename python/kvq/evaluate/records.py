# SPDX-License-Identifier: Apache-2.0
"""Finished measurements on disk, so that an interrupted run goes on where it stopped. Imports neither torch nor numpy.

A measurement is named by its key, a dict of everything that decides the result. Each has one file, written under a
temporary name and renamed, with the key inside and a checksum over both: a changed setting is another key, and a file
that was cut short or edited is measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvq.errors import PermissionDenied

SCHEMA = 1

Key = dict[str, Any]
Record = dict[str, Any]  # key, result, measured_at, seconds


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(record: Record) -> str:
    return hashlib.sha256(_canonical(record).encode()).hexdigest()


class Records:
    """The records of one folder, or of this process alone where `folder` is None."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else folder / "records"
        self._memory: dict[str, Record] = {}
        self.corrupt: list[tuple[Path, str]] = []  # files that were refused, and why
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                probe = self.folder / f".probe-{os.getpid()}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise PermissionDenied(
                    f"the results folder {folder} cannot be written ({error.strerror or error}): give another --out"
                ) from error

    def path(self, key: Key) -> Path | None:
        """The file of a key: its metric in front, for people."""
        return None if self.folder is None else self.folder / f"{key['metric']}-{self._name(key)}.json"

    def get(self, key: Key) -> Record | None:
        """The finished measurement of this key, or None."""
        name = self._name(key)
        if name not in self._memory:
            path = self.path(key)
            if path is None or not path.exists():
                return None
            record = self._read(path, key)
            if record is None:
                return None
            self._memory[name] = record
        return self._memory[name]

    def measure(self, key: Key, work: Callable[[], dict[str, Any]]) -> Record:
        """Runs `work` and keeps what it returns."""
        start = time.perf_counter()
        result = work()
        record = {
            "schema": SCHEMA,
            "key": key,
            "result": result,
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.perf_counter() - start, 3),
        }
        self._memory[self._name(key)] = record
        path = self.path(key)
        if path is not None:
            write_atomically(path, json.dumps({**record, "checksum": _checksum(record)}, indent=1) + "\n")
        return record

    def forget(self, key: Key) -> None:
        """Takes a record out, so that it is measured again."""
        self._memory.pop(self._name(key), None)
        path = self.path(key)
        if path is not None:
            path.unlink(missing_ok=True)

    def _name(self, key: Key) -> str:
        return hashlib.sha256(_canonical(key).encode()).hexdigest()[:24]

    def _read(self, path: Path, key: Key) -> Record | None:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            checksum = record.pop("checksum")
            if checksum != _checksum(record):
                raise ValueError("its checksum is wrong")
            if record["schema"] != SCHEMA or record["key"] != key:
                raise ValueError("it is of another measurement")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = "it is not a whole JSON document" if isinstance(error, json.JSONDecodeError) else str(error)
            self.corrupt.append((path, why))
            return None
        return record


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name in its folder, then renames it: there is the old file or the new one."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PermissionDenied(f"{path} cannot be written ({error.strerror or error}): give another place") from error
