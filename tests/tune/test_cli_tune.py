# SPDX-License-Identifier: Apache-2.0
"""`kvq tune`: what the commands print, change and refuse."""

import io
import json
import sys
from dataclasses import replace

import pytest
from kvq.tune.database import Database
from made_rows import DEFAULT, FAST, KEY, MACHINE, REQUEST, entry, failed, key, other_machine, trial
from tune_command import run


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "tuning.db"
    monkeypatch.setenv("KVQ_TUNE_DB", str(path))
    return path


@pytest.fixture
def filled(path):
    other = other_machine(name="Another", cores=2)
    with Database(path) as database:
        database.record([MACHINE, other], [trial(), failed(DEFAULT, "wrong", "off by 3")],
                        [entry(), entry("rows=2", key=key(machine=other.hash), predicted=True, seconds=2.5e-5)])
    return path


def test_show_has_the_schedule_its_time_and_its_source(filled, capsys):
    code, out, _ = run(capsys, "show")
    assert code == 0
    where = "cold:tokens4096:batch1:heads8:threads1:window0, A Processor (x86-64-v4), compiler c0ffeec0ffee"
    for words in (REQUEST, where, FAST, "1 ms", "1.0 %", "measured", "Another (x86-64-v4)", "25 µs", "predicted"):
        assert words in out
    assert "off by 3" not in out
    assert "wrong: off by 3" in run(capsys, "show", "--trials")[1]
    assert run(capsys, "show", "--request", "append:")[1] == f"{filled}: nothing\n"
    assert run(capsys, "show", "--db", filled.parent / "no.db")[1] == f"{filled.parent / 'no.db'}: nothing\n"
    assert not (filled.parent / "no.db").exists()
    rows = json.loads(run(capsys, "show", "--json")[1])
    assert [row["schedule"] for row in rows if not row["predicted"]] == [FAST] and rows[0]["request"] == REQUEST


def test_verify_counts_or_names_what_is_wrong(filled, capsys):
    assert run(capsys, "verify") == (0, f"{filled}: 2 entries, 2 trials, 2 machines, no mistake\n", "")
    with Database(filled) as database:
        database._connection.execute("UPDATE entry SET schedule = 'x' WHERE predicted")
    code, out, err = run(capsys, "verify")
    assert code == 2 and out.count("\n") == 1 and "the schedule 'x' is not legal" in out
    assert err.startswith(f"kvq: the tuning database {filled} has 1 mistakes: export what is right")


def test_export_and_import_move_a_database(filled, capsys, tmp_path, monkeypatch):
    code, text, _ = run(capsys, "export")
    assert code == 0 and len(text.splitlines()) == 7
    assert run(capsys, "export", tmp_path / "out.jsonl")[0] == 0 and (tmp_path / "out.jsonl").read_text() == text
    copy = tmp_path / "copy.db"
    assert run(capsys, "import", tmp_path / "out.jsonl", "--db", copy) == (0, f"{copy}: 4 rows are new\n", "")
    assert run(capsys, "export", "--db", copy)[1] == text
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run(capsys, "import", "-", "--db", copy) == (0, f"{copy}: 0 rows are new\n", "")
    (tmp_path / "bad.jsonl").write_text(text + "nonsense\n")
    before = copy.read_bytes()
    code, _, err = run(capsys, "import", tmp_path / "bad.jsonl", "--db", copy)
    assert code == 2 and err.startswith(f"kvq: {tmp_path / 'bad.jsonl'}:8: the line is none of")
    assert copy.read_bytes() == before
    code, _, err = run(capsys, "import", tmp_path / "absent.jsonl")
    assert code == 2 and "absent.jsonl cannot be read" in err
    code, _, err = run(capsys, "export", tmp_path / "no" / "out.jsonl")
    assert code == 2 and "cannot be written" in err


def test_merge_takes_over_what_is_better(filled, capsys, tmp_path):
    other = tmp_path / "other.db"
    with Database(other) as database:
        database.record([MACHINE], [trial("rows=3", seconds=0.5e-3)], [entry("rows=3", seconds=0.5e-3)])
    assert run(capsys, "merge", other) == (0, f"{filled}: 2 rows are new\n", "")
    assert run(capsys, "merge", other)[1] == f"{filled}: 0 rows are new\n"
    with Database(filled, readonly=True) as database:
        assert database.entry(KEY) == entry("rows=3", seconds=0.5e-3)
    code, _, err = run(capsys, "merge", tmp_path / "absent.db")
    assert code == 2 and f"there is no database {tmp_path / 'absent.db'}" in err


def test_prune_needs_a_condition(filled, capsys):
    code, _, err = run(capsys, "prune")
    assert code == 2 and "removes nothing without a condition" in err
    code, _, err = run(capsys, "prune", "--before", "yesterday")
    assert code == 2 and "--before is 'yesterday': write a date as in 2026-05-31" in err
    assert run(capsys, "prune", "--keep-compiler", "c0ff")[1] == f"{filled}: 0 trials and 0 entries are removed\n"
    assert run(capsys, "prune", "--trials")[1] == f"{filled}: 2 trials and 0 entries are removed\n"
    assert run(capsys, "prune", "--keep-compiler", "abc")[1] == f"{filled}: 0 trials and 2 entries are removed\n"


@pytest.mark.parametrize("command", [["show"], ["verify"], ["export"], ["prune", "--trials"], ["merge", "{db}"]])
def test_a_foreign_file_is_one_sentence(path, capsys, command):
    path.write_text("mine")
    code, out, err = run(capsys, *[word.format(db=path) for word in command])
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith(f"kvq: {path} is no tuning database")
    assert path.read_text() == "mine"


def test_entries_of_one_key_stand_together(path, capsys):
    with Database(path) as database:
        database.record([MACHINE], [trial(), trial("rows=2"), trial(key=replace(KEY, compiler="old"))])
    out = run(capsys, "show", "--trials")[1]
    assert out.count("compiler c0ffeec0ffee") == 1 == out.count("compiler old")
