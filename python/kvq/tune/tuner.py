# SPDX-License-Identifier: Apache-2.0
"""One problem from its space to its entry in the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvq.tune.database import Database
from kvq.tune.estimator import LEAST_ROUNDS, ROUNDS, Estimate, compare, estimate_all, fastest
from kvq.tune.lookup import NEAREST, lookup
from kvq.tune.measure import Bench, Settings
from kvq.tune.problem import CandidateFailed, Predictor, Problem, Runner, Space
from kvq.tune.rows import OK, Entry, Key, Trial, key_of, now
from kvq.tune.search import Budget, Strategy, ranked, working
from kvq.tune.search_options import choose

FINALISTS = 3  # besides the default

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """`entry` is None where the budget did not suffice for a single candidate. `failures` are of this run, by kind, as
    is the number of candidates that were `compiled`."""

    entry: Entry | None
    was_there: bool = False  # found in the database, nothing was measured
    finished: bool = True  # the strategy had nothing more to ask, or the budget ended it
    failures: Counter[str] = field(default_factory=Counter)
    compiled: int = 0


def tune(
    problem: Problem,
    runner: Runner,
    database: Database,
    *,
    strategy: Strategy | None = None,
    budget: Budget | None = None,
    settings: Settings | None = None,
    further: bool = False,
    again: bool = False,
    say: Say = lambda text: None,
) -> Outcome:
    """Searches the schedule of a problem and records it, with every candidate that was tried, as it goes: after an
    interruption the same call goes on. A key that has a measured entry is done; `further` goes on all the same, from
    what was measured before, with another budget or strategy; `again` forgets it all first. `strategy`: None for one
    that suits the size of the space, begun with the schedule of the nearest key."""
    key = key_of(problem, runner.machine.hash, runner.compiler)
    before = database.entry(key)
    if before is not None and not before.predicted and not (further or again):
        return Outcome(before, was_there=True)
    if again:
        database.forget(key)
    settings, budget = settings or Settings(), budget or Budget()
    space = runner.space(problem)
    strategy = strategy or choose(space, budget.trials, _seeds(database, problem, runner, space))
    with Bench(runner, problem, settings, budget, kept=ROUNDS * (FINALISTS + 1)) as bench:
        search = _Search(bench, database, space, say)
        finished = search.run(strategy, settings.seed)
        entry = search.decide(replace=further)
        return Outcome(entry, finished=finished, failures=bench.failures, compiled=bench.compiled)


def _seeds(database: Database, problem: Problem, runner: Runner, space: Space) -> list[str]:
    answer = lookup(database, problem, runner.machine, runner.compiler, space.schedules.__contains__)
    return [answer.schedule] if answer.how == NEAREST and answer.schedule else []


class _Search:
    def __init__(self, bench: Bench, database: Database, space: Space, say: Say) -> None:
        self.bench, self.database, self.space, self.say = bench, database, space, say
        found = database.trials(bench.key)
        self.trials = {trial.schedule: trial for trial in found if not trial.predicted}

    def run(self, strategy: Strategy, seed: int) -> bool:
        """Rung after rung; whether the strategy came to its end."""
        while (rung := strategy.next(self.space, self.trials, seed)) is not None:
            self.say(f"{len(rung.schedules)} candidates, {rung.samples} samples each")
            done = self.bench.measure(rung.schedules, self.trials, rung.samples)
            self._keep(done)
            if self.bench.is_over() or not done:
                return False
        return True

    def decide(self, replace: bool) -> Entry | None:
        """The entry: of the best candidates and the default, which are sampled once more in common rounds. A search
        picks the one that was luckiest, too; here luck is drawn anew, and the default stays where nothing beats it,
        or where it beats that a moment later."""
        names, failed = self.bench.prepare(self._finalists())
        samples, out = self.bench.sample(names, ROUNDS, least=LEAST_ROUNDS)
        trials = self.bench.trials({name: values for name, values in samples.items() if values})
        self._keep(failed + out)
        self._keep(trials, replace=True)
        finalists = {trial.schedule: trial for trial in trials}
        entry = self._entry(finalists)
        if entry is not None and entry.schedule != entry.default in finalists and self._loses(entry.schedule):
            entry = self._entry({entry.default: finalists[entry.default]})
        if entry is not None:
            self.database.record([self.bench.runner.machine], (), [entry], replace=replace)
        return entry

    def _loses(self, schedule: str) -> bool:
        """Whether the default beats it in further rounds of the two, as far as the budget allows them: what disturbs a
        machine for a second strikes all samples of a candidate of microseconds, and one in thirty searches took it for
        speed."""
        pair = [self.space.default, schedule]
        if self.bench.budget.is_over(self.bench.cost(pair, LEAST_ROUNDS)):
            return False
        samples, _ = self.bench.sample(pair, ROUNDS, least=LEAST_ROUNDS)
        found = estimate_all({name: values for name, values in samples.items() if values})
        return set(found) == set(pair) and compare(found[self.space.default], found[schedule]) < 0

    def _finalists(self) -> list[str]:
        """The default and the best candidate; further ones where the budget suffices for the least of rounds. Who was
        left out after few samples is no finalist because those were lucky."""
        good = [name for name in working(list(self.trials), self.trials) if name in self.space.schedules]
        most = max((len(self.trials[name].samples) for name in good), default=0)
        seasoned = [name for name in good if 2 * len(self.trials[name].samples) >= most]
        best = [name for name in ranked(seasoned, self.trials) if name != self.space.default][:FINALISTS]
        names = [self.space.default, *best[:1]]
        for name in best[1:]:
            if self.bench.budget.is_over(self.bench.cost([*names, name], LEAST_ROUNDS)):
                break
            names.append(name)
        return names

    def _entry(self, finalists: dict[str, Trial]) -> Entry | None:
        default, key = self.space.default, self.bench.key
        if finalists:
            found = {name: Estimate(each.seconds, each.noise, len(each.samples)) for name, each in finalists.items()}
            best = finalists[fastest(found, default)]
            return Entry(key, best.schedule, default, OK, "", best.seconds, best.noise, len(best.samples), at=now())
        failed = self.trials.get(default)
        if failed is None or working([default], self.trials):
            return None
        return Entry(key, default, default, failed.status, failed.message, at=now())

    def _keep(self, trials: Sequence[Trial], replace: bool = False) -> None:
        self.database.record([self.bench.runner.machine], trials, replace=replace)
        self.trials.update({trial.schedule: trial for trial in trials})


def predict(problem: Problem, predictor: Predictor, database: Database) -> Outcome:
    """Ranks all schedules of a problem by a cost model and records them as predicted: for a machine that is not there.
    A measured entry of the same key stays, as does a predicted one."""
    key = key_of(problem, predictor.machine.hash, predictor.compiler)
    before = database.entry(key)
    if before is not None:
        return Outcome(before, was_there=True)
    space = predictor.space(problem)
    trials = [_predicted(key, predictor, problem, schedule) for schedule in space.schedules]
    able = [trial for trial in trials if trial.status == OK]
    failures = Counter(trial.status for trial in trials if trial.status != OK)
    entry = None
    if able:
        best = min(able, key=lambda trial: (trial.seconds, trial.schedule != space.default, trial.schedule))
        entry = Entry(key, best.schedule, space.default, seconds=best.seconds, predicted=True, at=now())
    database.record([predictor.machine], trials, [entry] if entry else [])
    return Outcome(entry, failures=failures, compiled=len(trials))


def _predicted(key: Key, predictor: Predictor, problem: Problem, schedule: str) -> Trial:
    try:
        seconds = predictor.predict(problem, schedule)
    except CandidateFailed as error:
        return Trial(key, schedule, error.status, " ".join(str(error).split()), predicted=True, at=now())
    return Trial(key, schedule, seconds=seconds, predicted=True, at=now())
