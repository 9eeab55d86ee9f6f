# SPDX-License-Identifier: Apache-2.0
"""Schedules of GPUs that are not here, ranked by the static model. Skipped where ptxas and nvdisasm are not installed."""

import pytest
from kvq.errors import Error, Unsupported
from kvq.inspect import tools
from kvq.tune.database import Database
from kvq.tune.kernel_requests import Shape, request
from kvq.tune.kernels import make_runner
from kvq.tune.prediction import PROGRAMS
from kvq.tune.problem import Conditions, Infeasible, Predictor, Problem
from kvq.tune.tuner import predict

TARGET = "nvptx:sm_90"
TEXT = request("attend", "kvq-4", Shape(8, 2, 64, 64, "f16"), TARGET)


def problem(text=TEXT, tokens=32768):
    return Problem(text, TARGET, Conditions(tokens=tokens, heads=2))


@pytest.fixture(scope="module")
def predictor():
    try:
        for program in PROGRAMS:
            tools.find(program)
    except Unsupported as error:
        pytest.skip(str(error))
    return make_runner(TARGET)


def test_all_schedules_are_ranked_and_marked(predictor, tmp_path):
    assert isinstance(predictor, Predictor) and predictor.machine.target == TARGET
    assert predictor.machine.vector["name"] == "H100"
    space = predictor.space(problem())
    with Database(tmp_path / "tuning.db") as database:
        entry = predict(problem(), predictor, database).entry
        trials = database.trials()
    assert {trial.schedule for trial in trials} == set(space.schedules) and all(trial.predicted for trial in trials)
    assert entry.predicted and entry.seconds == min(trial.seconds for trial in trials if trial.seconds)
    assert len({trial.seconds for trial in trials}) > 1, "the model does not tell schedules apart"


def test_times_go_with_the_elements(predictor):
    default = predictor.space(problem()).default
    times = [predictor.predict(problem(tokens=tokens), default) for tokens in (8192, 32768)]
    assert times[1] == pytest.approx(4 * times[0])


def test_what_is_not_legal_or_not_modelled_is_said(predictor):
    with pytest.raises(Infeasible, match="tile_tokens"):
        predictor.predict(problem(), "tile_tokens=63,rows=8,vectors=8,prefetch=1")
    with pytest.raises(Unsupported, match="merge is not predicted: the model knows launches of attend"):
        predictor.space(problem(request("merge", "kvq-4", Shape(8, 2, 64, 64, "f16"), TARGET)))


@pytest.mark.parametrize(("variable", "program"), [("KVQ_PTXAS", "ptxas"), ("KVQ_NVDISASM", "nvdisasm"),
                                                   ("KVQ_PTX_RUN", "ptx-run"), ("KVQ_KVQC", "kvqc")])  # fmt: skip
def test_a_missing_program_is_named_in_one_sentence(predictor, monkeypatch, variable, program):
    monkeypatch.setenv(variable, "/no/such/program")
    with pytest.raises(Error, match=f"{variable} is /no/such/program.*{program}") as found:
        make_runner(TARGET)
    assert "\n" not in str(found.value)
