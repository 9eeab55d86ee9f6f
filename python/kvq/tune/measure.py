# SPDX-License-Identifier: Apache-2.0
"""The order of work for one problem: compile candidates in parallel, check each against the reference, then time those
that are right, in rounds. A candidate that was not checked is never timed.

Nothing is compiled while anything is timed. Only CandidateFailed is a candidate's failure: it is counted by its kind
and kept with its message. Any other exception is a mistake, and goes through.
"""

from __future__ import annotations

import math
from collections import Counter, deque
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
LAST_BATCHES = 3  # of which the slowest says what the next one may take
MOST_KEPT = 0.5  # of a budget's seconds, for what comes behind the search


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
    """Measures candidates of one problem. `failures` counts what failed, by kind, `compiled` what was compiled. `kept`:
    samples behind the search for which a budget of seconds must suffice too."""

    def __init__(self, runner: Runner, problem: Problem, settings: Settings, budget: Budget, kept: int = 0) -> None:
        self.runner, self.problem, self.settings, self.budget = runner, problem, settings, budget
        self.key = key_of(problem, runner.machine.hash, runner.compiler)
        self.failures: Counter[str] = Counter()
        self.compiled = 0
        self._kept = kept
        self._kernels: dict[str, Any] = {}
        self._workload: Workload | None = None
        self._copies = self._turn = self._next_copy = 0
        self._repeats: int | None = None
        self._batches: deque[float] = deque(maxlen=LAST_BATCHES)  # seconds of waiting for the compiler, and of checks
        self._check_seconds = 0.0  # of the last candidate: the first one also pays for the reference
        self._sampled, self._sampling = 0, 0.0  # samples, and seconds that they took with all that is about them

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._workload is not None:
            self._workload.close()

    def measure(self, wanted: Sequence[str], trials: dict[str, Trial], samples: int) -> list[Trial]:
        """Brings candidates to so many samples and returns their trials, those of failed ones too; none where the
        budget has no time for anything of it. `trials`: what is known of them. Where the budget ends in the middle,
        candidates have fewer samples or are left out."""
        ready, failed = self.prepare(wanted, samples)
        had = {name: list(trials[name].samples) if name in trials else [] for name in ready}
        rounds = max((samples - len(values) for values in had.values()), default=0)
        lacking = {name: samples - len(values) for name, values in had.items()}
        least = 0 if any(had.values()) else 1
        taken, out = self.sample(ready, rounds, lacking, least, self._kept_seconds())
        if not any(taken.values()):
            return failed + out
        for name, values in taken.items():
            had[name] += values
        return failed + out + self.trials({name: values for name, values in had.items() if name in taken and values})

    def prepare(self, wanted: Sequence[str], samples: int | None = None) -> tuple[list[str], list[Trial]]:
        """Compiles and checks candidates, those that are not ready yet as far as the budget goes, with so many samples
        of each of them: which may be timed, and the trials of those that failed. None: whatever the budget says."""
        new = [name for name in wanted if name not in self._kernels]
        failed = []
        for name, kernel in self._compiled(new, samples):
            try:
                if isinstance(kernel, CandidateFailed):
                    raise kernel
                since = self.budget.clock()
                check(self.runner, self.problem, kernel, self.settings.cases)
                self._check_seconds = self.budget.clock() - since
                if self.budget.seconds is not None:
                    self._find_length(kernel)
                self._kernels[name] = kernel
            except CandidateFailed as error:
                failed.append(self._failed(name, error))
        return [name for name in wanted if name in self._kernels], failed

    def sample(
        self, names: Sequence[str], rounds: int, wanted: Mapping[str, int] | None = None, least: int = 1,
        kept: float = 0.0,
    ) -> tuple[dict[str, list[float]], list[Trial]]:  # fmt: skip
        """So many rounds over the candidates, each in another order, of each at most as many samples as it wants.
        Returns the samples, and the trials of candidates that failed on the way. Behind the first `least` rounds it
        ends where fewer than `kept` seconds of the budget would be left, be it in the middle of a round."""
        taken: dict[str, list[float]] = {name: [] for name in names}
        failed = []
        for turn in range(rounds):
            self._turn += 1
            for name in round_order(list(taken), self._turn, self.settings.seed):
                if wanted is not None and turn >= wanted[name]:
                    continue
                if turn >= least and self.budget.is_over(self._sample_seconds() + kept):
                    return taken, failed
                try:
                    taken[name].append(self._sample(self._kernels[name]))
                except CandidateFailed as error:
                    failed.append(self._failed(name, error))
                    del taken[name], self._kernels[name]
        return taken, failed

    def is_over(self) -> bool:
        """Whether nothing is left for a search."""
        return self.budget.is_over(self._kept_seconds())

    def cost(self, names: Sequence[str], samples: int) -> float:
        """Seconds of bringing candidates to so many samples, as far as such work was done before."""
        batches = math.ceil(sum(name not in self._kernels for name in names) / max(1, self.settings.workers))
        return batches * max(self._batches, default=0.0) + len(names) * samples * self._sample_seconds()

    def trials(self, samples: Mapping[str, Sequence[float]]) -> list[Trial]:
        """Of candidates that were sampled in the same rounds."""
        found = estimate_all(samples) if samples else {}
        return [
            Trial(self.key, name, OK, "", each.seconds, each.noise, tuple(samples[name]), at=now())
            for name, each in found.items()
        ]

    # -- one candidate -------------------------------------------------------------------------------------------------

    def _compiled(self, names: Sequence[str], samples: int | None) -> Iterator[tuple[str, Any]]:
        """Each with its kernel or its failure, in their order; as many at once as there are threads for it."""
        workers = max(1, self.settings.workers)
        with ThreadPoolExecutor(workers) as pool:
            for begin in range(0, len(names), workers):
                part = names[begin : begin + workers]
                if samples is not None:
                    ahead = self.cost([*self._kernels, *part], samples) + self._kept_seconds()
                    part = part[: self.budget.take(len(part), ahead if self._batches else 0.0)]
                if not part:
                    return
                self.compiled += len(part)
                since, used = self.budget.clock(), 0.0
                for compiled in zip(part, pool.map(self._compile, part), strict=True):
                    given = self.budget.clock()
                    yield compiled
                    used += self.budget.clock() - given  # by whoever checks it
                self._batches.append(self.budget.clock() - since - used + len(part) * self._check_seconds)

    def _compile(self, name: str) -> Any:
        try:
            if self.settings.vetter is not None:
                self.settings.vetter.vet(self.problem, name, self.settings.cases)
            return self.runner.compile(self.problem, name)
        except CandidateFailed as error:
            return error

    def _sample(self, kernel: Any) -> float:
        """Seconds of one run."""
        self._find_length(kernel)
        since = self.budget.clock()
        workload = self._inputs()
        if self.problem.conditions.cache == "warm":
            workload.run(kernel, [0])  # whose data and code are in the caches then
        seconds = self._timed(workload, kernel, self._repeats)
        self._sampled, self._sampling = self._sampled + 1, self._sampling + self.budget.clock() - since
        return seconds

    def _find_length(self, kernel: Any) -> None:
        """How often the kernel must run for a sample. It holds for all candidates."""
        if self._repeats is not None:
            return
        workload = self._inputs()
        once = self._timed(workload, kernel, 1)  # also what loading a page for the first time costs
        once = min(once, self._timed(workload, kernel, 1))
        self._repeats = max(1, min(MOST_REPEATS, math.ceil(SHORTEST / once)))
        self._sampled, self._sampling = 1, self._repeats * once

    def _sample_seconds(self) -> float:
        """Of the next sample, by those that were taken."""
        return self._sampling / max(1, self._sampled)

    def _kept_seconds(self) -> float:
        return min(self._kept * self._sample_seconds(), MOST_KEPT * (self.budget.seconds or 0.0))

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
