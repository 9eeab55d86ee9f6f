# SPDX-License-Identifier: Apache-2.0
"""The order of work for one problem: checked before timed, failures counted and kept, cold and warm inputs,
children."""

from dataclasses import replace

import child_runners
import numpy as np
import pytest
import synthetic
from kvq.errors import InvalidArgument
from kvq.tune import check_data, measure
from kvq.tune.capability import last_level_bytes
from kvq.tune.database import Database
from kvq.tune.estimator import ROUNDS
from kvq.tune.isolation import ChildProcess
from kvq.tune.lookup import DEFAULT, lookup
from kvq.tune.measure import Bench, Settings
from kvq.tune.problem import CheckCase, Conditions, Space
from kvq.tune.search import Budget
from kvq.tune.tuner import predict, tune
from made_rows import COMPILER, KEY, MACHINE, PROBLEM, other_machine

TIMES = {"rows=1": 2e-3, "rows=2": 1.5e-3, "rows=3": 1e-3, "rows=4": 0.5e-3}
WARM = replace(PROBLEM, conditions=Conditions(cache="warm"))


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "tuning.db") as database:
        yield database


def bench(runner, problem=PROBLEM, **settings):
    return Bench(runner, problem, Settings(**settings), Budget())


# -- the gate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", ["wrong", "nan"])
def test_the_fastest_candidate_is_wrong_and_never_becomes_an_entry(database, fails):
    runner = synthetic.SyntheticRunner(TIMES, fails={"rows=4": fails})
    outcome = tune(PROBLEM, runner, database)
    assert outcome.entry.schedule == "rows=3" and outcome.failures == {"wrong": 1}
    assert "rows=4" not in runner.timed()
    trial = {trial.schedule: trial for trial in database.trials()}["rows=4"]
    assert (trial.status, trial.seconds, trial.samples) == ("wrong", None, ())
    assert trial.message.startswith("on the data '") and "deviates by" in trial.message
    assert [entry.schedule for entry in database.entries()] == ["rows=3"]


def test_a_candidate_that_is_right_on_normal_values_alone_is_wrong(database):
    """The synthetic one fails where the data has outliers."""
    runner = synthetic.SyntheticRunner(TIMES, fails={"rows=4": "wrong"})
    assert tune(PROBLEM, runner, database, settings=Settings(cases=measure.CASES[:1])).entry.schedule == "rows=4"
    assert tune(PROBLEM, runner, database, again=True).entry.schedule == "rows=3"


def test_every_case_is_checked_before_anything_is_timed(database):
    runner = synthetic.SyntheticRunner(TIMES)
    tune(PROBLEM, runner, database)
    first = runner.events.index(("time", runner.timed()[0]))
    before = runner.events[:first]
    assert {event[1:] for event in before if event[0] == "check"} == {
        (name, case.name) for name in TIMES for case in measure.CASES}
    assert not [event for event in runner.events[first:] if event[0] == "compile"]


def test_failures_are_counted_by_kind_and_kept_with_their_message(database):
    fails = {"rows=1": "infeasible", "rows=2": "crashed", "rows=4": "timed out"}
    runner = synthetic.SyntheticRunner(TIMES, fails=fails)
    outcome = tune(PROBLEM, runner, database)
    assert outcome.entry.schedule == "rows=3" and outcome.entry.default == "rows=1"
    found = {trial.schedule: (trial.status, trial.message) for trial in database.trials()}
    assert found["rows=1"] == ("infeasible", "too many registers: 300 of 255")
    assert found["rows=2"] == ("crashed", "the device was lost")
    assert found["rows=4"] == ("timed out", "it did not end within 5 s")
    assert outcome.failures["crashed"] == outcome.failures["timed out"] == 1 and outcome.failures["infeasible"] >= 1


def test_a_mistake_of_the_runner_is_not_a_candidates_failure(database):
    runner = synthetic.SyntheticRunner(TIMES, fails={"rows=2": "mistake"})
    with pytest.raises(KeyError, match="a mistake of the runner"):
        tune(PROBLEM, runner, database)
    assert all(workload.closed for workload in runner.workloads)
    assert database.trials() == [] == database.entries()


def test_where_nothing_works_the_entry_says_why_and_a_lookup_is_default(database):
    runner = synthetic.SyntheticRunner(TIMES, fails=dict.fromkeys(TIMES, "infeasible"))
    outcome = tune(PROBLEM, runner, database)
    assert (outcome.entry.status, outcome.entry.schedule) == ("infeasible", "rows=1")
    assert outcome.entry.message == "too many registers: 300 of 255" and outcome.entry.seconds is None
    assert lookup(database, PROBLEM, MACHINE, COMPILER).how == DEFAULT
    assert tune(PROBLEM, runner, database).was_there


def test_the_default_stays_where_nothing_is_measurably_faster(database):
    runner = synthetic.SyntheticRunner({"rows=1": 1.001e-3, "rows=2": 1e-3, "rows=3": 1.002e-3})
    assert tune(PROBLEM, runner, database).entry.schedule == "rows=1"


def test_the_finalists_are_sampled_once_more_in_common_rounds(database):
    runner = synthetic.SyntheticRunner(synthetic.landscape(0))
    tune(PROBLEM, runner, database)
    last, again = runner.timed()[-6 * ROUNDS : -2 * ROUNDS], runner.timed()[-2 * ROUNDS :]
    assert len(set(last)) == 4 and runner.default in last
    assert all(last.count(name) == ROUNDS for name in set(last))
    assert all(len(set(last[at : at + 4])) == 4 for at in range(0, len(last), 4))  # each once a round
    assert set(again) < set(last) and again.count(runner.default) == ROUNDS == len(again) // 2  # against the winner


# -- inputs ------------------------------------------------------------------------------------------------------------


def test_cold_inputs_exceed_the_last_level_cache_and_come_in_turn(database):
    runner = synthetic.SyntheticRunner(TIMES)
    tune(PROBLEM, runner, database)
    (workload,) = runner.workloads
    assert workload.closed and workload.copies * runner.workload_bytes(PROBLEM) >= 2 * last_level_bytes(MACHINE)
    used = [copy for copies in workload.used for copy in copies]
    assert used == [index % workload.copies for index in range(len(used))] and len(used) > workload.copies


def test_warm_inputs_are_one_copy_that_was_read_just_before(database):
    runner = synthetic.SyntheticRunner(TIMES)
    tune(WARM, runner, database)
    (workload,) = runner.workloads
    assert workload.copies == 1
    timed = runner.timed()[2:]  # two runs find out how long a sample must be
    assert timed[0::2] == timed[1::2]  # each sample has a run of the same candidate before it


def test_a_gigabyte_is_the_most_that_is_rotated_over():
    runner = synthetic.SyntheticRunner(TIMES)
    runner.machine = other_machine(caches={"L3": 4 << 30})
    assert measure.copies_for(runner, PROBLEM) * runner.workload_bytes(PROBLEM) < (1 << 30) + (4 << 20)
    runner.workload_bytes = lambda problem: 1 << 34
    assert measure.copies_for(runner, PROBLEM) == 2


def test_a_short_kernel_runs_several_times_in_one_sample():
    runner = synthetic.SyntheticRunner({"rows=1": 1e-5})
    with bench(runner) as measured:
        ready, _ = measured.prepare(["rows=1"])
        taken, _ = measured.sample(ready, 3)
    counts = {len(copies) for copies in runner.workloads[0].used[2:]}
    assert len(counts) == 1 and 19 <= counts.pop() <= 22
    assert taken["rows=1"] == pytest.approx([1e-5] * 3, rel=0.05)


@pytest.mark.parametrize("case", [CheckCase("a", 1), CheckCase("b", 2, outliers=2, factor=30.0),
                                  CheckCase("c", 3, outliers=1, factor=8.0, dominant=True)])
def test_the_data_has_the_outliers_and_the_token_that_a_case_names(case):
    k, v = check_data.keys_and_values(case, heads=2, tokens=500, dk=64, dv=32)
    assert k.shape == (2, 500, 64) and v.shape == (2, 500, 32) and k.dtype == v.dtype == np.float32
    for values in (k, v):
        large = (np.abs(values.mean(axis=1)) > case.factor / 2) & (values.std(axis=1) > case.factor / 2)
        assert large.sum(axis=1).tolist() == [case.outliers] * 2
        assert (values.std(axis=1) > 0.8).all()
    q = check_data.queries(case, k, ratio=3)
    assert q.shape == (6, 64)
    scores = np.einsum("hrd,htd->hrt", q.reshape(2, 3, 64).astype(float), k) / 8
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    most = (shares / shares.sum(-1, keepdims=True)).max(-1)
    assert (most > 0.5).all() if case.dominant else (most < 0.5).any()
    again = check_data.keys_and_values(case, heads=2, tokens=500, dk=64, dv=32)
    assert (again[0] == k).all() and (again[1] == v).all()


# -- children ----------------------------------------------------------------------------------------------------------


def test_a_candidate_that_crashes_or_hangs_does_so_in_a_child(database):
    """In this process none of them is compiled: Dangerous would end it."""
    runner = synthetic.SyntheticRunner(child_runners.TIMES)
    with ChildProcess(child_runners.dangerous, seconds=2.0) as vetter:
        outcome = tune(PROBLEM, runner, database, settings=Settings(vetter=vetter))
    assert outcome.entry.schedule == "rows=1"
    assert outcome.failures == {"crashed": 2, "timed out": 1, "wrong": 1}
    found = {trial.schedule: trial.message for trial in database.trials(KEY)}
    assert found["rows=2"] == "its process was ended by SIGSEGV"
    assert found["rows=3"] == "it did not end within 2 s"
    assert found["rows=5"] == "its process ended with status 3"
    assert {event[1] for event in runner.events if event[0] == "compile"} == {"rows=1"}


def test_a_mistake_in_a_child_is_a_mistake(database):
    with ChildProcess(child_runners.mistaken) as vetter, pytest.raises(RuntimeError, match="KeyError: 'a mistake"):
        vetter.vet(PROBLEM, "rows=1", measure.CASES)
    with ChildProcess(child_runners.absent) as vetter, pytest.raises(RuntimeError, match="did not start"):
        vetter.vet(PROBLEM, "rows=1", measure.CASES)


# -- predictions -------------------------------------------------------------------------------------------------------


def test_predictions_are_ranked_marked_and_give_way_to_measurements(database):
    predictor = synthetic.SyntheticPredictor(TIMES, MACHINE, fails={"rows=4"})
    outcome = predict(PROBLEM, predictor, database)
    assert outcome.entry.predicted and outcome.entry.schedule == "rows=3" and outcome.failures == {"infeasible": 1}
    assert all(trial.predicted for trial in database.trials()) and len(database.trials()) == 4
    assert str(lookup(database, PROBLEM, MACHINE, COMPILER)) == "exact, predicted: rows=3"
    assert predict(PROBLEM, predictor, database).was_there
    measured = tune(PROBLEM, synthetic.SyntheticRunner(TIMES), database)
    assert not measured.was_there and measured.entry.schedule == "rows=4" and not database.entry(KEY).predicted
    assert {trial.predicted for trial in database.trials()} == {True, False}
    assert predict(PROBLEM, predictor, database).entry == measured.entry


def test_equal_predictions_leave_the_default(database):
    predictor = synthetic.SyntheticPredictor(dict.fromkeys(TIMES, 1e-3), MACHINE, default="rows=3")
    assert predict(PROBLEM, predictor, database).entry.schedule == "rows=3"


def test_a_space_must_hold_its_default_once():
    with pytest.raises(InvalidArgument, match="'rows=9' is not among the 2 legal ones"):
        Space("rows=9", ("rows=1", "rows=2"))
    with pytest.raises(InvalidArgument, match="listed twice"):
        Space("rows=1", ("rows=1", "rows=1"))
