# SPDX-License-Identifier: Apache-2.0
"""The file of a tuning database: where it is, how it comes to be, how it is opened, and what its errors mean.

SQLite in WAL mode: readers never wait, and a writer that is killed leaves every row that it committed. Shared memory
between processes is part of that, so the file must lie on a disk of this machine, not on a network's.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvq._folders import store_folder
from kvq.errors import Corrupt, Error, FailedPrecondition, PermissionDenied, ResourceExhausted
from kvq.tune.rows import STATUSES

VARIABLE = "KVQ_TUNE_DB"
NAME = "tuning.db"
APPLICATION = int.from_bytes(b"kvqt")  # in the file's header, so that another program's database is not taken for ours
SCHEMA = 1
MAGIC = b"SQLite format 3\0"
BUSY_SECONDS = 30.0

_KEY = """request TEXT NOT NULL, machine TEXT NOT NULL REFERENCES machine(hash), compiler TEXT NOT NULL,
    conditions TEXT NOT NULL"""
_RESULT = f"""schedule TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN {STATUSES}), message TEXT NOT NULL,
    seconds REAL CHECK (ifnull(seconds > 0, 0) = (status = 'ok')), noise REAL, predicted INTEGER NOT NULL,
    at TEXT NOT NULL"""
_TABLES = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
CREATE TABLE machine (hash TEXT PRIMARY KEY, vector TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trial ({_KEY}, {_RESULT}, samples TEXT NOT NULL,
    PRIMARY KEY (request, machine, compiler, conditions, schedule, predicted)) WITHOUT ROWID;
CREATE TABLE entry ({_KEY}, {_RESULT}, samples INTEGER NOT NULL, default_schedule TEXT NOT NULL,
    PRIMARY KEY (request, machine, compiler, conditions)) WITHOUT ROWID;
"""


def default_path() -> Path:
    """$KVQ_TUNE_DB, else tuning.db in the folder of compiled kernels."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    folder = store_folder()
    if folder is None:
        raise PermissionDenied(
            f"there is no place for the tuning database because HOME is not set: set {VARIABLE} to a file"
        )
    return folder / NAME


def create(path: Path) -> None:
    """An empty database at the path, unless there is a file already. It is made under another name and linked, so that
    nobody ever sees half of one, and of several processes one wins."""
    if path.exists():
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with explained(path):
            _create(path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}"), path)
    except OSError as error:
        if isinstance(error, Error):
            raise
        raise PermissionDenied(
            f"the tuning database {path} cannot be created ({error.strerror or error}): set {VARIABLE} to a file in a "
            "folder of your own"
        ) from error


def _create(temporary: Path, path: Path) -> None:
    try:
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_TABLES)
        finally:
            connection.close()
        _link(temporary, path)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except PermissionError:  # a file system without links
        if not path.exists():
            temporary.rename(path)


def open_for_writing(path: Path) -> sqlite3.Connection:
    create(path)
    with explained(path):
        _refuse_foreign(path)
        connection = _checked(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None), path)
        # A commit is on the disk before it returns: rows took minutes to measure.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection


def open_for_reading(path: Path) -> sqlite3.Connection | None:
    """None where there is no file. Nothing is changed: what SQLite keeps beside an open file is gone afterwards."""
    if not path.exists():
        return None
    with explained(path):
        _refuse_foreign(path)
        try:
            return _reading(path, "mode=rw")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
        # Neither the file nor its folder may be written: nobody changes it under us, and it is read as it stands.
        pending = path.with_name(path.name + "-wal")
        if pending.exists() and pending.stat().st_size:
            raise PermissionDenied(
                f"the tuning database {path} has rows in {pending.name} that can only be read where its folder may be "
                f"written: copy both files to another folder and set {VARIABLE}"
            )
        return _reading(path, "mode=ro&immutable=1")


def _reading(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{mode}"
    connection = _checked(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None), path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _refuse_foreign(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            begins = stream.read(len(MAGIC))
    except OSError as error:
        raise PermissionDenied(
            f"the tuning database {path} cannot be read ({error.strerror or error}): set {VARIABLE} to another file"
        ) from error
    if begins != MAGIC:
        raise Corrupt(
            f"{path} is no tuning database, or its beginning is damaged: it was left as it is; move it away, or set "
            f"{VARIABLE} to another file"
        )


def _checked(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """The connection, if the file has our tables in the version that we know; else it is closed."""
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION:
            raise Corrupt(
                f"{path} is a database of another program: it was left as it is; set {VARIABLE} to another file"
            )
        if version != SCHEMA:
            raise FailedPrecondition(
                f"the tuning database {path} has schema {version} and this kvq knows {SCHEMA}: use the kvq that wrote "
                f"it, or set {VARIABLE} to another file"
            )
        connection.execute("SELECT count(*) FROM machine").fetchone()  # opens what lies beside the file
        return connection
    except BaseException:
        connection.close()
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors become one sentence with the file and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explanation(path, error) from error


def _explanation(path: Path, error: sqlite3.Error) -> Error:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return ResourceExhausted(
            f"the tuning database {path} cannot be written ({error}): nothing that was in it is lost; free disk space, "
            f"or set {VARIABLE} to a file on another disk"
        )
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return PermissionDenied(
            f"the tuning database {path} cannot be written ({error}): set {VARIABLE} to a file in a folder of your own"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return FailedPrecondition(
            f"another process has kept the tuning database {path} for {BUSY_SECONDS:.0f} s: end it, or try again"
        )
    return Corrupt(
        f"the tuning database {path} is damaged ({error}): it was left as it is; move it and the files {path.name}-* "
        "away, and import what was exported from it (kvq tune import)"
    )
