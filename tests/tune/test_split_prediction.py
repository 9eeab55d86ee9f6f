# SPDX-License-Identifier: Apache-2.0
"""Split policies of GPUs that are not here, by the static model. Skipped where ptxas and nvdisasm are not installed."""

from dataclasses import replace

import pytest
from kvq.cli import main
from kvq.errors import Unsupported
from kvq.inspect import gpus, tools
from kvq.tune import splits, winners
from kvq.tune.capability import accelerator
from kvq.tune.database import Database
from kvq.tune.kernel_requests import Shape, bytes_read
from kvq.tune.prediction import PROGRAMS
from kvq.tune.problem import Conditions, Problem
from kvq.tune.rows import Entry
from kvq.tune.split_policy import ACCELERATOR, attend_request, exactly, split_request
from kvq.tune.split_prediction import SplitPredictor
from kvq.tune.split_worker import SplitWorker, StepPredictor, predict
from kvq.tune.splits import problem_of
from kvq.tune.sweep_run import FAILED, PREDICTED, THERE
from tune_command import run

TARGET = "nvptx:sm_90"
REQUEST = split_request("kvq-4", Shape(32, 8, 128, 128, "f16"), TARGET)
SPLITS = problem_of(REQUEST, TARGET)
ON_PAPER = ["splits", "q_heads=32,kv_heads=8,d=128", "kvq-4"]


@pytest.fixture(scope="module", autouse=True)
def programs():
    try:
        for program in PROGRAMS:
            tools.find(program)
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def predictor():
    return SplitPredictor(TARGET)


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "tuning.db") as database:
        yield database


def test_prices_are_of_the_datasheet_and_the_kernels(predictor):
    assert isinstance(predictor, StepPredictor) and predictor.machine == accelerator(TARGET, "H100")
    gpu, prices = gpus.GPUS["H100"], predictor.predicted_prices(SPLITS.problem)
    assert prices.step == prices.wake == 0.0
    text, heads = attend_request(REQUEST)
    packed = bytes_read(text, Conditions(tokens=1 << 20, heads=1)) / (1 << 20)
    least = packed / gpu.bandwidth_gb_s * 1e-9
    assert least <= prices.read <= 1.2 * least  # the memory is what limits it
    assert prices.read * predictor.resident(SPLITS.problem) > prices.token > 10 * prices.read  # full, it is enough
    assert prices.program > 3 * gpu.latency_ns * 1e-9 and prices.program < 10e-6
    # ptxas unrolls the loop over parts by four, and loads all four before it waits for the first.
    assert gpu.second_level_ns * 1e-9 / 4 <= prices.merge < gpu.second_level_ns * 1e-9
    programs = predictor.resident(SPLITS.problem) / gpu.multiprocessors
    assert programs == int(programs) and 1 <= programs <= 16  # a block is a program


def test_prices_follow_the_figures_of_the_gpu(predictor):
    """H200 is an H100 with a faster memory, A100 has fewer multiprocessors and a slower one."""
    usual, wide = predictor.predicted_prices(SPLITS.problem), SplitPredictor(TARGET, "H200").predicted_prices(SPLITS.problem)
    assert wide.read == pytest.approx(usual.read * 3350 / 4800) and wide.token == usual.token
    assert wide.merge == usual.merge and wide.program < usual.program
    older = SplitPredictor("nvptx:sm_80", "A100")
    problem = problem_of(REQUEST, "nvptx:sm_80").problem
    assert older.predicted_prices(problem).read > usual.read
    assert older.resident(problem) < predictor.resident(SPLITS.problem)
    short = split_request("kvq-2", Shape(32, 8, 128, 128, "f16"), TARGET)
    assert predictor.predicted_prices(Problem(short, TARGET, Conditions())).read < 0.7 * usual.read  # half the codes


def test_the_best_by_the_model_is_recorded_and_marked(predictor, database):
    said = []
    outcome = predict(SPLITS, predictor, database, say=said.append)
    entry = outcome.entry
    assert entry.predicted and entry.default == str(ACCELERATOR) and entry.samples == 0 and entry.noise is None
    assert database.entries() == [entry] and database.verify() == []
    trials = database.trials()
    assert trials and all(trial.predicted and not trial.samples and trial.seconds > 0 for trial in trials)
    assert {trial.key.conditions for trial in trials} == {str(each) for each in SPLITS.conditions}
    assert {trial.schedule for trial in trials} == {entry.schedule, entry.default}
    assert "predicted prices: step 0 us" in said[0] and f"{predictor.resident(SPLITS.problem)} programs at once" in said[0]
    assert predict(SPLITS, predictor, database).was_there and database.trials() == trials
    assert not predict(SPLITS, predictor, database, again=True).was_there
    assert not winners.choose(None, entry)


def test_a_measured_entry_takes_the_place_of_a_predicted_one(predictor, database):
    entry = predict(SPLITS, predictor, database).entry
    assert not splits.is_done(entry, again=False)
    measured = replace(entry, schedule=str(exactly(512)), seconds=1.0, noise=0.01, samples=32, predicted=False)
    database.record([predictor.machine], (), [measured])
    assert database.entries() == [measured] and splits.is_done(measured, again=False)
    assert not splits.is_done(measured, again=True)
    assert predict(SPLITS, predictor, database).entry == measured


def test_a_worker_says_what_is_predicted_and_what_fails(predictor, database):
    worker = SplitWorker(lambda target: predictor)
    done = [each.how for _ in range(2) for each in winners.tune_all([SPLITS], worker, database)]
    assert done == [PREDICTED, THERE]
    wide = problem_of(REQUEST.replace(":g4:", ":g64:"), TARGET)  # more heads than the workload of the model has
    (failed,) = winners.tune_all([wide], worker, database)
    assert failed.how == FAILED and "fewer rows than query heads" in failed.text
    assert len(database.entries()) == 1


def choices(store):
    """Files in which a policy is chosen."""
    return [path for path in store.rglob("*") if path.is_file() and b"split:" in path.read_bytes()]


def test_the_commands_mark_it_and_choose_nothing(folder, capsys):
    code, out, err = run(capsys, *ON_PAPER, "--gpu", "h200")
    assert code == 0 and out.startswith("1 predicted; 0 chosen; ") and f"{REQUEST}\n  predicted: tokens=" in err, out + err
    assert not choices(folder / "store")
    with Database(folder / "tuning.db", readonly=True) as database:
        (entry,), (machine,) = database.entries(), database.machines().values()
    assert entry.predicted and machine == accelerator(TARGET, "H200")
    shown = run(capsys, "show", "--request", "split:")[1]
    assert "H200 (nvptx:sm_90)" in shown and "predicted" in shown and "measured" not in shown
    assert run(capsys, *ON_PAPER, "--gpu", "H200", "-q")[1].startswith("already tuned: 1 split policies")
    assert run(capsys, "export", folder / "rows.jsonl")[0] == 0
    assert run(capsys, "import", folder / "rows.jsonl", "--db", folder / "other.db")[0] == 0
    with Database(folder / "other.db", readonly=True) as database:
        assert database.entries() == [entry] and isinstance(entry, Entry)
    assert run(capsys, "report", folder / "report.html")[0] == 0
    page = (folder / "report.html").read_text()
    assert REQUEST in page and "predicted" in page


def test_nothing_of_it_is_packed(folder, capsys):
    """As no policy is: what is packed for a machine are its kernels' schedules."""
    assert run(capsys, *ON_PAPER, "--gpu", "H100", "-q")[0] == 0
    machine = accelerator(TARGET, "H100").text
    code = main(["prepare", *ON_PAPER[1:], "--targets", TARGET, "--store", str(folder / "pack"), "--db",
                 str(folder / "tuning.db"), "--machine", machine, "-q"])  # fmt: skip
    assert code == 0 and "schedules" not in capsys.readouterr().err
    assert any((folder / "pack").rglob("*")) and not choices(folder / "pack")
