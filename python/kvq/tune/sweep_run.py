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
from kvq.tune.search_options import SearchOptions
from kvq.tune.tuner import Outcome, Say, predict, tune

RUNNER = "kvq.tune.kernels:make_runner"  # of a place: a function of a target that returns a Runner or a Predictor

Factory = Callable[[str], Runner | Predictor]  # of a target

TUNED, PREDICTED, THERE, FAILED = "tuned", "predicted", "there already", "failed"


@dataclass(frozen=True)
class Done:
    """What became of a problem: one of the four words above, and in words what was found or went wrong."""

    problem: Problem
    how: str
    text: str
    failures: Counter[str] = field(default_factory=Counter)


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
    """Works on problems with the runners of a place, made when they are first needed."""

    def __init__(self, place: str, options: SearchOptions) -> None:
        self.place, self.options = place, options
        self._factory = runner_factory(place)
        self.strategy = options.make_strategy()
        self._runners: dict[str, Runner | Predictor] = {}

    def runner(self, target: str) -> Runner | Predictor:
        if target not in self._runners:
            self._runners[target] = self._factory(target)
        return self._runners[target]

    def work(self, problem: Problem, database: Database, say: Say = lambda text: None) -> Done:
        """kvq's own errors are a failure of this problem; others end the sweep."""
        try:
            runner = self.runner(problem.target)
            if isinstance(runner, Predictor):
                return described(problem, predict(problem, runner, database))
            return described(problem, self._tune(problem, runner, database, say))
        except Error as error:
            return Done(problem, FAILED, str(error))

    def _tune(self, problem: Problem, runner: Runner, database: Database, say: Say) -> Outcome:
        with ExitStack() as stack:
            vetter = None
            if self.options.isolate:
                factory = functools.partial(make_runner, self.place, problem.target)
                vetter = stack.enter_context(ChildProcess(factory))
            settings = Settings(workers=self.options.workers, vetter=vetter, seed=self.options.seed)
            budget = self.options.budget()
            return tune(problem, runner, database, strategy=self.strategy, budget=budget, settings=settings, say=say)


def described(problem: Problem, outcome: Outcome) -> Done:
    entry = outcome.entry
    if entry is None:
        return Done(problem, FAILED, "the budget ended before one candidate was timed: give more", outcome.failures)
    if entry.seconds is None:
        text = f"no schedule works: {entry.status}: {entry.message}"
        return Done(problem, THERE if outcome.was_there else FAILED, text, outcome.failures)
    text = f"{entry.schedule or 'the one schedule'}: {entry.seconds * 1e3:.4g} ms"
    text += "" if outcome.finished else " (the budget ended the search)"
    how = THERE if outcome.was_there else PREDICTED if entry.predicted else TUNED
    return Done(problem, how, text, outcome.failures)
