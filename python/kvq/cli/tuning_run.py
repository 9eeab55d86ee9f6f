# SPDX-License-Identifier: Apache-2.0
"""Kernels and split policies, tuned one after the other while one looks on, and the winners chosen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from kvq import lowlevel
from kvq.cli.progress import ProgressReporter
from kvq.tune import winners
from kvq.tune.database import Database
from kvq.tune.problem import Problem
from kvq.tune.split_worker import SplitWorker
from kvq.tune.splits import SplitProblem
from kvq.tune.sweep_run import FAILED, THERE


def tune_and_choose(
    problems: Sequence[Problem | SplitProblem],
    worker: SplitWorker,
    context: lowlevel.Context | None,
    path: Path | None,
    seconds: float | None,
    quiet: bool,
    tells_steps: bool = False,
) -> int:
    """The exit code. `context`: whose schedules and policies are chosen; None where those are for a machine that is not
    here. `path`: of the database; None for the usual one."""
    begin, counts, compiled, chosen = time.monotonic(), Counter[str](), 0, 0
    with Database(path) as database, ProgressReporter(quiet) as reporter:
        reporter.begin(len(problems), 0)

        def say(text: str) -> None:
            if tells_steps:
                reporter.line(text)

        for done in winners.tune_all(problems, worker, database, seconds, say=lambda problem: say):
            counts[done.how] += 1
            if done.outcome is not None:
                compiled += done.outcome.compiled
                chosen += context is not None and winners.choose(context, done.outcome.entry)
            reporter.line(f"{done.problem.request}\n  {done.how}: {done.text}")
            if quiet and done.how == FAILED:
                click.echo(f"{done.problem}: {done.text}", err=True)
    click.echo(_summary(problems, counts, chosen, compiled, time.monotonic() - begin))
    return 1 if counts[FAILED] else 0


def _summary(
    problems: Sequence[Problem | SplitProblem], counts: Counter[str], chosen: int, compiled: int, seconds: float
) -> str:  # fmt: skip
    kernels = sum(isinstance(problem, Problem) for problem in problems)
    took = (f"{compiled} compiles, " if kernels else "") + f"{seconds:.0f} s"
    if counts[THERE] < len(problems):
        return ", ".join(f"{count} {how}" for how, count in counts.items()) + f"; {chosen} chosen; {took}"
    numbers = {"kernels": kernels, "split policies": len(problems) - kernels}
    return "already tuned: " + " and ".join(f"{count} {what}" for what, count in numbers.items() if count) + f", {took}"
