# SPDX-License-Identifier: Apache-2.0
"""Kernels of one cache, tuned within one budget, and the winners chosen for all caches that are opened later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from kvq import lowlevel
from kvq.tune.database import Database
from kvq.tune.problem import Problem
from kvq.tune.rows import OK, Entry
from kvq.tune.search import Budget
from kvq.tune.split_policy import SPLIT
from kvq.tune.sweep_run import LEFT, Done, Worker
from kvq.tune.tuner import Say


def tune_all(
    problems: Sequence[Problem],
    worker: Worker,
    database: Database,
    seconds: float | None = None,
    say: Callable[[Problem], Say] = lambda problem: lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Done]:
    """Each problem in turn. Of the seconds that are left, None for no limit, each gets twice as much as those behind it
    on average: the first ones matter most, and what one leaves over is there for the others. When nothing is left, what
    was not begun is left to the next call, but for what is in the database."""
    begin = clock()
    for index, problem in enumerate(problems):
        left = None if seconds is None else seconds - (clock() - begin)
        if left is not None and left <= 0 and not worker.is_done(problem, database):
            yield Done(problem, LEFT, "the budget has ended: the next run goes on here")
            continue
        share = None if left is None else max(left, 1e-3) * 2 / (len(problems) - index + 1)
        yield worker.work(problem, database, say(problem), Budget(share, worker.options.trials, clock))


def choose(context: lowlevel.Context, entry: Entry | None) -> bool:
    """Makes the schedule of a measured entry the one that the context's kernels are opened with from now on, or its
    split policy the one that caches are made with, in other processes with the same store too, and puts the kernel
    there; whether there is such an entry. What beats nothing leaves the default."""
    if entry is None or entry.status != OK or entry.predicted:
        return False
    request, won = entry.key.request, entry.schedule != entry.default
    if request.startswith(SPLIT):
        context.set_split_policy(request, entry.schedule if won else None)
        return True
    context.set_schedule(request, entry.schedule if won else None)
    if won:  # whoever runs it, between steps perhaps, should not wait for the compiler
        lowlevel.open_kernel(context, request)
    return True
