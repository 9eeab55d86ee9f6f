# SPDX-License-Identifier: Apache-2.0
"""Lookups: what is exact, what is only near, how far and why, and what is nobody's neighbour."""

from dataclasses import replace

import pytest
from kvq.tune.capability import accelerator
from kvq.tune.database import Database
from kvq.tune.lookup import DEFAULT, EXACT, NEAREST, lookup
from kvq.tune.problem import Conditions
from kvq.tune.rows import key_of
from made_rows import COMPILER, FAST, KEY, MACHINE, PROBLEM, REQUEST, entry, failed, key, other_machine


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "tuning.db") as database:
        yield database


def ask(database, problem=PROBLEM, machine=MACHINE, compiler=COMPILER, **options):
    return lookup(database, problem, machine, compiler, **options)


def put(database, *entries, machines=(MACHINE,)):
    database.record(machines, (), entries)


def request(**changes):
    names = ("op", "format", "profile", "p", "dk", "dv", "g", "type", "rows", "lag", "win", "cap", "accuracy")
    fields = dict(zip(names, REQUEST.split(":"), strict=True))
    return ":".join((fields | changes).values())


def test_an_empty_database_says_default(database):
    answer = ask(database)
    assert (answer.how, answer.schedule, answer.entry, str(answer)) == (DEFAULT, None, None, "default")


def test_its_own_key_is_exact(database):
    put(database, entry(), entry("rows=7", key=key(compiler="other"), seconds=1e-9))
    answer = ask(database)
    assert (answer.how, answer.schedule, answer.distance, answer.differences) == (EXACT, FAST, 0.0, ())
    assert str(answer) == f"exact, measured: {FAST}"


@pytest.mark.parametrize("change", ["compiler", "machine", "tokens", "cache", "request"])
def test_rows_of_something_else_are_never_exact(database, change):
    problem, machine, compiler = PROBLEM, MACHINE, COMPILER
    if change == "compiler":
        compiler = "another"
    elif change == "machine":
        machine = other_machine(cores=16)
    elif change == "request":
        problem = replace(PROBLEM, request=request(rows="rows6"))
    else:
        values = {"tokens": {"tokens": 8192}, "cache": {"cache": "warm"}}[change]
        problem = replace(PROBLEM, conditions=replace(Conditions(), **values))
    put(database, entry())
    answer = ask(database, problem, machine, compiler)
    assert (answer.how, answer.schedule, answer.distance) == (NEAREST, FAST, 1.0)
    assert len(answer.differences) == 1
    words = {"compiler": f"compiler {COMPILER[:12]}, not another", "machine": "cores 8, not 16",
             "tokens": "tokens 4096, not 8192", "cache": "cache cold, not warm", "request": "rows 3, not 6"}
    assert answer.differences == (words[change],)
    assert str(answer) == f"nearest, measured at 1.00 steps ({words[change]}): {FAST}"


def test_the_nearest_of_several_is_taken_and_the_largest_difference_said_first(database):
    far = replace(PROBLEM, conditions=Conditions(tokens=65536))
    near = replace(PROBLEM, conditions=Conditions(tokens=8192))
    put(database, entry("rows=1", key=key_of(far, MACHINE.hash, COMPILER), seconds=1e-9),
        entry("rows=2", key=key_of(near, MACHINE.hash, "old")))
    answer = ask(database, replace(PROBLEM, conditions=Conditions(tokens=2048)))
    assert answer.schedule == "rows=2" and answer.distance == 3.0
    assert answer.differences == ("tokens 8192, not 2048", "compiler old, not c0ffeec0ffee")


def test_bits_and_groups_have_a_distance_and_forms_too(database):
    put(database, entry())
    for format, distance in (("k2c32-v4t32", 0.5), ("k4c64-v4t64", 1.0), ("k4t32-v4t32", 0.5), ("k2c128-v2t32", 2.0)):
        answer = ask(database, replace(PROBLEM, request=request(format=format)))
        assert (answer.how, answer.distance) == (NEAREST, distance), format
        assert answer.differences == (f"format k4c32-v4t32, not {format}",)


def test_a_schedule_that_is_not_legal_here_is_no_neighbour(database):
    put(database, entry("rows=9", key=key(compiler="a")), entry("rows=2", key=key_of(
        replace(PROBLEM, conditions=Conditions(tokens=32768)), MACHINE.hash, COMPILER)))
    assert ask(database).schedule == "rows=9"
    assert ask(database, is_legal=lambda schedule: schedule != "rows=9").schedule == "rows=2"
    assert ask(database, is_legal=lambda schedule: False).how == DEFAULT


@pytest.mark.parametrize("what", ["operation", "kind", "distance", "text"])
def test_what_is_too_far_is_no_neighbour(database, what):
    put(database, entry())
    problem, machine = PROBLEM, MACHINE
    if what == "operation":
        problem = replace(PROBLEM, request=request(op="append"))
    elif what == "kind":
        machine = accelerator("nvptx:sm_90", "H100")
    elif what == "distance":
        problem = replace(PROBLEM, conditions=Conditions(tokens=4096 << 7))
    else:
        problem = replace(PROBLEM, request="attend:of:another:kvq")
    assert ask(database, problem, machine).how == DEFAULT


def test_other_levels_and_caches_add_up(database):
    other = other_machine(target="x86-64-v3", caches={"L1": 32768, "L3": 16 << 20}, name="B")
    put(database, entry(key=key(machine=other.hash)), machines=[other])
    answer = ask(database)
    assert answer.distance == 4 + 0.5 + 1
    assert answer.differences == ("target x86-64-v3, not x86-64-v4", f"L3 bytes {16 << 20}, not {32 << 20}",
                                  "B, not A Processor")


def test_a_machine_as_versions_before_described_it_is_a_neighbour(database):
    """0.1 had the processor's features too."""
    before = other_machine(features=["avx2", "avx512f", "fma"])
    put(database, entry(key=key(machine=before.hash)), machines=[before])
    answer = ask(database)
    assert (answer.how, answer.schedule, answer.distance) == (NEAREST, FAST, 0.25)
    assert answer.differences == ("features of a machine are said by one of both alone",)


def test_a_key_whose_candidates_all_fail_is_default_and_says_why(database):
    broken = replace(entry(), status="crashed", message="signal 11", seconds=None, noise=None)
    put(database, broken)
    answer = ask(database)
    assert answer.how == DEFAULT and answer.entry == broken
    assert ask(database, compiler="another").how == DEFAULT  # nor does a neighbour take its schedule


def test_a_predicted_entry_says_so_and_gives_way_to_a_measured_one(database):
    put(database, entry("rows=1", key=key(compiler="a"), predicted=True))
    assert str(ask(database)).startswith("nearest, predicted at 1.00 steps")
    put(database, entry("rows=2", key=key(compiler="b")))
    assert ask(database).schedule == "rows=2"


def test_a_lookup_changes_nothing(database):
    database.record([MACHINE], [failed("rows=9", "wrong")], [entry()])
    before = database.path.read_bytes()
    total = database._connection.total_changes
    ask(database)
    ask(database, compiler="another")
    assert database.path.read_bytes() == before and database._connection.total_changes == total
    assert database.entries() == [entry()] and KEY == entry().key
