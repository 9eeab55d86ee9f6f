# SPDX-License-Identifier: Apache-2.0
"""How an evaluation goes on: a bar on a terminal, plain lines in a log; on standard error, so that tables can be
piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Say = Callable[[str], None]


class ProgressReporter:
    """A context manager; kvq.evaluate.evaluation.Reporter says what the methods are for."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._done = self._total = 0
        self._bar: Progress | None = None
        if self.console.is_terminal:
            columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)
        self._task = self._bar.add_task("loading") if self._bar else None

    def __enter__(self) -> ProgressReporter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def begin(self, total: int, kept: int) -> None:
        self._total, self._done = total, kept
        if kept:
            self.line(f"{kept} of {total} measurements are finished already")
        if self._bar:
            self._bar.update(self._task, total=total, completed=kept)

    def corrupt(self, path: Path, why: str) -> None:
        self.line(f"{path.name} is not used because {why}: it is measured again")

    @contextmanager
    def unit(self, title: str) -> Iterator[Say]:
        start = time.perf_counter()
        if self._bar:
            self._bar.update(self._task, description=title)
            yield lambda message: self._bar.update(self._task, description=f"{title}: {message}")
            self._bar.advance(self._task)
        else:
            yield lambda message: None
        self._done += 1
        if not self._bar:
            self.line(f"[{self._done}/{self._total}] {title}: {time.perf_counter() - start:.1f} s")
