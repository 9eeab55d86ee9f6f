#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants the faults of tests/faults/faults.toml one by one in a copy of the sources; the test each names must fail.

The copy, build/faults/tree, has what its runners need built once: the preset runtime-only for the runtime's, the
compiler for its own. A fault builds again only what it changes. A fault counts as caught when its test passes without
it and fails by an assertion (or dies by a signal) with it. One whose text is not in its file exactly once, that does
not compile, or whose test runs out of time is a failure. It leaves the sources alone, and needs build/release for the
faults of the Python package and for those that generated kernels show.
"""
import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAULTS = ROOT / "tests" / "faults" / "faults.toml"
WORK = ROOT / "build" / "faults"
TREE = WORK / "tree"
TEST_SECONDS = 120  # for each test


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str    # what is wrong, in a few words joined by dashes
    file: str    # relative to the repository
    old: str     # there exactly once
    new: str
    runner: str  # an executable of tests/unit, "pytest", or "kernels": pytest with kernels of the copy's compiler
    test: str    # as the runner names it; * stands for any text, such as the host's levels: one of those must fail


class BadFault(Exception):
    """A fault that cannot be planted, and why."""


def load(path):
    known = {field.name for field in dataclasses.fields(Fault)}
    faults = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]:
        if set(entry) != known:
            raise BadFault(f"{path.name}: fault '{entry.get('name')}' must have exactly the keys {sorted(known)}")
        faults.append(Fault(**entry))
    names = [fault.name for fault in faults]
    for name in names:
        if names.count(name) > 1:
            raise BadFault(f"{path.name}: two faults are named '{name}'")
    return faults


def planted(fault, text):
    """The file's text with the fault in it."""
    count = text.count(fault.old)
    if count != 1:
        raise BadFault(f"stale: its text stands {count} times in {fault.file}, it must stand there once")
    if fault.old == fault.new:
        raise BadFault("stale: old and new text are the same")
    return text.replace(fault.old, fault.new)


def check(fault, tree, runner):
    """Plants one fault, judges, and takes it out again. Returns None when it was caught, else why it was not."""
    file = tree / fault.file
    if not file.is_file():
        return f"stale: there is no file {fault.file}"
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(planted(fault, text), encoding="utf-8")
        error = runner.build()
        if error:
            return f"it does not build, so nothing was tested: {error}"
        state = runner.run([fault.test]).get(fault.test, "did not run")
    except BadFault as bad:
        return str(bad)
    finally:
        file.write_text(text, encoding="utf-8")
    return None if state == "failed" else f"with the fault, {fault.test} {state}"


def states(report, name_of, failure=""):
    """State of each test in a JUnit report. An 'error' is a test that never came to its assertions; so is a failure
    whose message does not begin with `failure`."""
    found = {}
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        skipped = case.find("skipped") is not None or case.get("status") == "notrun"
        failed = case.find("failure")
        state = ("failed" if failed is not None and failed.get("message", "").startswith(failure) else "had an error"
                 if failed is not None or case.find("error") is not None else "was skipped" if skipped else "passed")
        found[name_of(case.get("classname", ""), case.get("name", ""))] = state
    return found


def matches(test, name):
    return re.fullmatch(".*".join(map(re.escape, test.split("*"))), name) is not None


def of_tests(found, tests):
    """State of each test from those of what was run: failed where one of its cases is, else the first bad one's."""
    result = {}
    for test in tests:
        cases = [state for name, state in found.items() if matches(test, name)]
        bad = [state for state in cases if state != "passed"]
        if cases:
            result[test] = "failed" if "failed" in bad else (bad or cases)[0]
    return result


def launch(command, report, tests, name_of, environment, failure=""):
    report.unlink(missing_ok=True)
    seconds = TEST_SECONDS * len(tests)
    try:
        result = subprocess.run(command, cwd=TREE, env={**os.environ, **environment}, capture_output=True, text=True,
                                timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return dict.fromkeys(tests, f"ran longer than {seconds} s")
    if report.exists():
        return of_tests(states(report, name_of, failure), tests)
    # A report is written at the end: of a process that a fault brought down there is none.
    return dict.fromkeys(tests, "failed" if result.returncode < 0 else f"wrote no report: {result.stderr[-300:]}")


@dataclasses.dataclass(frozen=True)
class Build:
    """A preset of CMake in the copy."""

    preset: str
    options: tuple = ()

    @property
    def folder(self):
        return TREE / "build" / self.preset

    def configure(self):
        result = subprocess.run(["cmake", "--preset", self.preset, *self.options], cwd=TREE, capture_output=True,
                                text=True, check=False)
        if result.returncode != 0:
            raise BadFault(f"configuring the copy failed: {result.stderr[-2000:]}")

    def make(self, target, jobs):
        command = ["cmake", "--build", self.folder, "-j", str(jobs), "--target", target]
        result = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)
        return "" if result.returncode == 0 else result.stdout[-2000:] + result.stderr[-500:]


RUNTIME = Build("runtime-only")
COMPILER = Build("release", ("-DKVQ_PYTHON=OFF", "-DKVQ_BENCH=OFF"))


class GoogleTest:
    """One executable of tests/unit in the copy."""

    def __init__(self, executable, jobs):
        self.executable, self.jobs = executable, jobs
        compiler = executable == "kvq_unit_compiler"
        self.copy = COMPILER if compiler else RUNTIME
        self.path = self.copy.folder / "tests" / "unit" / ("codegen" if compiler else "") / executable

    def build(self):
        return self.copy.make(self.executable, self.jobs)

    def run(self, tests):
        report = WORK / "gtest.xml"
        command = [self.path, f"--gtest_filter={':'.join(tests)}", f"--gtest_output=xml:{report}"]
        if len(tests) == 1:
            command.append("--gtest_fail_fast")
        return launch(command, report, tests, lambda suite, name: f"{suite}.{name}", {"KVQ_TEST_DEVICE": "ref"})


class Pytest:
    """The Python package of the copy over the native module of build/release, on the reference device."""

    copy = None
    failure = ""
    # A file that a fault changed may keep its time and size, by which Python would take its old bytecode. The module
    # looks for libkvq.so beside the tree that it was built in, where the copy has none.
    environment = {"KVQ_TEST_DEVICE": "ref", "PYTHONPATH": str(TREE / "python"), "PYTHONDONTWRITEBYTECODE": "1",
                   "HF_HUB_OFFLINE": "1", "LD_LIBRARY_PATH": str(ROOT / "build" / "release" / "lib")}

    def build(self):
        native = list((ROOT / "build" / "release" / "python" / "kvq").glob("_native*.so"))
        if len(native) != 1:
            return "build/release has no Python module: ./dev build"
        link = TREE / "python" / "kvq" / native[0].name
        link.unlink(missing_ok=True)
        link.symlink_to(native[0])
        return ""

    def named(self, tests):
        """What to name to pytest, which knows no *."""
        if not any("*" in test for test in tests):
            return tests
        files = sorted({test.split("::")[0] for test in tests})
        command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *files]
        listed = subprocess.run(command, cwd=TREE, env={**os.environ, **self.environment}, capture_output=True,
                                text=True, check=False)
        return [line for line in listed.stdout.splitlines() if any(matches(test, line) for test in tests)]

    def run(self, tests):
        report = WORK / "pytest.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        if len(tests) == 1:
            command.append("-x")
        command += self.named(tests) or tests
        return launch(command, report, tests, lambda module, name: f"{module.replace('.', '/')}.py::{name}",
                      self.environment, self.failure)


class Kernels(Pytest):
    """The same with kernels that the copy's compiler generates. One that it refuses shows no wrong result."""

    copy = COMPILER
    failure = "AssertionError"
    environment = {**Pytest.environment, "KVQ_COMPILER": str(COMPILER.folder / "lib" / "libkvq-compiler.so")}

    def __init__(self, jobs):
        self.jobs = jobs

    def build(self):
        return super().build() or self.copy.make("kvq-compiler", self.jobs)


def runner_named(name, jobs):
    if name == "pytest":
        return Pytest()
    return Kernels(jobs) if name == "kernels" else GoogleTest(name, jobs)


def copy_sources():
    """Brings the copy up to date. Files that are the same stay untouched, so that ninja leaves them alone."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise BadFault(f"git cannot list the sources, run this in a clone of the repository: {listed.stderr.strip()}")
    wanted = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    if TREE.exists():
        for file in list(TREE.rglob("*")):
            name = file.relative_to(TREE).as_posix()
            if name not in wanted and not name.startswith("build/") and (file.is_file() or file.is_symlink()):
                file.unlink()
    for name in sorted(wanted):
        target = TREE / name
        if target.exists() and target.read_bytes() == (ROOT / name).read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)


def prepare(faults, jobs):
    """Copies, configures, builds. Returns the runners by name."""
    copy_sources()
    runners = {name: runner_named(name, jobs) for name in sorted({fault.runner for fault in faults})}
    for build in {runner.copy: None for runner in runners.values() if runner.copy}:
        build.configure()
    for name, runner in runners.items():
        error = runner.build()
        if error:
            raise BadFault(f"{name} does not build without any fault: {error}")
    return runners


def judge(faults, runners):
    """Yields each fault, why it was not caught (None: it was), and the seconds it took."""
    clean = {}
    for name, runner in runners.items():
        clean[name] = runner.run(sorted({fault.test for fault in faults if fault.runner == name}))
    # Faults of one file follow each other: the file is compiled once for each, and not once more in between.
    for fault in sorted(faults, key=lambda fault: (fault.runner, fault.file)):
        begin = time.time()
        state = clean[fault.runner].get(fault.test, "does not exist")
        problem = (check(fault, TREE, runners[fault.runner]) if state == "passed"
                   else f"without the fault, {fault.test} {state}")
        yield fault, problem, time.time() - begin


def write_junit(path, results):
    suite = xml.etree.ElementTree.Element("testsuite", name="faults")
    for name, problem, seconds in results:
        case = xml.etree.ElementTree.SubElement(suite, "testcase", classname="faults", name=name, time=f"{seconds:.1f}")
        if problem:
            xml.etree.ElementTree.SubElement(case, "failure", message=problem)
    path.parent.mkdir(parents=True, exist_ok=True)
    xml.etree.ElementTree.ElementTree(suite).write(path, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Plants faults in a copy of the sources; each must fail its test.")
    parser.add_argument("--filter", metavar="TEXT", default="", help="only faults whose name or file contains TEXT")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--junit", type=pathlib.Path, default=WORK / "faults.xml", help="where the report goes")
    options = parser.parse_args(arguments)
    results = []
    try:
        faults = [fault for fault in load(FAULTS) if options.filter in fault.name or options.filter in fault.file]
        for fault, problem, seconds in judge(faults, prepare(faults, options.jobs)):
            results.append((fault.name, problem, seconds))
            verdict = f"NOT CAUGHT {fault.name}: {problem}" if problem else f"caught {fault.name}: {fault.test}"
            print(f"{verdict} ({seconds:.0f} s)", flush=True)
    except BadFault as bad:
        print(bad)
        results.append(("preparation", str(bad), 0))
    write_junit(options.junit, results)
    return 1 if any(problem for _, problem, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
