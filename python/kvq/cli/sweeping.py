# SPDX-License-Identifier: Apache-2.0
"""`kvq tune sweep`: fills the database with what a file asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from kvq.cli.progress import ProgressReporter
from kvq.cli.tuning import database_option
from kvq.tune import ray_backend, sweep_run
from kvq.tune.database import Database
from kvq.tune.sweep import Sweep, read
from kvq.tune.sweep_run import FAILED, Done, Worker


@click.command("sweep", short_help="Tune what a file asks for: models x formats x targets x contexts x batches.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@database_option
@click.option("--dry-run", is_flag=True, help="Show the problems, tune nothing.")
@click.option("--ray", "address", metavar="ADDRESS", help="On the machines of a Ray cluster; 'local' starts one here.")
@click.option("--runner", "place", metavar="MODULE:FUNCTION", default=sweep_run.RUNNER, show_default=True,
              help="What compiles, checks and times.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def sweep(file: Path, path: Path | None, dry_run: bool, address: str | None, place: str, quiet: bool) -> int:
    """Tune every problem of FILE, TOML or YAML, that has no entry yet. An interrupted sweep goes on where it stopped.

    Exit code 1 where a problem failed; each says why, and the others are done.
    """
    plan = read(file)
    if dry_run:
        show_plan(plan)
        return 0
    sweep_run.runner_factory(place)  # complains before there is a database
    counts: Counter[str] = Counter()
    with Database(path) as database, ProgressReporter(quiet) as reporter:
        reporter.begin(len(plan.problems), 0)
        for done in _done(plan, database, place, address, reporter):
            counts[done.how] += 1
            if quiet and done.how == FAILED:
                click.echo(f"{done.problem}: {done.text}", err=True)
        where = database.path
    for what, why in plan.left_out:
        click.echo(f"left out: {what}: {why}")
    click.echo(f"{where}: " + ", ".join(f"{count} {how}" for how, count in counts.items()))
    return 1 if counts[FAILED] else 0


def _done(
    plan: Sweep, database: Database, place: str, address: str | None, reporter: ProgressReporter
) -> Iterator[Done]:  # fmt: skip
    if address is not None:
        for done in ray_backend.run(plan.problems, place, plan.search, database, address):
            with reporter.unit(f"{done.problem}: {_title(done)}"):
                pass
            yield done
        return
    worker = Worker(place, plan.search)
    for problem in plan.problems:
        with reporter.unit(str(problem)) as say:
            done = worker.work(problem, database, say)
        reporter.line(f"  {_title(done)}")
        yield done


def _title(done: Done) -> str:
    failed = "".join(f", {count} {kind}" for kind, count in sorted(done.failures.items()))
    return f"{done.how}: {done.text}{failed}"


def show_plan(plan: Sweep) -> None:
    for problem in plan.problems:
        click.echo(f"{problem}  ({', '.join(plan.models[problem])})")
    for what, why in plan.left_out:
        click.echo(f"left out: {what}: {why}")
    click.echo(f"{len(plan.problems)} problems, {len(plan.left_out)} left out")
