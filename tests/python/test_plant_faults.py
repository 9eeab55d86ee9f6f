# SPDX-License-Identifier: Apache-2.0
"""The fault check itself: a stale, missed or broken fault is never counted as caught, and nothing stays changed."""
import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"kvq_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="script", scope="module")
def load_plant_faults():
    return load_script("plant_faults")


class Runner:
    """Stands in for a test executable: its test fails when the file has `bad` in it."""

    def __init__(self, file, build_error="", result=None):
        self.file, self.build_error, self.result = file, build_error, result

    def build(self):
        return self.build_error

    def run(self, tests):
        state = self.result or ("failed" if "bad" in self.file.read_text(encoding="utf-8") else "passed")
        return dict.fromkeys(tests, state)


@pytest.fixture(name="check")
def make_check(script, tmp_path):
    """Checks one fault in a tree of one file, which must be as before afterwards."""

    def check(old, new, **runner):
        file = tmp_path / "source.cpp"
        file.write_text("one good line\nand another line\n", encoding="utf-8")
        fault = script.Fault("name", file.name, old, new, "runner", "Suite.Test")
        problem = script.check(fault, tmp_path, Runner(file, **runner))
        assert file.read_text(encoding="utf-8") == "one good line\nand another line\n"
        return problem

    return check


def test_a_fault_that_fails_its_test_is_caught(check):
    assert check("good", "bad") is None


def test_a_fault_that_no_test_notices_is_not_caught(check):
    assert check("good", "better") == "with the fault, Suite.Test passed"


@pytest.mark.parametrize("old, count", [("gone", 0), ("line", 2)])
def test_text_that_is_not_there_exactly_once_is_stale(check, old, count):
    assert f"stale: its text stands {count} times in source.cpp" in check(old, "bad")


def test_a_fault_that_changes_nothing_and_a_missing_file_are_stale(check, script, tmp_path):
    assert "same" in check("good", "good")
    fault = script.Fault("name", "gone.cpp", "good", "bad", "runner", "Suite.Test")
    assert script.check(fault, tmp_path, Runner(tmp_path)) == "stale: there is no file gone.cpp"


def test_a_fault_that_does_not_build_is_not_caught(check):
    assert "does not build" in check("good", "bad", build_error="expected ';'")


@pytest.mark.parametrize("state", ["had an error", "was skipped", "ran longer than 120 s"])
def test_only_a_failed_test_counts(check, state):
    assert check("good", "bad", result=state) == f"with the fault, Suite.Test {state}"


def test_a_test_that_fails_without_the_fault_shows_nothing(script, tmp_path):
    (tmp_path / "source.cpp").write_text("already bad\n", encoding="utf-8")
    fault = script.Fault("name", "source.cpp", "already", "still", "runner", "Suite.Test")
    ((_, problem, _),) = script.judge([fault], {"runner": Runner(tmp_path / "source.cpp")})
    assert problem == "without the fault, Suite.Test failed"


def test_states_of_both_kinds_of_report(script, tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="A" name="passes" status="run"/>'
        '<testcase classname="A" name="fails"><failure message="no"/></testcase>'
        '<testcase classname="A" name="breaks"><error message="no"/></testcase>'
        '<testcase classname="A" name="off" status="notrun"/></testsuite></testsuites>', encoding="utf-8")
    assert script.states(report, lambda suite, name: f"{suite}.{name}") == {
        "A.passes": "passed", "A.fails": "failed", "A.breaks": "had an error", "A.off": "was skipped"}
    assert script.states(report, lambda suite, name: name, "no")["fails"] == "failed"
    assert script.states(report, lambda suite, name: name, "AssertionError")["fails"] == "had an error"


def test_a_star_stands_for_cases_of_which_one_must_fail(script):
    found = {"A.t/x": "passed", "A.t/y": "failed", "A.t/z": "was skipped", "A.u": "passed"}
    assert script.of_tests(found, ["A.t/*", "A.u", "A.v", "A.t"]) == {"A.t/*": "failed", "A.u": "passed"}
    del found["A.t/y"]
    assert script.of_tests(found, ["A.t/*"]) == {"A.t/*": "was skipped"}  # which is no proof that all pass
    assert script.matches("f.py::t[*-k4c32-1.0]", "f.py::t[x86-64-k4c32-1.0]")
    assert not script.matches("f.py::t[*-k4c32-1.0]", "f.py::t[x86-64-k4c32-100]")


def test_compiler_faults_build_the_compiler_and_others_do_not(script):
    for fault in script.load(script.FAULTS):
        of_compiler = fault.file.startswith(("passes/", "codegen/", "dialect/"))
        assert (script.runner_named(fault.runner, 1).copy == script.COMPILER) == of_compiler, fault.name


def test_a_file_of_faults_is_checked(script, tmp_path):
    path = tmp_path / "faults.toml"
    entry = '[[fault]]\nname = "a"\nfile = "f"\nold = "x"\nnew = "y"\nrunner = "r"\n'
    path.write_text(entry, encoding="utf-8")
    with pytest.raises(script.BadFault, match="fault 'a' must have exactly the keys"):
        script.load(path)
    path.write_text(2 * (entry + 'test = "T.t"\n'), encoding="utf-8")
    with pytest.raises(script.BadFault, match="two faults are named 'a'"):
        script.load(path)


def test_no_fault_of_the_project_is_stale(script):
    faults = script.load(script.FAULTS)
    assert len(faults) >= 10
    for fault in faults:
        text = (ROOT / fault.file).read_text(encoding="utf-8")
        assert script.planted(fault, text) != text


def test_faults_run_only_when_asked_for():
    runner = load_script("run_tests")
    assert "faults" not in runner.chosen(runner.parse([]))
    assert "faults" not in runner.chosen(runner.parse(["--fast"]))
    assert runner.chosen(runner.parse(["--full"])) == [name for name in runner.RUNNERS if name != "gpu"]
    assert runner.chosen(runner.parse(["--only", "faults"])) == ["faults"]
