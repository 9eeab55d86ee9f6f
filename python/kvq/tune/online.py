# SPDX-License-Identifier: Apache-2.0
"""Tuning while a model runs: searches in a thread that gets what the processor has left over, and hands winners on
between the steps of the model."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.tune import winners
from kvq.tune.database import Database
from kvq.tune.kernel_requests import DTYPES, Shape, cache_requests
from kvq.tune.problem import Conditions, Problem
from kvq.tune.search_options import SearchOptions
from kvq.tune.sweep_run import RUNNER, Done, Worker


@runtime_checkable
class HasCaches(Protocol):
    """kvq.hf.KVQCache, without the import of transformers."""

    context: lowlevel.Context

    def caches(self) -> list[lowlevel.Cache]:
        """Those below it."""

    def refresh_kernels(self) -> None:
        """Opens chosen schedules."""


class Tuner:
    """Tunes the kernels of a cache for at most so many seconds, and is a context manager.

        with Tuner(cache, budget_seconds=60) as tuner:
            for token in tokens:
                step(token)
                tuner.between_steps()

    `cache` is a lowlevel.Cache, with its `context`, or a KVQCache that has been through a forward. Nothing of the cache
    is touched but by between_steps, which must be called while no step is open. What wins is chosen for other caches and
    processes too, as by `kvq tune model`. `tokens`: of a sequence, for which it is tuned; None: twice those that are
    there. `threads`: that run a kernel while it is timed; the fewer, the less it is disturbed by the model.
    """

    def __init__(
        self,
        cache: lowlevel.Cache | HasCaches,
        budget_seconds: float,
        *,
        context: lowlevel.Context | None = None,
        tokens: int | None = None,
        threads: int = 1,
        database: Path | None = None,
        runner: str = RUNNER,
    ) -> None:
        if not (budget_seconds > 0 and math.isfinite(budget_seconds)):
            raise InvalidArgument(f"budget_seconds is {budget_seconds}: give more than 0")
        self._cache, self._budget, self._database = cache, budget_seconds, database
        self._context = context or (cache.context if isinstance(cache, HasCaches) else None)
        if self._context is None:
            raise InvalidArgument("a lowlevel.Cache does not say its context: give context=")
        caches = cache.caches() if isinstance(cache, HasCaches) else [cache]
        if not caches:
            raise InvalidArgument("the cache is empty and does not know its layers yet: run a forward first")
        level = self._context.level
        self.problems = list(dict.fromkeys(
            problem for each in caches for problem in problems_of(each, level, tokens, threads)
        ))  # fmt: skip
        self._worker = Worker(runner, SearchOptions(workers=1))
        self.done: list[Done] = []
        self._won: list[str] = []  # requests
        self._mistake: BaseException | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvq-tuner", daemon=True)
        self._thread.start()

    def __enter__(self) -> Tuner:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def between_steps(self) -> list[str]:
        """Takes what has won since the last call, and returns the requests whose kernels were opened anew. Costs next to
        nothing where nothing has won. A mistake of the search is raised here."""
        with self._lock:
            won, self._won = self._won, []
            mistake, self._mistake = self._mistake, None
        if mistake is not None:
            raise mistake
        if not won:
            return []
        try:
            self._cache.refresh_kernels()
        except BaseException:
            with self._lock:  # a step is open: for the next call
                self._won = won + self._won
            raise
        return won

    def close(self) -> None:
        """Ends the search soon; what was found stays in the database."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread.native_id is not None:
            _like_others(self._thread.native_id)  # or we would wait for what is left over
        self._thread.join()

    def _run(self) -> None:
        _only_spare_time()
        try:
            with Database(self._database) as database:
                for done in winners.tune_all(self.problems, self._worker, database, self._budget, clock=self._clock):
                    self.done.append(done)
                    if done.outcome is not None and winners.choose(self._context, done.outcome.entry):
                        with self._lock:
                            self._won.append(done.problem.request)
                    if self._stopped.is_set():
                        return
        except BaseException as error:
            with self._lock:
                self._mistake = error

    def _clock(self) -> float:
        """Stands beyond every budget once the tuner is closed."""
        return math.inf if self._stopped.is_set() else time.monotonic()


def problems_of(cache: lowlevel.Cache, level: str, tokens: int | None, threads: int) -> Sequence[Problem]:
    config = cache.config
    shape = Shape(config["q_heads"], config["kv_heads"], config["dk"], config["dv"], DTYPES[config["dtype"]],
                  config["attention_window"], config["score_cap"] > 0)  # fmt: skip
    report = cache.report()
    sequences = max(1, int(report["sequences"]))
    length = tokens or max(512, 2 * int(report["tokens"]) // sequences)
    length = 1 << (length - 1).bit_length()  # few different lengths, so that what was tuned once is found again
    conditions = Conditions("cold", length, sequences, shape.kv_heads, threads, shape.window)
    requests = cache_requests(config["format"], shape, level, config["accuracy"], page=config["page_tokens"])
    return [Problem(request, level, conditions) for request in requests]


def _like_others(thread: int) -> None:
    try:
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    except (AttributeError, OSError):  # it has just ended, or may not
        pass


def _only_spare_time() -> None:
    """This thread, and those that it starts, run where no other wants the processor."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # another system, or a sandbox that refuses it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
