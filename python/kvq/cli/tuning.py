# SPDX-License-Identifier: Apache-2.0
"""`kvq tune`: the database of schedules."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from kvq.cli.output import write
from kvq.errors import Corrupt, InvalidArgument
from kvq.tune import transfer
from kvq.tune.capability import Machine
from kvq.tune.charts import duration
from kvq.tune.database import Database
from kvq.tune.rows import OK, Entry, Trial, to_json

WIDTH = 180  # of a log, which has none of its own
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@click.group("tune", short_help="Look at, move and fill the database of tuned schedules.")
def tune() -> None:
    """Schedules of kernels and split policies of caches, as they were measured or predicted.

    The database is $KVQ_TUNE_DB, else tuning.db in the folder of compiled kernels; --db names another.
    """


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--db", "path", type=click.Path(path_type=Path), metavar="FILE",
                        help="The database; default: $KVQ_TUNE_DB, else with the kernels.")(command)  # fmt: skip


@tune.command("show", short_help="Show what is in the database.")
@database_option
@click.option("--request", default="", metavar="TEXT", help="Only requests that begin so, such as attend:k4c32.")
@click.option("--trials", is_flag=True, help="Every candidate that was tried, failed ones too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(path: Path | None, request: str, trials: bool, as_json: bool) -> None:
    """Show the schedule of each key, how fast it is, how sure that is and where it comes from."""
    with Database(path, readonly=True) as database:
        found = database.trials() if trials else database.entries()
        rows = [row for row in found if row.key.request.startswith(request)]
        machines = database.machines()
        where = database.path
    if as_json:
        click.echo(json.dumps([to_json(row) for row in rows], indent=1))
    elif not rows:
        click.echo(f"{where}: nothing")
    else:
        _print_rows(rows, machines)


@tune.command("verify", short_help="Check the file and every row of it.")
@database_option
def verify(path: Path | None) -> None:
    """Check the file and every row of it; exit code 2 where something is wrong."""
    with Database(path, readonly=True) as database:
        broken = database.verify()
        counts = len(database.entries()), len(database.trials()), len(database.machines())
        where = database.path
    for line in broken:
        click.echo(line)
    if broken:
        raise Corrupt(
            f"the tuning database {where} has {len(broken)} mistakes: export what is right (kvq tune export), move the "
            "file away and import it"
        )
    click.echo(f"{where}: {counts[0]} entries, {counts[1]} trials, {counts[2]} machines, no mistake")


@tune.command("merge", short_help="Take over the rows of other databases.")
@click.argument("others", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@database_option
def merge(others: tuple[Path, ...], path: Path | None) -> None:
    """Take over the rows of other databases, which stay as they are. Of two entries of one key the better one stays: a
    measured one, the faster one."""
    for other in others:
        if not other.exists():
            raise InvalidArgument(f"there is no database {other}: give one that kvq tune show --db can read")
    with Database(path) as database:
        changed = 0
        for other in others:
            with Database(other, readonly=True) as opened:
                changed += transfer.merge(database, [opened])
        click.echo(f"{database.path}: {changed} rows are new")


@tune.command("export", short_help="Write the database as JSON lines.")
@click.argument("file", type=click.Path(path_type=Path), default=Path("-"))
@database_option
def export(file: Path, path: Path | None) -> None:
    """Write all rows as JSON lines to FILE, or to standard output."""
    with Database(path, readonly=True) as database:
        text = "".join(line + "\n" for line in transfer.to_lines(transfer.rows_of(database)))
    write(file, text)


@tune.command("import", short_help="Read JSON lines into the database.")
@click.argument("file", type=click.Path(path_type=Path))
@database_option
def import_(file: Path, path: Path | None) -> None:
    """Read what `kvq tune export` wrote; - is standard input. A mistake in any line leaves the database as it was."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{file} cannot be read ({error}): give what kvq tune export wrote") from error
    rows = transfer.from_lines(text.splitlines(), str(file))
    with Database(path) as database:
        click.echo(f"{database.path}: {rows.add_to(database)} rows are new")


@tune.command("prune", short_help="Remove rows.")
@database_option
@click.option("--keep-compiler", metavar="HASH", help="Rows of compilers whose hash begins otherwise.")
@click.option("--before", metavar="DATE", help="Rows that are older than a date, such as 2026-05-31.")
@click.option("--request", default="", metavar="TEXT", help="Rows whose request begins so.")
@click.option("--trials", is_flag=True, help="Trials alone: every entry stays.")
def prune(path: Path | None, keep_compiler: str | None, before: str | None, request: str, trials: bool) -> None:
    """Remove the rows that meet all that is given."""
    if not (keep_compiler or before or request or trials):
        raise InvalidArgument("kvq tune prune removes nothing without a condition: give --keep-compiler, --before, "
                              "--request or --trials")  # fmt: skip
    if before is not None and not _DATE.fullmatch(before):
        raise InvalidArgument(f"--before is '{before}': write a date as in 2026-05-31")
    with Database(path) as database:
        gone = database.prune(
            compiler_other_than=keep_compiler, before=before, trials_only=trials, request_begins=request
        )
        click.echo(f"{database.path}: {gone[0]} trials and {gone[1]} entries are removed")


def _print_rows(rows: list[Entry] | list[Trial], machines: dict[str, Machine]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    for (request, conditions, machine, compiler), part in _grouped(rows).items():
        console.print(f"\n{request}\n  {conditions}, {machines[machine]}, compiler {compiler[:12]}", markup=False,
                      soft_wrap=True)  # fmt: skip
        table = Table(box=box.SIMPLE, show_header=True)
        for name in ("schedule", "time", "noise", "samples", "source", "at"):
            table.add_column(name, justify="left" if name in ("schedule", "source") else "right", overflow="fold")
        for row in part:
            table.add_row(row.schedule, *cells(row), row.at)
        console.print(table, markup=False)


def _grouped(rows: list[Entry] | list[Trial]) -> dict[tuple[str, str, str, str], list[Any]]:
    groups: dict[tuple[str, str, str, str], list[Any]] = {}
    for row in rows:
        key = row.key
        groups.setdefault((key.request, key.conditions, key.machine, key.compiler), []).append(row)
    return groups


def cells(row: Entry | Trial) -> tuple[str, str, str, str]:
    """Time, noise, number of samples, where it comes from."""
    samples = row.samples if isinstance(row, Entry) else len(row.samples)
    if row.status != OK:
        return "", "", "", f"{row.status}: {row.message}"
    noise = "" if row.noise is None else f"{100 * row.noise:.1f} %"
    return duration(row.seconds or 0.0), noise, str(samples or ""), "predicted" if row.predicted else "measured"
