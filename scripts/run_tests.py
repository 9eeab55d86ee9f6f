#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test runner of the project on build/release and sums what each of them counted.

It builds only what three of the runners are about (the runtime-only and the sanitizer preset, and the copies of runtime
and compiler that faults are planted in); the release build is there already. Counts come from the runners' own reports
(JUnit XML), never from a list kept here. A runner that ran nothing has failed, unless --filter deselected everything.
"""
import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "build" / "release"
REPORTS = ROOT / "build" / "test"
BIN = pathlib.Path(sys.executable).parent


@dataclasses.dataclass
class Outcome:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list = dataclasses.field(default_factory=list)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures


def run(command, **environment):
    """Runs a command with its output going where ours goes."""
    sys.stdout.flush()
    return subprocess.run([str(c) for c in command], cwd=ROOT, env={**os.environ, **environment}, check=False).returncode


def read_junit(path):
    """Counts and names of the failed tests in a JUnit file, as ctest, lit and pytest write them."""
    outcome = Outcome()
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
            outcome.failures.append(name)
        elif case.find("skipped") is not None:
            outcome.skipped += 1
        else:
            outcome.passed += 1
    return outcome


def counted(name, report, command, options, **environment):
    """Runs a runner that writes a JUnit report. A bad exit that the report does not explain is one failure more."""
    report.unlink(missing_ok=True)
    code = run(command, **environment)
    if not report.exists():
        return Outcome(failed=1, failures=[f"{name}: wrote no report, exit status {code}"])
    outcome = read_junit(report)
    nothing = outcome.passed + outcome.failed == 0
    if nothing and not options.filter:
        outcome.add(Outcome(failed=1, failures=[f"{name}: ran no test"]))
    elif code != 0 and outcome.failed == 0 and not nothing:
        outcome.add(Outcome(failed=1, failures=[f"{name}: exit status {code} though no test failed"]))
    return outcome


def checks(options, named_commands, **environment):
    """Commands that each are one check: passed when they exit with 0."""
    outcome = Outcome()
    for name, command in named_commands:
        if options.filter and options.filter not in name:
            continue
        if run(command, **environment) == 0:
            outcome.passed += 1
        else:
            outcome.add(Outcome(failed=1, failures=[name]))
    return outcome


def lint(options):
    return checks(options, [
        ("layers", [sys.executable, "scripts/layer_lint.py"]),
        ("files", [sys.executable, "scripts/file_lint.py"]),
        ("formatting", ["scripts/format.sh", "--check"]),
    ])


def docs(options):
    return checks(options, [("docs/generated is up to date", [sys.executable, "scripts/check_docs.py"])])


def ctest(name, build, options, **environment):
    report = REPORTS / f"{name}.xml"
    command = ["ctest", "--test-dir", build, "-j", options.jobs, "--progress", "--output-on-failure", "--output-junit",
               report]
    if options.filter:
        command += ["-R", options.filter, "--no-tests=ignore"]
    return counted(name, report, command, options, **environment)


def unit(options):
    return ctest("unit", RELEASE, options)


def lit(options):
    report = REPORTS / "lit.xml"
    command = [BIN / "lit", "-s", "-v", "-j", options.jobs, "--xunit-xml-output", report, RELEASE / "tests" / "lit"]
    if options.filter:
        command += ["--filter", options.filter, "--allow-empty-runs"]
    return counted("lit", report, command, options)


def workers(options, what):
    """Options of pytest: as many processes as there are jobs, each of which takes files ("loadfile") or tests ("load")."""
    return ["-n", str(options.jobs), "--dist", what] if options.jobs > 1 else []


def pytest(options):
    report = REPORTS / "pytest.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-p", "no:cacheprovider", "--durations=10",
               "--continue-on-collection-errors"]
    command += workers(options, "loadfile")  # its fixtures are made once
    command += ["--full"] * options.full + ["--fast"] * options.fast
    if options.fast:
        command += ["-m", "not model and not wheel and not bench"]
    if options.filter:
        command += ["-k", options.filter]
    # One store for all tests: what one of them compiled the next one loads. One thread of OpenMP for each worker.
    return counted("pytest", report, command + ["tests"], options, PYTHONPATH=str(RELEASE / "python"),
                   KVQ_STORE=str(store()), HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(max(1, cores() // options.jobs)))


# Of what runs in the simulator, all that a GPU can do too.
GPU_TESTS = ("ptxsim/test_device.py", "conformance/test_nvptx_shapes.py", "conformance/test_nvptx_cases.py",
             "e2e/test_three_devices.py", "e2e/test_device_cache.py", "e2e/test_score_functions.py",
             "e2e/test_model_on_ptxsim.py")


def gpu(options):
    """What runs in the simulator, on device "cuda" over this machine's driver; then its speed. Each file has processes
    of its own: a kernel that faults takes the driver's context with it. Where nothing is built, as on a machine that has
    no LLVM, it tests the kvq that is installed."""
    environment = {"KVQ_STORE": str(store()), "HF_HUB_OFFLINE": "1"}
    if RELEASE.exists():
        environment["PYTHONPATH"] = str(RELEASE / "python")
    outcome = Outcome()
    for name in GPU_TESTS:
        report = REPORTS / f"gpu-{pathlib.Path(name).stem}.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-p", "no:cacheprovider",
                   *workers(options, "load"), f"tests/{name}"]
        if options.filter:
            command += ["-k", options.filter]
        outcome.add(counted(name, report, command, options, KVQ_TEST_ACCELERATOR="cuda", **environment))
    if not options.filter:
        outcome.add(checks(options, [("bench gpu", [sys.executable, ROOT / "bench" / "run.py", "gpu"])], **environment))
    return outcome


def cores():
    return len(os.sched_getaffinity(0))


def store():
    path = ROOT / "build" / "test" / "store"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def examples(options):
    """Examples in Python; those in C are tests of ctest."""
    programs = sorted(ROOT.glob("examples/*/*.py"))
    if not programs:
        return Outcome(failed=1, failures=["examples: found no Python program below examples"])
    return checks(options, [(str(p.relative_to(ROOT)), [sys.executable, p]) for p in programs],
                  PYTHONPATH=str(RELEASE / "python"), KVQ_STORE=str(store()))


def preset_build(name, jobs):
    """Configures and builds a preset; the output is shown only where that fails."""
    for command in (["cmake", "--preset", name], ["cmake", "--build", "--preset", name, "-j", str(jobs)]):
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            print(result.stdout + result.stderr)
            return False
    return True


def runtime_only(options):
    if preset_build("runtime-only", options.jobs):
        return ctest("runtime-only", ROOT / "build" / "runtime-only", options)
    return Outcome(failed=1, failures=["building the preset runtime-only"])


def sanitize(options):
    if not preset_build("asan-ubsan", options.jobs):
        return Outcome(failed=1, failures=["building the preset asan-ubsan"])
    return ctest("sanitize", ROOT / "build" / "asan-ubsan", options, ASAN_OPTIONS="detect_leaks=1:abort_on_error=0",
                 UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1")


def faults(options):
    report = REPORTS / "faults.xml"
    command = [sys.executable, "scripts/plant_faults.py", "--jobs", options.jobs, "--junit", report]
    if options.filter:
        command += ["--filter", options.filter]
    return counted("faults", report, command, options)


RUNNERS = {
    "lint": lint, "docs": docs, "unit": unit, "lit": lit, "pytest": pytest, "examples": examples,
    "runtime-only": runtime_only, "sanitize": sanitize, "faults": faults, "gpu": gpu,
}
NOT_FAST = ("runtime-only", "sanitize")
ONLY_FULL = ("faults",)
ON_REQUEST = ("gpu",)


def chosen(options):
    """Names of the runners that run, in their order."""
    if options.only:
        return [name for name in RUNNERS if name in options.only]
    left_out = ON_REQUEST + (NOT_FAST if options.fast else ()) + (() if options.full else ONLY_FULL)
    return [name for name in RUNNERS if name not in left_out]


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev test", description="Runs every test and check.")
    parser.add_argument("--fast", action="store_true", help="no sanitizers, no runtime-only build, no wheel, no real model")
    parser.add_argument("--full", action="store_true",
                        help="the full product of formats, shapes and levels; planted faults")
    parser.add_argument("--filter", metavar="TEXT", help="only tests whose name contains TEXT")
    parser.add_argument("--only", metavar="RUNNER", action="append", choices=RUNNERS, help=", ".join(RUNNERS))
    parser.add_argument("--sanitize", dest="only", action="append_const", const="sanitize", help="--only sanitize")
    parser.add_argument("--gpu", dest="only", action="append_const", const="gpu",
                        help="--only gpu: what needs an NVIDIA GPU and its driver; never part of the others")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, default=time.time(), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.fast and options.full:
        parser.error("--fast and --full exclude each other")
    return options


def main(arguments=None):
    options = parse(arguments)
    REPORTS.mkdir(parents=True, exist_ok=True)
    total = Outcome()
    for name in chosen(options):
        begin = time.time()
        print(f"==> {name}")
        outcome = RUNNERS[name](options)
        skipped = f", {outcome.skipped} skipped" if outcome.skipped else ""
        print(f"==> {name}: {outcome.passed} passed, {outcome.failed} failed{skipped} in {time.time() - begin:.0f} s")
        total.add(outcome)
    for failure in total.failures:
        print(f"FAILED {failure}")
    print(f"all in {time.time() - options.started:.0f} s")
    nothing = total.passed + total.failed == 0
    if nothing:
        print(f"no test's name contains '{options.filter}'")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed or nothing else 0


if __name__ == "__main__":
    sys.exit(main())
