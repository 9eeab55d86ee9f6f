# SPDX-License-Identifier: Apache-2.0
"""Tuning of split policies, from measurements to the entry, on a machine of known prices."""

import random

import pytest
from kvq.errors import InvalidArgument
from kvq.tune import splits, winners
from kvq.tune.database import Database
from kvq.tune.estimator import LEAST_ROUNDS, ROUNDS
from kvq.tune.rows import OK
from kvq.tune.search import Budget
from kvq.tune.split_model import Prices
from kvq.tune.split_policy import exactly, parse_policy
from kvq.tune.split_worker import SplitWorker
from kvq.tune.splits import SplitProblem, problem_of
from kvq.tune.sweep_run import FAILED, LEFT, THERE, TUNED
from synthetic_splits import DEAR_PROGRAMS, DEFAULT, REQUEST, SHAPE, SPLITS, SplitsOnPaper, conditions


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "tuning.db") as database:
        yield database


def seconds_of(policy, prices=DEAR_PROGRAMS):
    return sum(prices.seconds(SHAPE.load(each, parse_policy(policy))) for each in SPLITS.conditions)


def test_a_better_policy_is_found_recorded_and_not_looked_for_again(database):
    runner, said = SplitsOnPaper(DEAR_PROGRAMS), []
    outcome = splits.tune(SPLITS, runner, database, say=said.append)
    entry = outcome.entry
    assert entry.schedule != DEFAULT == entry.default and entry.status == OK and outcome.finished
    assert seconds_of(entry.schedule) < 0.9 * seconds_of(DEFAULT)
    hardest = conditions(16384, 4, 16)
    assert entry.key.conditions == str(hardest) and entry.samples == ROUNDS
    assert entry.seconds == pytest.approx(runner.seconds(hardest, entry.schedule), rel=0.05)
    assert any("prices: step" in line for line in said) and any("faster than the default" in line for line in said)
    assert database.entries("split:") == [entry] and database.verify() == []
    assert {trial.key.conditions for trial in database.trials()} == {str(each) for each in SPLITS.conditions}
    count = len(runner.timed)
    again = splits.tune(SPLITS, runner, database)
    assert again.was_there and again.entry == entry and len(runner.timed) == count
    assert not splits.tune(SPLITS, runner, database, again=True).was_there and len(runner.timed) > count


MEMORY_ALONE = Prices(0.0, 0.0, 0.0, 0.0, 2e-9, 0.0)  # all policies are alike


def test_the_default_stays_where_it_is_best(database):
    runner = SplitsOnPaper(MEMORY_ALONE)
    assert splits.tune(SPLITS, runner, database).entry.schedule == DEFAULT


@pytest.mark.parametrize("seed", range(4))
def test_the_default_stays_where_nobody_can_tell(database, monkeypatch, seed):
    monkeypatch.setattr(splits, "choose", lambda *_: (exactly(512), 0.99))
    assert splits.tune(SPLITS, SplitsOnPaper(MEMORY_ALONE, "all", seed=seed), database).entry.schedule == DEFAULT


def test_a_choice_that_the_measurement_contradicts_is_not_taken(database, monkeypatch):
    monkeypatch.setattr(splits, "choose", lambda *_: (exactly(256), 0.5))
    runner = SplitsOnPaper(DEAR_PROGRAMS)
    assert splits.tune(SPLITS, runner, database).entry.schedule == DEFAULT
    assert str(exactly(256)) in {name for _, name in runner.timed}


def test_what_loses_much_anywhere_is_not_taken(database, monkeypatch):
    """It is twice as fast everywhere else."""
    other, lost = str(exactly(512)), conditions(4096, 4, 2)
    monkeypatch.setattr(splits, "choose", lambda *_: (exactly(512), 0.5))
    for loss, taken in ((1.2, DEFAULT), (1.05, other)):
        runner = SplitsOnPaper(MEMORY_ALONE)
        runner.seconds = lambda where, policy, loss=loss: (
            1e-3 if policy == DEFAULT else loss * 1e-3 if where == lost else 5e-4
        )
        assert splits.tune(SPLITS, runner, database, again=True).entry.schedule == taken


def test_one_disturbed_condition_hides_no_gain(database, monkeypatch):
    monkeypatch.setattr(splits, "choose", lambda *_: (exactly(512), 0.95))
    runner, rng, disturbed = SplitsOnPaper(MEMORY_ALONE), random.Random(1), conditions(16384, 4, 2)
    runner.seconds = lambda where, policy: (
        (1e-3 if policy == DEFAULT else 0.96e-3) * (rng.uniform(1, 3) if where == disturbed else 1)
    )
    assert splits.tune(SPLITS, runner, database).entry.schedule == str(exactly(512))


def test_a_wrong_policy_is_never_timed_or_taken(database, monkeypatch):
    wrong = str(exactly(16384))
    runner = SplitsOnPaper(DEAR_PROGRAMS, wrong=(wrong,))
    outcome = splits.tune(SPLITS, runner, database)
    assert wrong not in {name for _, name in runner.timed} and outcome.failures["wrong"] > 0
    assert outcome.entry.schedule not in (wrong, DEFAULT)
    monkeypatch.setattr(splits, "choose", lambda *_: (exactly(16384), 0.5))
    assert splits.tune(SPLITS, runner, database, again=True).entry.schedule == DEFAULT


def test_where_the_default_is_wrong_the_entry_says_so(database):
    entry = splits.tune(SPLITS, SplitsOnPaper(wrong=(DEFAULT,)), database).entry
    assert entry.status == "wrong" and entry.seconds is None and "deviates" in entry.message
    assert not winners.choose(None, entry)


def test_a_budget_ends_it_with_an_answer_and_what_was_sampled_counts(database):
    runner = SplitsOnPaper(DEAR_PROGRAMS)
    outcome = splits.tune(SPLITS, runner, database, budget=Budget(1e-9, clock=runner.clock))
    assert not outcome.finished and outcome.entry.seconds > 0
    assert {name for name, _ in runner.timed} == {str(SPLITS.ordered[0])}
    database.prune(request_begins=REQUEST, before="1970")  # nothing
    database._connection.execute("DELETE FROM entry")
    first = {trial.schedule for trial in database.trials() if len(trial.samples) == LEAST_ROUNDS}
    runner.timed.clear()
    splits.tune(SPLITS, runner, database)
    fit_again = [name for where, name in runner.timed if where == str(SPLITS.ordered[0])]
    assert first and not first & set(fit_again)


def test_the_hardest_condition_comes_first_and_the_easiest_next():
    ordered = SPLITS.ordered
    assert ordered[0] == conditions(16384, 4, 16) and ordered[1] == conditions(1024, 1, 1)
    assert set(ordered) == set(SPLITS.conditions) and len(ordered) == 24
    with pytest.raises(InvalidArgument, match="in no condition"):
        SplitProblem(REQUEST, "x86-64-v4", ())
    assert splits.all_threads()[0] == 1 and sorted(set(splits.all_threads())) == splits.all_threads()


def test_one_budget_for_several_and_words_for_each(database):
    other = problem_of(REQUEST.replace("heads8", "heads2"), "x86-64-v4", contexts=(1024,), batches=(1,), threads=(1,))
    runner = SplitsOnPaper(DEAR_PROGRAMS)
    worker = SplitWorker(lambda target: runner)
    done = list(winners.tune_all([SPLITS, other], worker, database, 10.0, clock=runner.clock))
    assert [each.how for each in done] == [TUNED, TUNED] and done[0].text.startswith("tokens=")
    again = winners.tune_all([SPLITS, other], worker, database, 10.0, clock=runner.clock)
    assert [each.how for each in again] == [THERE, THERE]
    third = problem_of(REQUEST.replace("heads8", "heads4"), "x86-64-v4")
    clock = iter([0.0, 1.0]).__next__
    (left,) = winners.tune_all([third], worker, database, 0.5, clock=clock)
    assert left.how == LEFT and left.problem.request == third.request
    broken = SplitWorker(lambda target: SplitsOnPaper(wrong=(DEFAULT,)))
    (failed,) = winners.tune_all([third], broken, database)
    assert failed.how == FAILED and "no schedule works" in failed.text
