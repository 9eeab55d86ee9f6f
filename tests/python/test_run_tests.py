# SPDX-License-Identifier: Apache-2.0
"""The sum at the end of ./dev test: counts come from the runners' reports, and a silent failure is still a failure."""
import argparse
import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(name="runner", scope="module")
def load_runner():
    spec = importlib.util.spec_from_file_location("kvq_run_tests", ROOT / "scripts" / "run_tests.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


REPORT = """<testsuites><testsuite>
<testcase classname="unit" name="passes"/>
<testcase classname="unit" name="fails"><failure message="no"/></testcase>
<testcase name="breaks"><error message="no"/></testcase>
<testcase classname="unit" name="later"><skipped/></testcase>
</testsuite></testsuites>"""


def run_counted(runner, tmp_path, report, status, pattern=None):
    """Runs a stand-in for a test runner that writes `report` (None: nothing) and exits with `status`."""
    file = tmp_path / "report.xml"
    program = f"import pathlib, sys; {report!r} and pathlib.Path({str(file)!r}).write_text({report!r}); sys.exit({status})"
    return runner.counted("stand-in", file, [sys.executable, "-c", program], argparse.Namespace(filter=pattern))


def test_counts_and_names(runner, tmp_path):
    outcome = run_counted(runner, tmp_path, REPORT, 1)
    assert (outcome.passed, outcome.failed, outcome.skipped) == (1, 2, 1)
    assert outcome.failures == ["unit.fails", "breaks"]


def test_no_report_is_a_failure(runner, tmp_path):
    outcome = run_counted(runner, tmp_path, None, 0)
    assert outcome.failed == 1
    assert "wrote no report" in outcome.failures[0]


def test_old_report_is_not_counted(runner, tmp_path):
    (tmp_path / "report.xml").write_text(REPORT, encoding="utf-8")
    assert run_counted(runner, tmp_path, None, 0).passed == 0


def test_no_test_is_a_failure_unless_filtered(runner, tmp_path):
    empty = "<testsuites/>"
    assert run_counted(runner, tmp_path, empty, 0).failures == ["stand-in: ran no test"]
    assert run_counted(runner, tmp_path, empty, 5, pattern="nothing").failed == 0


def test_bad_exit_without_failed_test_is_a_failure(runner, tmp_path):
    outcome = run_counted(runner, tmp_path, '<testsuite><testcase name="a"/></testsuite>', 3)
    assert (outcome.passed, outcome.failed) == (1, 1)
    assert "exit status 3" in outcome.failures[0]


def test_a_gpu_is_used_only_when_asked_for(runner):
    for arguments in ([], ["--fast"], ["--full"]):
        assert "gpu" not in runner.chosen(runner.parse(arguments))
    assert runner.chosen(runner.parse(["--gpu"])) == ["gpu"]


def test_gpu_runs_each_file_and_the_benchmark_with_the_package(runner, monkeypatch):
    """All of them import kvq from the build tree; the benchmark is left out where a filter names tests."""
    ran = []
    monkeypatch.setattr(runner, "run", lambda command, **environment: ran.append((command[-2:], environment)) or 0)
    for pattern, last in ((None, [str(ROOT / "bench/run.py"), "gpu"]), ("some", ["-k", "some"])):
        ran.clear()
        runner.gpu(argparse.Namespace(filter=pattern, jobs=1))
        assert [str(word) for word in ran[-1][0]] == last
        assert len(ran) == len(runner.GPU_TESTS) + (pattern is None)
        assert {environment["PYTHONPATH"] for _, environment in ran} == {str(ROOT / "build/release/python")}
    assert all((ROOT / "tests" / name).is_file() for name in runner.GPU_TESTS)


def test_gpu_without_a_build_tree_tests_the_installed_package(runner, monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(runner, "run", lambda command, **environment: ran.append((command, environment)) or 0)
    monkeypatch.setattr(runner, "RELEASE", tmp_path / "absent")
    runner.gpu(argparse.Namespace(filter=None, jobs=6))
    assert not any("PYTHONPATH" in environment for _, environment in ran)
    assert all("6" == command[command.index("-n") + 1] for command, _ in ran[:-1])
