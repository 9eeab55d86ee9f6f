# SPDX-License-Identifier: Apache-2.0
"""Who finds the split policies of a target: a runner that measures steps where its device is here, else the static model
of GPUs, whose policies are recorded as predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from kvq.errors import Error
from kvq.tune.capability import Machine
from kvq.tune.database import Database
from kvq.tune.kernels import device_of
from kvq.tune.problem import Conditions, Problem, Space
from kvq.tune.request_fields import parse
from kvq.tune.rows import Entry, Trial, key_of, now
from kvq.tune.search import Budget
from kvq.tune.search_options import SearchOptions
from kvq.tune.split_model import CacheShape, Prices, choose
from kvq.tune.split_policy import SplitPolicy, attend_request, parse_policy
from kvq.tune.split_runner import SplitRunner
from kvq.tune.splits import SplitProblem, StepRunner, is_done, tune
from kvq.tune.sweep_run import FAILED, Done, Worker, described
from kvq.tune.tuner import Outcome, Say


@runtime_checkable
class StepPredictor(Protocol):
    """A cost model of steps on a machine that is not there."""

    compiler: str
    machine: Machine

    def space(self, problem: Problem) -> Space:
        """The default policy."""

    def resident(self, problem: Problem) -> int:
        """As a runner's."""

    def predicted_prices(self, problem: Problem) -> Prices:
        """CandidateFailed where a kernel cannot be compiled."""


def make_runner(target: str, *, gpu: str = "", store: str | None = None) -> StepRunner | StepPredictor:
    """What measures steps of caches of a target; for a GPU that is not here, or one of the table of `kvq inspect`, what
    predicts them. `store`: as SplitRunner takes it."""
    device = None if gpu else device_of(target)
    if device is None:
        from kvq.tune.split_prediction import SplitPredictor

        return SplitPredictor(target, gpu)
    return SplitRunner(device, target, store)


def predict(
    splits: SplitProblem, predictor: StepPredictor, database: Database, *, again: bool = False,
    say: Say = lambda text: None,
) -> Outcome:  # fmt: skip
    """The policy that is best by prices that nobody measured, recorded as predicted with its time, and the default's, in
    every condition. An entry of the same key stays, whether measured or predicted; `again` forgets it first.
    CandidateFailed where a kernel cannot be compiled."""
    keys = {each: key_of(replace(splits.problem, conditions=each), predictor.machine.hash, predictor.compiler)
            for each in splits.ordered}  # fmt: skip
    key = keys[splits.problem.conditions]
    before = database.entry(key)
    if before is not None and not again:
        return Outcome(before, was_there=True)
    default = parse_policy(predictor.space(splits.problem).default)
    prices = predictor.predicted_prices(splits.problem)
    text, heads = attend_request(splits.request)
    shape = CacheShape(parse(text), heads, predictor.resident(splits.problem))
    policy, share = choose(prices, shape, splits.conditions, default)
    say(f"predicted prices: {prices}\nby these {policy} takes {share:.3f} of the default's time with "
        f"{shape.resident} programs at once")

    def seconds(conditions: Conditions, policy: SplitPolicy) -> float:
        return prices.seconds(shape.load(conditions, policy))

    trials = [Trial(keys[each], str(name), seconds=seconds(each, name), predicted=True, at=now())
              for each in keys for name in dict.fromkeys((default, policy))]  # fmt: skip
    entry = Entry(key, str(policy), str(default), seconds=seconds(splits.problem.conditions, policy), predicted=True,
                  at=now())  # fmt: skip
    if again:
        for each in keys.values():
            database.forget(each)
    database.record([predictor.machine], trials, [entry])
    return Outcome(entry)


class SplitWorker:
    """Works on split problems, for kvq.tune.winners.tune_all, with the runner of a target, made when it is first
    needed; `kernels` on all others."""

    def __init__(
        self, make_runner: Callable[[str], StepRunner | StepPredictor], *, kernels: Worker | None = None,
        again: bool = False,
    ) -> None:  # fmt: skip
        self.options = kernels.options if kernels else SearchOptions()
        self._make_runner, self._kernels, self._again = make_runner, kernels, again
        self._runners: dict[str, StepRunner | StepPredictor] = {}

    def runner(self, target: str) -> StepRunner | StepPredictor:
        if target not in self._runners:
            self._runners[target] = self._make_runner(target)
        return self._runners[target]

    def is_done(self, problem: Problem | SplitProblem, database: Database) -> bool:
        if not isinstance(problem, SplitProblem):
            return self._kernels.is_done(problem, database)
        runner = self.runner(problem.target)
        key = key_of(problem.problem, runner.machine.hash, runner.compiler)
        return is_done(database.entry(key), self._again)

    def work(self, problem: Problem | SplitProblem, database: Database, say: Say, budget: Budget) -> Done:
        """Kvq's own errors are a failure of this problem."""
        if not isinstance(problem, SplitProblem):
            return self._kernels.work(problem, database, say, budget)
        try:
            runner = self.runner(problem.target)
            if isinstance(runner, StepPredictor):
                outcome = predict(problem, runner, database, again=self._again, say=say)
            else:
                outcome = tune(problem, runner, database, budget=budget, again=self._again, say=say)
            return described(problem.problem, outcome)
        except Error as error:
            return Done(problem.problem, FAILED, str(error))
