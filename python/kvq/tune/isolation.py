# SPDX-License-Identifier: Apache-2.0
"""Candidates in a child process, which may crash or hang there. What survives is timed in the parent, where all
candidates share inputs and rounds.

The child is a fresh interpreter that makes a runner of its own: threads and devices of the parent would not survive a
fork. It serves candidate after candidate until one ends it.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from kvq.tune.measure import check
from kvq.tune.problem import FAILURES, CandidateFailed, CheckCase, Crashed, Problem, Runner, TimedOut

SECONDS = 60.0  # for one candidate: compiling, checking, one run


class ChildProcess:
    """A vetter (kvq.tune.measure) and a context manager. `make_runner` must be a function that a fresh interpreter can
    import."""

    def __init__(self, make_runner: Callable[[], Runner], seconds: float = SECONDS) -> None:
        self.make_runner, self.seconds = make_runner, seconds
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()  # one candidate at a time, whoever asks

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = self._connection = None

    def vet(self, problem: Problem, schedule: str, cases: Sequence[CheckCase]) -> None:
        with self._lock:
            if self._process is None:
                self._start()
            status, message = self._ask((problem, schedule, tuple(cases)))
        if status in FAILURES:
            raise FAILURES[status](message)
        if status != "ok":
            raise RuntimeError(f"the runner failed in its child process: {message}")

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self.make_runner), daemon=True)
        self._process.start()
        theirs.close()
        status, message = self._answer(max(SECONDS, self.seconds))
        if status != "ready":
            raise RuntimeError(f"the child process that tries candidates did not start: {message}")

    def _ask(self, question: Any) -> tuple[str, str]:
        self._connection.send(question)
        return self._answer(self.seconds)

    def _answer(self, seconds: float) -> tuple[str, str]:
        """What the child says; how it ended where it says nothing."""
        try:
            if self._connection.poll(seconds):
                return self._connection.recv()
            status, message = TimedOut.status, f"it did not end within {seconds:g} s"
        except (EOFError, ConnectionError):
            self._process.join()
            status, message = Crashed.status, _ending(self._process.exitcode)
        self.close()
        return status, message


def _ending(code: int) -> str:
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with status {code}"


def _serve(connection: Connection, make_runner: Callable[[], Runner]) -> None:
    """The child: answers for one candidate after the other until the parent is gone."""
    runner = make_runner()
    connection.send(("ready", ""))
    while True:
        try:
            problem, schedule, cases = connection.recv()
        except EOFError:
            return
        try:
            _try(runner, problem, schedule, cases)
            connection.send(("ok", ""))
        except CandidateFailed as error:
            connection.send((error.status, str(error)))
        except Exception as error:
            connection.send(("mistake", f"{type(error).__name__}: {error}"))


def _try(runner: Runner, problem: Problem, schedule: str, cases: Sequence[CheckCase]) -> None:
    kernel = runner.compile(problem, schedule)
    check(runner, problem, kernel, cases)
    workload = runner.workload(problem, 1)
    try:
        workload.run(kernel, [0])
    finally:
        workload.close()
