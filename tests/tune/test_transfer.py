# SPDX-License-Identifier: Apache-2.0
"""Export, import and merge: nothing is lost on the way, and a text with a mistake changes nothing."""

import json

import pytest
from kvq.errors import InvalidArgument
from kvq.tune import transfer
from kvq.tune.database import Database
from made_rows import DEFAULT, KEY, MACHINE, entry, failed, key, other_machine, trial

OTHER = other_machine(cores=2)
ROWS = transfer.Rows(
    [MACHINE, OTHER],
    [trial(), trial(DEFAULT, seconds=2e-3), failed("rows=9", "timed out", "10 s"),
     trial("rows=2", predicted=True, samples=())],
    [entry(), entry("rows=2", key=key(machine=OTHER.hash), predicted=True)],
)


def filled(path, rows=ROWS):
    database = Database(path)
    rows.add_to(database)
    return database


def test_a_text_has_all_and_reads_back_as_it_was(tmp_path):
    with filled(tmp_path / "a.db") as database, Database(tmp_path / "b.db") as copy:
        lines = list(transfer.to_lines(transfer.rows_of(database)))
        assert json.loads(lines[0]) == {"kvq-tune": 1} and len(lines) == 9
        assert transfer.from_lines(lines, "text").add_to(copy) == 6
        assert list(transfer.to_lines(transfer.rows_of(copy))) == lines
        assert transfer.from_lines(lines, "text").add_to(copy) == 0


def test_merge_keeps_the_better_of_each_key_whatever_the_order(tmp_path):
    fast = transfer.Rows([MACHINE], [trial(seconds=1e-3)], [entry(seconds=1e-3)])
    slow = transfer.Rows([MACHINE], [trial("rows=2", seconds=2e-3)], [entry("rows=2", seconds=2e-3)])
    with filled(tmp_path / "a.db", fast) as one, filled(tmp_path / "b.db", slow) as other:
        with Database(tmp_path / "c.db") as c, Database(tmp_path / "d.db") as d:
            transfer.merge(c, [one, other])
            transfer.merge(d, [other, one])
            assert c.entry(KEY) == d.entry(KEY) == entry(seconds=1e-3)
            assert c.trials() == d.trials() and len(c.trials()) == 2
        assert other.entry(KEY) == entry("rows=2", seconds=2e-3)


def line_of(kind, row, **changes):
    data = {**(row if isinstance(row, dict) else transfer.to_json(row)), **changes}
    return json.dumps({kind: {name: value for name, value in data.items() if value != "gone"}})


HEADER, MACHINE_LINE = json.dumps({"kvq-tune": 1}), json.dumps({"machine": MACHINE.vector})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "text:1: the first line is not {\"kvq-tune\": 1}"),
        (["{\"kvq-tune\": 2}"], "text:1: the first line is not"),
        ([HEADER, "{"], "text:2: the line is none of"),
        ([HEADER, "[]"], "text:2: the line is none of"),
        ([HEADER, "{\"key\": {}}"], "text:2: the line is none of"),
        ([HEADER, "{\"machine\": {\"cores\": 3}}"], "text:2: the capability vector {'cores': 3} names no target"),
        ([HEADER, line_of("entry", entry())], f"text:2: its machine {MACHINE.hash} is in no line before"),
        ([HEADER, MACHINE_LINE, line_of("entry", entry(), seconds=0)], "text:3: its seconds are 0: they must be"),
        ([HEADER, MACHINE_LINE, line_of("entry", entry(), status="fine")], "text:3: its status is 'fine': use one of "),
        ([HEADER, MACHINE_LINE, line_of("entry", entry(), noise="x")], "text:3: its noise is 'x'"),
        ([HEADER, MACHINE_LINE, line_of("entry", entry(), speed=1)], "text:3: its field 'speed' is unknown"),
        ([HEADER, MACHINE_LINE, line_of("entry", entry(), request="gone")], "text:3: its field 'request' is missing"),
        ([HEADER, MACHINE_LINE, line_of("entry", entry(), default=3)], "text:3: its default is 3"),
        ([HEADER, MACHINE_LINE, line_of("entry", entry(), schedule="x")], "text:3: the schedule 'x' is not legal"),
        ([HEADER, MACHINE_LINE, line_of("trial", trial(), samples=[1, -1])], "text:3: its samples are not"),
        ([HEADER, MACHINE_LINE, line_of("trial", trial(), status="wrong")], "though it is wrong: they must be null"),
        ([HEADER, MACHINE_LINE, line_of("trial", trial(), predicted=1)], "text:3: its predicted is 1"),
        ([HEADER, MACHINE_LINE, line_of("trial", trial(), conditions="hot")], "text:3: the conditions 'hot' are not"),
    ],
)
def test_a_mistake_is_named_with_its_line(lines, words):
    with pytest.raises(InvalidArgument) as found:
        transfer.from_lines(lines, "text")
    assert words in str(found.value) and "\n" not in str(found.value)
