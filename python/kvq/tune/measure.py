# SPDX-License-Identifier: Apache-2.0
"""The order of work for one problem: compile candidates in parallel, check each against the reference, then time those
that are right, in rounds. A candidate that was not checked is never timed.

Nothing is compiled while anything is timed. Only CandidateFailed is a candidate's failure: it is counted by its kind
and kept with its message. Any other exception is a mistake, and goes through.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from kvq.tune.capability import last_level_bytes
from kvq.tune.estimator import estimate_all, round_order
from kvq.tune.problem import CandidateFailed, CheckCase, Problem, Runner, Workload, Wrong
from kvq.tune.rows import OK, Trial, key_of, now
from kvq.tune.search import Budget

# What goes wrong first: channels that stand out, off zero, as in K of real models; one key that takes all attention.
CASES = (
    CheckCase("normal", seed=1),
    CheckCase("outliers", seed=2, outliers=2, factor=30.0),
    CheckCase("dominant", seed=3, outliers=1, factor=8.0, dominant=True),
)
ROTATION = 2.0  # last-level caches that the copies of a cold workload fill
MOST_ROTATED = 1 << 30  # bytes
SHORTEST = 200e-6  # seconds of a sample: a shorter one is mostly what the clock and the call cost
MOST_REPEATS = 1000


class Vetter(Protocol):
    """Tries a candidate where it can do no harm: kvq.tune.isolation has one, in a process of its own."""

    def vet(self, problem: Problem, schedule: str, cases: Sequence[CheckCase]) -> None:
        """CandidateFailed where the candidate fails there."""


@dataclass(frozen=True)
class Settings:
    workers: int = 2  # threads that compile
    cases: tuple[CheckCase, ...] = CASES
    vetter: Vetter | None = None  # before a candidate is compiled in this process
    seed: int = 0


class Bench(AbstractContextManager["Bench"]):
    """Measures candidates of one problem. `failures` counts what failed, by kind, `compiled` what was compiled."""

    def __init__(self, runner: Runner, problem: Problem, settings: Settings, budget: Budget) -> None:
        self.runner, self.problem, self.settings, self.budget = runner, problem, settings, budget
        self.key = key_of(problem, runner.machine.hash, runner.compiler)
        self.failures: Counter[str] = Counter()
        self.compiled = 0
        self._kernels: dict[str, Any] = {}
        self._workload: Workload | None = None
        self._copies = self._turn = self._next_copy = 0
        self._repeats: int | None = None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._workload is not None:
            self._workload.close()

    def measure(self, wanted: Sequence[str], trials: dict[str, Trial], samples: int) -> list[Trial]:
        """Brings candidates to so many samples and returns their trials, those of failed ones too. `trials`: what is
        known of them. Where the budget ends before, candidates have fewer samples or are left out."""
        ready, failed = self.prepare(wanted)
        had = {name: list(trials[name].samples) if name in trials else [] for name in ready}
        rounds = max((samples - len(values) for values in had.values()), default=0)
        taken, out = self.sample(ready, rounds, {name: samples - len(values) for name, values in had.items()})
        for name, values in taken.items():
            had[name] += values
        return failed + out + self.trials({name: values for name, values in had.items() if name in taken and values})

    def prepare(self, wanted: Sequence[str], bounded: bool = True) -> tuple[list[str], list[Trial]]:
        """Compiles and checks candidates, those that are not ready yet as far as the budget goes: which may be timed,
        and the trials of those that failed. bounded=False: whatever the budget says."""
        new = [name for name in wanted if name not in self._kernels]
        failed = []
        for name, kernel in self._compiled(new, bounded):
            try:
                if isinstance(kernel, CandidateFailed):
                    raise kernel
                check(self.runner, self.problem, kernel, self.settings.cases)
                self._kernels[name] = kernel
            except CandidateFailed as error:
                failed.append(self._failed(name, error))
        return [name for name in wanted if name in self._kernels], failed

    def sample(
        self, names: Sequence[str], rounds: int, wanted: Mapping[str, int] | None = None, bounded: bool = True
    ) -> tuple[dict[str, list[float]], list[Trial]]:
        """So many rounds over the candidates, each in another order, of each at most as many samples as it wants.
        Returns the samples of whole rounds, and the trials of candidates that failed on the way."""
        taken: dict[str, list[float]] = {name: [] for name in names}
        failed = []
        for turn in range(rounds):
            if bounded and turn and self.budget.is_over():
                break
            self._turn += 1
            for name in round_order(list(taken), self._turn, self.settings.seed):
                if wanted is not None and turn >= wanted[name]:
                    continue
                try:
                    taken[name].append(self._sample(self._kernels[name]))
                except CandidateFailed as error:
                    failed.append(self._failed(name, error))
                    del taken[name], self._kernels[name]
        return taken, failed

    def trials(self, samples: Mapping[str, Sequence[float]]) -> list[Trial]:
        """Of candidates that were sampled in the same rounds."""
        found = estimate_all(samples) if samples else {}
        return [
            Trial(self.key, name, OK, "", each.seconds, each.noise, tuple(samples[name]), at=now())
            for name, each in found.items()
        ]

    # -- one candidate -------------------------------------------------------------------------------------------------

    def _compiled(self, names: Sequence[str], bounded: bool) -> Iterator[tuple[str, Any]]:
        """Each with its kernel or its failure, in their order; as many at once as there are threads for it."""
        workers = max(1, self.settings.workers)
        with ThreadPoolExecutor(workers) as pool:
            for begin in range(0, len(names), workers):
                part = names[begin : begin + workers]
                if bounded:
                    part = part[: self.budget.take(len(part))]
                self.compiled += len(part)
                yield from zip(part, pool.map(self._compile, part), strict=True)

    def _compile(self, name: str) -> Any:
        try:
            if self.settings.vetter is not None:
                self.settings.vetter.vet(self.problem, name, self.settings.cases)
            return self.runner.compile(self.problem, name)
        except CandidateFailed as error:
            return error

    def _sample(self, kernel: Any) -> float:
        """Seconds of one run."""
        workload = self._inputs()
        if self._repeats is None:
            once = self._timed(workload, kernel, 1)  # also what loading a page for the first time costs
            once = min(once, self._timed(workload, kernel, 1))
            self._repeats = max(1, min(MOST_REPEATS, math.ceil(SHORTEST / once)))
        if self.problem.conditions.cache == "warm":
            workload.run(kernel, [0])  # whose data and code are in the caches then
        return self._timed(workload, kernel, self._repeats)

    def _timed(self, workload: Workload, kernel: Any, count: int) -> float:
        copies = [(self._next_copy + index) % self._copies for index in range(count)]
        self._next_copy = (self._next_copy + count) % self._copies
        return workload.run(kernel, copies) / count

    def _inputs(self) -> Workload:
        if self._workload is None:
            self._copies = copies_for(self.runner, self.problem)
            self._workload = self.runner.workload(self.problem, self._copies)
        return self._workload

    # -- what becomes of it --------------------------------------------------------------------------------------------

    def _failed(self, name: str, error: CandidateFailed) -> Trial:
        self.failures[error.status] += 1
        return Trial(self.key, name, error.status, " ".join(str(error).split()), at=now())


def check(runner: Runner, problem: Problem, kernel: Any, cases: Sequence[CheckCase]) -> None:
    """Wrong where the kernel deviates from the reference by more than it may, in any case."""
    for case in cases:
        found = runner.check(problem, kernel, case)
        if not found.error <= found.allowed:  # so that a NaN is wrong
            raise Wrong(
                f"on the data '{case.name}' it deviates by {found.error:.3g}, where {found.allowed:.3g} is allowed"
            )


def copies_for(runner: Runner, problem: Problem) -> int:
    """Copies of the inputs: one for warm runs; for cold ones as many as no cache keeps until their next turn."""
    if problem.conditions.cache == "warm":
        return 1
    rotated = min(ROTATION * last_level_bytes(runner.machine), MOST_ROTATED)
    return max(2, math.ceil(rotated / max(1, runner.workload_bytes(problem))))
