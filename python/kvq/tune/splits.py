# SPDX-License-Identifier: Apache-2.0
"""The split policy of a cache, from measurements to its entry in the database.

Steps are measured under a few policies in each of several conditions, with splits from all the keys to 1/64 of them and
the default; kvq.tune.split_model finds the prices that explain the times, and the policy that is best by them. It stays
a guess until it has been measured against the default, in common rounds, in every condition: the default stays where
nothing is faster on average beyond the noise, and where something loses more than a tenth in any condition.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kvq.errors import InvalidArgument
from kvq.tune.database import Database
from kvq.tune.estimator import LEAST_ROUNDS, ROUNDS, Estimate, compare, fastest
from kvq.tune.kernel_requests import is_accelerator
from kvq.tune.measure import Bench, Settings
from kvq.tune.problem import Conditions, Problem, Runner
from kvq.tune.request_fields import parse
from kvq.tune.rows import OK, Entry, Key, Trial, key_of, now
from kvq.tune.search import Budget, lacking, working
from kvq.tune.split_model import LEAST_NOISE, WORST, CacheShape, Point, choose, fit
from kvq.tune.split_policy import attend_request, exactly, parse_policy
from kvq.tune.tuner import Outcome, Say

PARTS = (1, 4, 16, 64)  # of the keys, that a step is measured with
SHORTEST = 128  # tokens of such a split
FIT_SHARE = 0.6  # of the seconds; the rest is for measuring what was chosen
CONTEXTS, BATCHES = (1024, 4096, 16384), (1, 4)
ACCELERATOR_BATCHES = (1, 16)  # a GPU has room for the programs of many sequences


class StepRunner(Runner, Protocol):
    """A runner whose kernels are policies, and its problems steps."""

    def resident(self, problem: Problem) -> int:
        """Programs of attention that run at once on a GPU; 0 on a host, which has threads."""


@dataclass(frozen=True)
class SplitProblem:
    """A request (kvq.tune.split_policy), and the conditions that steps are measured in."""

    request: str
    target: str
    conditions: tuple[Conditions, ...]

    def __post_init__(self) -> None:
        if not self.conditions:
            raise InvalidArgument(f"{self.request} is to be measured in no condition: give one")

    @property
    def problem(self) -> Problem:
        """Whose key the entry has: the request in the hardest condition."""
        return Problem(self.request, self.target, self.ordered[0])

    @property
    def ordered(self) -> tuple[Conditions, ...]:
        """The hardest, then the easiest, so that even a search that is cut off has seen both; then the others."""
        first, *others = sorted(set(self.conditions), key=_hardness, reverse=True)
        return (first, *others[-1:], *others[:-1])


def problem_of(
    request: str, target: str, *, contexts: Sequence[int] = CONTEXTS, batches: Sequence[int] = (),
    threads: Sequence[int] = (), window: int = 0, cache: str = "cold",
) -> SplitProblem:  # fmt: skip
    """All combinations. `batches`: none for the usual ones of a host or a GPU. `threads`: none for one, and twice as
    many until all that this process may use; a GPU has none."""
    _, heads = attend_request(request)
    if is_accelerator(target):
        if any(many != 1 for many in threads):
            raise InvalidArgument(
                f"threads are of a host, and {target} runs as many programs as it has room for: leave --threads out"
            )
        batches, threads = batches or ACCELERATOR_BATCHES, (1,)
    return SplitProblem(request, target, tuple(
        Conditions(cache, tokens, batch, heads, many, window)
        for tokens in contexts for batch in batches or BATCHES for many in threads or all_threads()
    ))  # fmt: skip


def all_threads() -> list[int]:
    most = len(os.sched_getaffinity(0))
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]


def tune(
    splits: SplitProblem,
    runner: StepRunner,
    database: Database,
    *,
    budget: Budget | None = None,
    settings: Settings | None = None,
    again: bool = False,
    say: Say = lambda text: None,
) -> Outcome:
    """Finds the policy and records it, with every sample. A key with an entry is done, and what was sampled before an
    interruption is not sampled again; `again` forgets both first."""
    search = _Search(splits, runner, database, budget or Budget(), settings or Settings(), say)
    before = database.entry(search.key)
    if is_done(before, again):
        return Outcome(before, was_there=True)
    if again:
        for conditions in splits.conditions:
            database.forget(search.key_in(conditions))
    entry = search.run()
    if entry is not None:
        database.record([runner.machine], (), [entry], replace=again)
    return Outcome(entry, finished=search.finished, failures=search.failures)


def is_done(entry: Entry | None, again: bool) -> bool:
    """Whether nothing is to be measured."""
    return entry is not None and not entry.predicted and not again


class _Search:
    def __init__(
        self, splits: SplitProblem, runner: StepRunner, database: Database, budget: Budget, settings: Settings, say: Say
    ) -> None:
        self.splits, self.runner, self.database = splits, runner, database
        self.budget, self.settings, self.say = budget, settings, say
        text, heads = attend_request(splits.request)
        self.shape = CacheShape(parse(text), heads, runner.resident(splits.problem))
        self.key = self.key_in(splits.problem.conditions)
        self.default = runner.space(splits.problem).default
        self.finished, self.failures = True, Counter[str]()

    def problem(self, conditions: Conditions) -> Problem:
        return replace(self.splits.problem, conditions=conditions)

    def key_in(self, conditions: Conditions) -> Key:
        return key_of(self.problem(conditions), self.runner.machine.hash, self.runner.compiler)

    def run(self) -> Entry | None:
        measured = self._measure_all()
        broken = [trials[self.default] for trials in measured.values() if trials[self.default].status != OK]
        if broken:
            return Entry(self.key, self.default, self.default, broken[0].status, broken[0].message, at=now())
        prices = fit([point for conditions, trials in measured.items() for point in self._points(conditions, trials)])
        policy, share = choose(prices, self.shape, measured, parse_policy(self.default))
        self.say(f"prices: {prices}\nby these {policy} takes {share:.3f} of the default's time")
        won = self._verified(str(policy), list(measured))
        return self._entry(won)

    # -- the fit -------------------------------------------------------------------------------------------------------

    def _measure_all(self) -> dict[Conditions, dict[str, Trial]]:
        """Trials by condition and policy, of as many conditions as the budget allows, and of one at least."""
        seconds = self.budget.seconds and self.budget.seconds * FIT_SHARE
        bounded = Budget(seconds, clock=self.budget.clock)
        measured: dict[Conditions, dict[str, Trial]] = {}
        for conditions in self.splits.ordered:
            if measured and bounded.is_over():
                self.finished = False
                break
            measured[conditions] = self._measure(conditions)
            if measured[conditions][self.default].status != OK:
                break
        return measured

    def _measure(self, conditions: Conditions) -> dict[str, Trial]:
        names = self.probes(conditions)
        known = {trial.schedule: trial for trial in self._trials(self.key_in(conditions))}
        wanted = lacking(working(names, known), known, LEAST_ROUNDS)
        if wanted:
            self.say(f"{conditions}: {len(wanted)} policies")
            with self._bench(conditions) as bench:
                done = bench.measure(wanted, known, LEAST_ROUNDS)
            self._keep(bench, done)
            known |= {trial.schedule: trial for trial in done}
        return {name: known[name] for name in names}

    def probes(self, conditions: Conditions) -> list[str]:
        """The default, and splits of parts of the keys."""
        parts = (conditions.tokens // part for part in PARTS)
        found = (str(exactly(tokens)) for tokens in parts if tokens >= max(SHORTEST, self.shape.fields.page))
        return list(dict.fromkeys([self.default, *found]))

    def _points(self, conditions: Conditions, trials: Mapping[str, Trial]) -> Iterator[Point]:
        for name, trial in trials.items():
            if trial.status == OK:
                yield self.shape.load(conditions, parse_policy(name)), _estimate(trial)

    # -- the choice ----------------------------------------------------------------------------------------------------

    def _verified(self, policy: str, measured: Sequence[Conditions]) -> str:
        """The policy, or the default where it cannot be told from it or is worse."""
        names = [self.default, policy]
        ours, usual = (parse_policy(name) for name in reversed(names))
        differ = [each for each in measured if self.shape.splits(each, ours) != self.shape.splits(each, usual)]
        found: dict[str, list[Trial]] = {name: [] for name in names}
        for conditions in differ:
            if found[policy] and self.budget.is_over():
                self.finished = False
                break
            trials = self._side_by_side(names, conditions)
            if set(trials) != set(names):
                return self.default
            for name in names:
                found[name].append(trials[name])
            gain = 1 - trials[policy].seconds / trials[self.default].seconds
            self.say(f"{conditions}: {100 * gain:+.1f} % faster than the default")
            usual_time, our_time = (_estimate(trials[name]) for name in names)
            if compare(replace(usual_time, seconds=WORST * usual_time.seconds), our_time) < 0:
                return self.default
        return fastest(_means(found), self.default) if differ else self.default

    def _side_by_side(self, names: Sequence[str], conditions: Conditions) -> dict[str, Trial]:
        """Trials of fresh samples in common rounds, of those that work."""
        with self._bench(conditions) as bench:
            ready, failed = bench.prepare(names)
            samples, out = bench.sample(ready, ROUNDS)
            trials = bench.trials(samples)
        self._keep(bench, failed + out)
        self._keep(bench, trials, replace=True)
        return {trial.schedule: trial for trial in trials}

    def _entry(self, won: str) -> Entry:
        """With the time in the hardest condition, where what makes the same splits has the same."""
        conditions = self.splits.problem.conditions
        trials = {trial.schedule: trial for trial in self._trials(self.key)}
        parts = self.shape.splits(conditions, parse_policy(won))
        same = won if won in trials else next(
            name for name in trials if self.shape.splits(conditions, parse_policy(name)) == parts
        )  # fmt: skip
        trial = trials[same]
        return Entry(self.key, won, self.default, OK, "", trial.seconds, trial.noise, len(trial.samples), at=now())

    def _trials(self, key: Key) -> list[Trial]:
        """Those that were measured."""
        return [trial for trial in self.database.trials(key) if not trial.predicted]

    # -- the bench -----------------------------------------------------------------------------------------------------

    def _bench(self, conditions: Conditions) -> Bench:
        """Its budget is the number of policies, which is small."""
        return Bench(self.runner, self.problem(conditions), self.settings, Budget())

    def _keep(self, bench: Bench, trials: Sequence[Trial], replace: bool = False) -> None:
        self.database.record([self.runner.machine], trials, replace=replace)
        if not replace:
            self.failures += Counter(trial.status for trial in trials if trial.status != OK)


def _hardness(conditions: Conditions) -> tuple[int, int, int]:
    return conditions.tokens, conditions.batch, conditions.threads


def _estimate(trial: Trial) -> Estimate:
    return Estimate(trial.seconds, trial.noise, len(trial.samples))


def _means(found: Mapping[str, Sequence[Trial]]) -> dict[str, Estimate]:
    """Of policies over the same conditions, of which each counts alike whatever it takes, but less where something
    disturbed it."""
    noises = [sum(trial.noise**2 for trial in trials) for trials in zip(*found.values(), strict=True)]
    weights = [1 / (LEAST_NOISE**2 + noise) for noise in noises]
    means = {}
    for name, trials in found.items():
        parts = [(weight / sum(weights), trial) for weight, trial in zip(weights, trials, strict=True)]
        seconds = math.exp(sum(part * math.log(trial.seconds) for part, trial in parts))
        means[name] = Estimate(seconds, math.hypot(*(part * trial.noise for part, trial in parts)), len(trials))
    return means
