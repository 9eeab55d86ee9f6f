# SPDX-License-Identifier: Apache-2.0
"""Optuna itself as a strategy. Skipped where it is not installed (python/requirements/tune.txt)."""

import pytest
import synthetic
from kvq.tune.database import Database
from kvq.tune.estimator import ROUNDS
from kvq.tune.measure import Settings
from kvq.tune.optuna_search import OptunaSearch
from kvq.tune.problem import Conditions, Problem
from kvq.tune.tuner import tune
from made_rows import REQUEST

pytest.importorskip("optuna")
COUNT = 64  # of 192 candidates


def found(tmp_path, strategy, seed):
    """How far the winner is from the fastest, and the candidates that were tried."""
    times = synthetic.landscape(seed)
    runner = synthetic.SyntheticRunner(times, default=synthetic.schedules()[-1], kind="spikes", seed=seed)
    with Database(tmp_path / f"{type(strategy).__name__}{seed}.db") as database:
        outcome = tune(Problem(REQUEST, "x86-64-v4", Conditions()), runner, database, strategy=strategy,
                       settings=Settings(seed=seed))  # fmt: skip
        trials = database.trials()
    assert outcome.finished and outcome.entry.samples == ROUNDS
    return times[outcome.entry.schedule] / min(times.values()), len(trials)


def test_tpe_comes_near_the_fastest_with_a_third_of_the_candidates(tmp_path):
    results = [found(tmp_path, OptunaSearch(COUNT), seed) for seed in range(6)]
    assert {count for _, count in results} == {COUNT}
    assert sum(far for far, _ in results) / len(results) < 1.03


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_space_with_holes_is_tried_to_its_end(tmp_path, sampler):
    """Not every combination of knobs is legal, and some candidates fail."""
    if sampler == "gp":
        pytest.importorskip("scipy")
    names = [name for index, name in enumerate(synthetic.schedules()) if index % 11 == 0]
    times = synthetic.landscape(3, names)
    runner = synthetic.SyntheticRunner(times, fails={names[3]: "infeasible", names[5]: "wrong"})
    with Database(tmp_path / "tuning.db") as database:
        outcome = tune(Problem(REQUEST, "x86-64-v4", Conditions()), runner, database,
                       strategy=OptunaSearch(100, sampler))  # fmt: skip
        assert {trial.schedule for trial in database.trials()} == set(names)
    good = {name: seconds for name, seconds in times.items() if name not in (names[3], names[5])}
    assert outcome.entry.schedule == min(good, key=good.get) and outcome.failures == {"infeasible": 1, "wrong": 1}


def test_an_interrupted_search_goes_on_with_the_same_candidates(tmp_path):
    """What Optuna is told is the database: it asks for the same as a search that nobody stopped."""
    times, problem = synthetic.landscape(5), Problem(REQUEST, "x86-64-v4", Conditions())
    with Database(tmp_path / "whole.db") as whole, Database(tmp_path / "parts.db") as parts:
        tune(problem, synthetic.SyntheticRunner(times), whole, strategy=OptunaSearch(16))
        for count in (8, 16):
            tune(problem, synthetic.SyntheticRunner(times), parts, strategy=OptunaSearch(count), further=True)
        assert {trial.schedule for trial in whole.trials()} == {trial.schedule for trial in parts.trials()}
