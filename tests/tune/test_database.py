# SPDX-License-Identifier: Apache-2.0
"""The tuning database: what stays of two rows, what is refused, what other processes, kills and full disks leave."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from kvq.errors import Corrupt, FailedPrecondition, PermissionDenied, ResourceExhausted
from kvq.tune import database_file, halving
from kvq.tune.database import Database
from kvq.tune.rows import better, more_is_known
from made_rows import COMPILER, DEFAULT, FAST, KEY, MACHINE, entry, failed, key, other_machine, trial


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "tuning.db"


@pytest.fixture
def filled(path):
    with Database(path) as database:
        database.record([MACHINE], [trial(), trial(DEFAULT, seconds=2e-3)], [entry()])
    return path


def beside(path):
    return sorted(file.name for file in path.parent.iterdir())


def run_python(code, *arguments, **options):
    """A Python program of its own with the tests' modules."""
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": search}, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, **options)


# -- where it is -------------------------------------------------------------------------------------------------------


def test_it_lies_where_the_variable_says_or_with_the_kernels(monkeypatch, tmp_path):
    monkeypatch.setenv("KVQ_STORE", str(tmp_path))
    assert database_file.default_path() == tmp_path / "tuning.db"
    monkeypatch.setenv("KVQ_TUNE_DB", str(tmp_path / "mine.db"))
    assert database_file.default_path() == tmp_path / "mine.db"
    for name in ("KVQ_TUNE_DB", "KVQ_STORE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PermissionDenied, match="HOME is not set: set KVQ_TUNE_DB"):
        database_file.default_path()


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_went_in(path):
    rows = [trial(), trial(DEFAULT, seconds=2e-3, samples=(2e-3, 1.9e-3)), failed("rows=9", "infeasible"),
            failed("rows=8", "wrong", "off by 3.5"), trial("rows=2", predicted=True, samples=())]
    with Database(path) as database:
        assert database.record([MACHINE], rows, [entry()]) == 6
    with Database(path, readonly=True) as database:
        assert sorted(database.trials(KEY), key=str) == sorted(rows, key=str)
        assert database.entry(KEY) == entry() and database.entries() == [entry()]
        assert database.machines() == {MACHINE.hash: MACHINE}
        assert database.entry(key(compiler="another")) is None and database.trials(key(compiler="another")) == []
        assert database.entries("attend:") == [entry()] and database.entries("append:") == []
        assert database.verify() == []


def test_a_file_that_is_not_there_is_an_empty_database_to_readers(path):
    with Database(path, readonly=True) as database:
        assert database.entries() == [] == database.trials() and database.entry(KEY) is None
        with pytest.raises(FailedPrecondition, match="opened for reading"):
            database.record([MACHINE])
    assert not path.parent.exists()


def test_reading_changes_no_byte_and_leaves_no_file(filled):
    before, names = filled.read_bytes(), beside(filled)
    with Database(filled, readonly=True) as database:
        assert database.entry(KEY) and database.trials() and database.machines() and not database.verify()
        with pytest.raises(FailedPrecondition):
            database.prune()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database._connection.execute("DELETE FROM entry")
    assert filled.read_bytes() == before and beside(filled) == names == ["tuning.db"]


@pytest.mark.parametrize(
    ("new", "stays"),
    [
        (entry("rows=2", seconds=0.9e-3), True),
        (entry("rows=2", seconds=1.1e-3), False),
        (entry("rows=2", seconds=0.9e-3, predicted=True), False),
        (entry("rows=2", seconds=1e-3, at="2026-05-02T00:00:00Z"), True),
        (replace(entry("rows=2"), status="crashed", seconds=None), False),
    ],
)
def test_the_better_entry_stays(path, new, stays):
    assert better(new, entry()) == stays != better(entry(), new)
    for first, second in ((entry(), new), (new, entry())):
        with Database(path) as database:
            database.record([MACHINE], (), [first], replace=True)
            database.record([MACHINE], (), [second])
            assert database.entry(KEY) == (new if stays else entry())


def test_an_entry_is_replaced_on_request(filled):
    slow = entry("rows=2", seconds=5.0)
    with Database(filled) as database:
        assert database.record([MACHINE], (), [slow]) == 0
        assert database.record([MACHINE], (), [slow], replace=True) == 1
        assert database.entry(KEY) == slow


def test_a_trial_of_more_samples_stays_and_a_wrong_one_stays_wrong(path):
    few, many = trial(samples=(1e-3,)), trial(samples=(1e-3,) * 9)
    wrong = failed(FAST, "wrong", at="2020-01-01T00:00:00Z")
    assert more_is_known(many, few) and not more_is_known(few, many)
    assert more_is_known(wrong, many) and not more_is_known(many, wrong)
    with Database(path) as database:
        for row, stays in ((few, few), (many, many), (few, many), (wrong, wrong), (many, wrong)):
            database.record([MACHINE], [row])
            assert database.trials() == [stays]


def test_a_schedule_that_is_found_wrong_is_nobodys_entry(filled):
    with Database(filled) as database:
        database.record([MACHINE], [failed(FAST, "wrong")])
        assert database.entry(KEY) is None
        database.record([MACHINE], (), [entry()])
        assert database.entry(KEY) is None


def test_a_row_without_its_machine_is_refused_as_a_whole(path):
    with Database(path) as database:
        with pytest.raises(Corrupt, match="FOREIGN KEY"):
            database.record([], [trial()])
        assert database.trials() == []


def test_prune_removes_what_meets_all_conditions(filled):
    old = key(compiler="old")
    with Database(filled) as database:
        other = other_machine(cores=2)
        database.record([other], [trial(key=replace(old, machine=other.hash))], [entry(key=old)])
        assert database.prune(compiler_other_than=COMPILER, before="2026-01-01") == (0, 0)
        assert database.prune(compiler_other_than=COMPILER, request_begins="append:") == (0, 0)
        assert database.prune(compiler_other_than=COMPILER) == (1, 1)
        assert database.entries() == [entry()] and set(database.machines()) == {MACHINE.hash}
        assert database.prune(trials_only=True) == (2, 0) and database.entries() == [entry()]
        assert database.prune(before="2027-01-01") == (0, 1) and database.machines() == {}


# -- what is no database of ours ---------------------------------------------------------------------------------------


def refused(path, error, words):
    before = path.read_bytes()
    for readonly in (True, False):
        with pytest.raises(error, match=words) as found:
            with Database(path, readonly=readonly) as database:
                database.entries()
                database.machines()
                database.trials()
        assert str(path) in str(found.value) and "\n" not in str(found.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{}\n", b"SQLite format 2\0" + bytes(100), bytes(4096)])
def test_a_foreign_file_is_refused_and_left(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    refused(path, Corrupt, "is no tuning database, .* move it away, or set KVQ_TUNE_DB")


def test_another_programs_database_is_refused_and_left(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entry (x)")
    connection.close()
    refused(path, Corrupt, "is a database of another program")


@pytest.mark.parametrize("version", [0, 2, 99])
def test_an_unknown_schema_is_refused_and_left(filled, version):
    connection = sqlite3.connect(filled)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    refused(filled, FailedPrecondition, f"has schema {version} and this kvq knows 1: use the kvq that wrote it")


@pytest.mark.parametrize("damage", ["cut", "header", "pages"])
def test_a_damaged_file_is_refused_and_left(filled, damage):
    data = filled.read_bytes()
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "header":
        data = data[:16] + b"\xaa" * 84 + data[100:]
    else:
        data = data[:100] + b"\xff" * (len(data) - 100)
    filled.write_bytes(data)
    refused(filled, Corrupt, "is damaged .* it was left as it is; move it and .*kvq tune import")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE machine SET vector = '{\"target\":\"x\"}'", "has the hash of another vector"),
        ("UPDATE entry SET schedule = 'rows'", "the entry 'rows' of attend:.*: the schedule 'rows' is not legal"),
        ("UPDATE entry SET conditions = 'hot'", "the conditions 'hot' are not legal"),
        ("UPDATE trial SET samples = '[-1]'", "its samples are not a list of positive seconds"),
        ("UPDATE trial SET samples = '['", "the trial .* Expecting value"),
        ("UPDATE trial SET noise = -1.0", "its noise is -1.0"),
        ("UPDATE trial SET machine = 'gone'", "names a machine that is not there"),
    ],
)
def test_verify_finds_what_a_row_must_not_be(filled, change, words):
    connection = sqlite3.connect(filled)
    connection.execute(change)
    connection.commit()
    connection.close()
    with Database(filled, readonly=True) as database:
        assert any(re.search(words, line) for line in database.verify())


# -- file systems ------------------------------------------------------------------------------------------------------


READ_ONLY = """
import sys
from kvq.errors import PermissionDenied
from kvq.tune.database import Database
from made_rows import *
with Database(sys.argv[1], readonly=True) as database:
    assert database.entry(KEY) == entry(), "lookup"
try:
    with Database(sys.argv[1]) as database:
        database.record([MACHINE], (), [entry("rows=7", seconds=1e-9)])
except PermissionDenied as error:
    print(error)
"""


def test_a_read_only_file_system_is_read_and_not_written(filled):
    folder = filled.parent
    mount = f"mount --bind '{folder}' '{folder}' && mount -o remount,ro,bind '{folder}'"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine lets nobody mount a folder read-only")
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = f"{mount} && exec '{sys.executable}' -c '{READ_ONLY}' '{filled}'"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command.replace('"lookup"', "1")], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": search}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and str(filled) in done.stdout and "set KVQ_TUNE_DB to a file" in done.stdout
    with Database(filled) as database:
        assert database.entry(KEY) == entry()


def test_rows_that_wait_in_the_log_are_not_passed_over(filled):
    """Where SQLite may not write beside the file it would read an older state: that is said instead."""
    log = filled.with_name("tuning.db-wal")
    log.write_bytes(b"rows")
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_file, "_reading", lambda path, mode: (_ for _ in ()).throw(error))
        with pytest.raises(PermissionDenied, match="has rows in tuning.db-wal .* copy both files"):
            Database(filled, readonly=True)


def many(count):
    """Rows of some hundred bytes."""
    return [trial(f"rows={i}", samples=(1e-3,) * 50) for i in range(count)]


def test_a_full_database_loses_nothing(filled):
    with Database(filled) as database:
        pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
        database._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(ResourceExhausted, match="free disk space, or set KVQ_TUNE_DB") as found:
            database.record([MACHINE], many(500))
        assert str(filled) in str(found.value)
        assert len(database.trials()) == 2 and database.entry(KEY) == entry()
        database.record([MACHINE], [trial("rows=2")])  # what fits still goes in
    with Database(filled, readonly=True) as database:
        assert len(database.trials()) == 3 and database.verify() == []


FULL_DISK = """
import resource, sys
from kvq.errors import ResourceExhausted
from kvq.tune.database import Database
from made_rows import *
with Database(sys.argv[1]) as database:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    kept = 0
    try:
        for i in range(10000):
            kept += database.record([MACHINE], [trial(f"rows={i}", samples=(1e-3,) * 50)])
    except ResourceExhausted as error:
        print(kept, error)
"""


def test_a_full_disk_loses_nothing(filled):
    process = run_python(FULL_DISK, filled)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.count("\n") == 1, out
    kept, message = out.split(" ", 1)
    assert int(kept) > 0 and str(filled) in message and "free disk space" in message
    with Database(filled) as database:
        assert len(database.trials()) == 2 + int(kept) and database.entry(KEY) == entry() and database.verify() == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionDenied, match="set KVQ_TUNE_DB to a file in a folder of your own"):
        Database(tmp_path / "file" / "tuning.db")


# -- other processes ---------------------------------------------------------------------------------------------------


def start_at_once(processes):
    """What each says, of processes that wait for a line: all have imported by then, and none has opened anything."""
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=120)[0] for process in processes]


TUNER = """
import random, sys
from kvq.tune.database import Database
from made_rows import *
number = int(sys.argv[2])
rng = random.Random(number)
sys.stdin.readline()
with Database(sys.argv[1]) as database:
    database.record([MACHINE])
    for i in range(25):
        seconds = rng.uniform(1, 2)
        schedule = f"rows={rng.randrange(40)}"
        # What is there is read before anything is written: nobody may come in between.
        database.record([], [trial(schedule, seconds=seconds, samples=(seconds,) * (i + 1))],
                        [entry(schedule, seconds=seconds)])
        assert database.entry(KEY).seconds <= seconds
"""


def test_eight_processes_tune_one_key(path):
    processes = [run_python(TUNER, path, number, stdin=subprocess.PIPE) for number in range(8)]
    outs = start_at_once(processes)
    assert [process.returncode for process in processes] == [0] * 8, outs
    best = min(random.Random(number).uniform(1, 2) for number in range(8))  # of their first ones
    with Database(path, readonly=True) as database:
        assert len(database.entries()) == 1 and database.entry(KEY).seconds <= best
        assert database.verify() == [] and len(database.trials()) <= 40
    assert beside(path) == ["tuning.db"]


SEARCHER = """
import sys
import synthetic
from kvq.tune.database import Database
from kvq.tune.tuner import tune
from made_rows import PROBLEM
times = synthetic.landscape(0)
sys.stdin.readline()
with Database(sys.argv[1]) as database:
    outcome = tune(PROBLEM, synthetic.SyntheticRunner(times, seed=int(sys.argv[2])), database, further=True)
assert outcome.finished and times[outcome.entry.schedule] <= 1.03 * min(times.values())
"""


def test_eight_processes_search_one_space(path):
    processes = [run_python(SEARCHER, path, number, stdin=subprocess.PIPE) for number in range(8)]
    outs = start_at_once(processes)
    assert [process.returncode for process in processes] == [0] * 8, outs
    with Database(path, readonly=True) as database:
        least = 192 // halving.DRAWN + halving.GENERATIONS * (192 // halving.ADDED)  # what one of them tries
        assert len(database.entries()) == 1 and least <= len(database.trials()) <= 192 and database.verify() == []


KILLED = """
import sys
from kvq.tune.database import Database
from made_rows import *
with Database(sys.argv[1]) as database:
    number = int(sys.argv[2])
    while True:
        row = trial(f"rows={number}", samples=(1e-3,) * 200)
        database.record([MACHINE], [row], [entry(row.schedule)], replace=True)
        print(number, flush=True)
        number += 1
"""


def test_a_killed_writer_leaves_every_committed_row(path):
    """50 writers, each killed within its first commits: at opening, between commits, in the middle of one."""
    rng, committed, number = random.Random(7), set(), 0
    for _ in range(50):
        process = run_python(KILLED, path, number)
        early = rng.random() < 0.2
        said = "" if early else process.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.15) if early else rng.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
        process.wait()
        numbers = [int(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]
        committed.update(numbers)
        number = max([number, *numbers]) + 2  # one more may have been committed and not told
        with Database(path) as database:
            assert {f"rows={n}" for n in committed} <= {row.schedule for row in database.trials()}
            if numbers:
                assert int(database.entry(KEY).schedule.removeprefix("rows=")) >= max(numbers)
    with Database(path, readonly=True) as database:
        assert database.verify() == []
    assert len(committed) > 50


def test_a_writer_waits_for_another_and_says_when_it_takes_too_long(filled, monkeypatch):
    monkeypatch.setattr(database_file, "BUSY_SECONDS", 0.2)
    with Database(filled) as database:
        other = sqlite3.connect(filled, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(FailedPrecondition, match="another process has kept the tuning database"):
            database.record([MACHINE], [trial("rows=5")])
        with Database(filled, readonly=True) as reader:  # which never waits
            assert reader.entry(KEY) == entry()
        other.execute("COMMIT")
        other.close()
        assert database.record([MACHINE], [trial("rows=5")]) == 1


def test_json_of_samples_is_plain(filled):
    connection = sqlite3.connect(filled)
    assert json.loads(connection.execute("SELECT samples FROM trial").fetchone()[0]) == [1e-3] * 3
    connection.close()
