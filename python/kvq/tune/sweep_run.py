# SPDX-License-Identifier: Apache-2.0
"""Work on the problems of a sweep on this machine. What has its entry is not done again."""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from kvq.errors import Error, InvalidArgument, Unsupported
from kvq.tune.database import Database
from kvq.tune.isolation import ChildProcess
from kvq.tune.measure import Settings
from kvq.tune.problem import Predictor, Problem, Runner
from kvq.tune.rows import key_of
from kvq.tune.search import Budget
from kvq.tune.search_options import SearchOptions
from kvq.tune.tuner import Outcome, Say, predict, tune

RUNNER = "kvq.tune.kernels:make_runner"  # of a place: a function of a target that returns a Runner or a Predictor

Factory = Callable[[str], Runner | Predictor]  # of a target

TUNED, PREDICTED, THERE, LEFT, FAILED = "tuned", "predicted", "there already", "left", "failed"


@dataclass(frozen=True)
class Done:
    """What became of a problem: one of the words above, and in words what was found or went wrong; the outcome,
    where there is one and nothing was sent from another machine."""

    problem: Problem
    how: str
    text: str
    failures: Counter[str] = field(default_factory=Counter)
    outcome: Outcome | None = None


def runner_factory(place: str) -> Factory:
    """The function that a place, `module:function`, names."""
    module, _, function = place.partition(":")
    if not module or not function:
        raise InvalidArgument(f"the runner '{place}' is no place: write module:function, as in {RUNNER}")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise Unsupported(f"the runner {place} cannot be loaded ({error}): name another with --runner") from error


def make_runner(place: str, target: str) -> Runner | Predictor:
    """What a child process makes its runner with: a function that it can import."""
    return runner_factory(place)(target)


class Worker:
    """Works on problems with the runners of a place, made when they are first needed. `factory`: what makes them in this
    process; None: the place's function."""

    def __init__(self, place: str, options: SearchOptions, factory: Factory | None = None) -> None:
        self.place, self.options = place, options
        self._factory = factory or runner_factory(place)
        self.strategy = options.make_strategy()
        self._runners: dict[str, Runner | Predictor] = {}

    def runner(self, target: str) -> Runner | Predictor:
        if target not in self._runners:
            self._runners[target] = self._factory(target)
        return self._runners[target]

    def work(
        self, problem: Problem, database: Database, say: Say = lambda text: None, budget: Budget | None = None
    ) -> Done:
        """kvq's own errors are a failure of this problem; others end the sweep. `budget`: None for that of the
        options."""
        try:
            runner = self.runner(problem.target)
            if isinstance(runner, Predictor):
                return described(problem, predict(problem, runner, database))
            return described(problem, self._tune(problem, runner, database, say, budget or self.options.budget()))
        except Error as error:
            return Done(problem, FAILED, str(error))

    def is_done(self, problem: Problem, database: Database) -> bool:
        """Whether work() would find a measured entry."""
        runner = self.runner(problem.target)
        entry = database.entry(key_of(problem, runner.machine.hash, runner.compiler))
        return entry is not None and not entry.predicted

    def _tune(self, problem: Problem, runner: Runner, database: Database, say: Say, budget: Budget) -> Outcome:
        with ExitStack() as stack:
            vetter = None
            if self.options.isolate:
                factory = functools.partial(make_runner, self.place, problem.target)
                vetter = stack.enter_context(ChildProcess(factory))
            settings = Settings(workers=self.options.workers, vetter=vetter, seed=self.options.seed)
            return tune(problem, runner, database, strategy=self.strategy, budget=budget, settings=settings, say=say)


def described(problem: Problem, outcome: Outcome) -> Done:
    how, text = _words(outcome)
    return Done(problem, how, text, outcome.failures, outcome)


def _words(outcome: Outcome) -> tuple[str, str]:
    entry = outcome.entry
    if entry is None:
        return FAILED, "the budget ended before one candidate was timed: give more"
    if entry.seconds is None:
        return THERE if outcome.was_there else FAILED, f"no schedule works: {entry.status}: {entry.message}"
    text = f"{entry.schedule or 'the one schedule'}: {entry.seconds * 1e3:.4g} ms"
    text += "" if outcome.finished else " (the budget ended the search)"
    return THERE if outcome.was_there else PREDICTED if entry.predicted else TUNED, text
