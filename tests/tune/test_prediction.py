# SPDX-License-Identifier: Apache-2.0
"""Schedules of GPUs that are not here, ranked by the static model. Skipped where ptxas and nvdisasm are not installed."""

from dataclasses import replace

import numpy as np
import pytest
from kvq import lowlevel
from kvq.errors import Error, Unsupported
from kvq.inspect import tools
from kvq.tune import budgets, simulated_launch
from kvq.tune.database import Database
from kvq.tune.kernel_requests import Shape, request
from kvq.tune.kernels import make_runner
from kvq.tune.launch_memory import ELEMENT
from kvq.tune.prediction import PROGRAMS
from kvq.tune.problem import Conditions, Infeasible, Predictor, Problem
from kvq.tune.request_fields import parse
from kvq.tune.tuner import predict
from tune_command import run

TARGET = "nvptx:sm_90"
# Bytes of an element that no launch goes without: f16 is read and written, or 4 bits on one side; merge reads f32.
LEAST_BYTES = {"append": 4, "quantize_k": 2.5, "quantize_v": 2.5, "dequantize_k": 2.5, "dequantize_v": 2.5, "merge": 4}
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
    small = problem(request("attend", "kvq-4", Shape(8, 2, 32, 32, "f16"), TARGET, page=32))
    space = predictor.space(small)
    assert len(space.schedules) > 20
    with Database(tmp_path / "tuning.db") as database:
        entry = predict(small, predictor, database).entry
        trials = database.trials()
    assert {trial.schedule for trial in trials} == set(space.schedules) and all(trial.predicted for trial in trials)
    assert entry.predicted and entry.seconds == min(trial.seconds for trial in trials if trial.seconds)
    assert len({trial.seconds for trial in trials}) > 1, "the model does not tell schedules apart"


def test_times_go_with_the_elements(predictor):
    default = predictor.space(problem()).default
    times = [predictor.predict(problem(tokens=tokens), default) for tokens in (8192, 32768)]
    assert times[1] == pytest.approx(4 * times[0])


def test_what_is_not_legal_is_said(predictor):
    with pytest.raises(Infeasible, match="tile_tokens"):
        predictor.predict(problem(), "tile_tokens=63,rows=8,vectors=8,prefetch=1")


@pytest.mark.parametrize("operation", LEAST_BYTES)
def test_kernels_besides_attend_are_predicted(predictor, tmp_path, operation):
    """By launches that the simulator runs as the reference does: a count of something else would predict nothing."""
    given = problem(request(operation, "kvq-4", Shape(8, 2, 64, 64, "f16"), TARGET), tokens=4096)
    few = simulated_launch.small(given)
    reference = lowlevel.Context("ref", threads=1, store_dir="")
    launch = simulated_launch.launch_of(few, reference)
    ptx = tools.run("kvqc", [f"--target={TARGET}", f"--request={given.request}", "--no-bundle"]).stdout
    got = simulated(simulated_launch.simulated(few, ptx, launch, tmp_path), ptx, launch, tmp_path)
    wanted = launch.run(lowlevel.open_kernel(reference, given.request))
    fields = parse(given.request)
    found = budgets.merged(fields, got, wanted) if operation == "merge" else budgets.same_bits(got, wanted)
    assert found.error <= found.allowed, found
    with Database(tmp_path / "tuning.db") as database:
        outcome = predict(given, predictor, database)
        assert outcome.entry.predicted and not outcome.failures and database.entries() == [outcome.entry]
    assert outcome.entry.schedule == outcome.entry.default and len(predictor.space(given).schedules) >= 1
    assert LEAST_BYTES[operation] * simulated_launch.elements_of(given) / 3350e9 <= outcome.entry.seconds < 1e-3
    many = replace(given, conditions=replace(given.conditions, batch=8))
    times = [predictor.predict(each, outcome.entry.schedule) for each in (given, many)]
    assert times[0] == outcome.entry.seconds and times[1] == pytest.approx(8 * times[0], rel=0.2)


def test_the_gpu_that_is_named_is_predicted_for(predictor, folder, capsys):
    """By its own figures, of a target that both run: L4's memory has a seventh of A100's rate."""
    text = request("merge", "kvq-4", Shape(8, 2, 64, 64, "f16"), TARGET)
    for gpu in ("a100", "L4"):
        code, out, _ = run(capsys, "kernel", text, "--gpu", gpu, "--target", "nvptx:sm_80")
        assert code == 0 and out.startswith("1 predicted; 0 chosen; "), out
    with Database(folder / "tuning.db", readonly=True) as database:
        machines = database.machines()
        seconds = {machines[entry.key.machine].vector["name"]: entry.seconds for entry in database.entries()}
    assert seconds["L4"] > 3 * seconds["A100"] and len(seconds) == 2


def simulated(work, ptx, launch, folder):
    """What the kernel writes in the simulator."""
    (folder / "kernel.ptx").write_text(ptx)
    files = {}
    command = [folder / "kernel.ptx", "--quiet", "--grid", ",".join(map(str, work.grid)), "--block", work.block[0]]
    for index, (text, argument) in enumerate(zip(work.arguments, [*launch.arguments, None], strict=True)):
        for name, output in launch.outputs.items():
            if output.buffer is argument:
                files[name] = folder / f"out{index}.npy"
                text = f"{text}:{files[name]}"
        command += ["--arg", text]
    tools.run("ptx-run", command)
    found = {}
    for name, file in files.items():
        output = launch.outputs[name]
        kind = ELEMENT.get(output.dtype, output.dtype)
        raw = np.load(file)[: int(np.prod(output.shape)) * np.dtype(kind).itemsize]
        found[name] = raw.view(kind).reshape(output.shape)
    return found


@pytest.mark.parametrize(("variable", "program"), [("KVQ_PTXAS", "ptxas"), ("KVQ_NVDISASM", "nvdisasm"),
                                                   ("KVQ_PTX_RUN", "ptx-run"), ("KVQ_KVQC", "kvqc")])  # fmt: skip
def test_a_missing_program_is_named_in_one_sentence(predictor, monkeypatch, variable, program):
    monkeypatch.setenv(variable, "/no/such/program")
    with pytest.raises(Error, match=f"{variable} is /no/such/program.*{program}") as found:
        make_runner(TARGET)
    assert "\n" not in str(found.value)
