# SPDX-License-Identifier: Apache-2.0
"""Every check has a kernel that trips it and nothing else, and their neighbours are clean.

checks/*.ptx say in comments how they are run ("run:"), which check they trip or "clean", "deadlock", "limit" ("expect:",
perhaps with a word of the message behind it), and at which lines ("<- here").
"""
import json
import pathlib

import numpy
import pytest
from sim_env import ptx_run

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = sorted((HERE / "checks").glob("*.ptx"))
CHECKS = {"bounds", "align", "uninit-register", "uninit-memory", "shared-race", "warp-race", "global-race", "in-flight",
          "barrier", "mask", "collective"}
ENDS = {"clean": ("ok", 0), "deadlock": ("deadlock", 3), "limit": ("limit", 3)}


def field(lines, name):
    marker = "// %s: " % name
    return next(line[len(marker):] for line in lines if line.startswith(marker))


def execute(path, folder, *options):
    lines = path.read_text(encoding="utf-8").splitlines()
    numpy.save(folder / "input.npy", numpy.arange(32, dtype=numpy.uint32))
    run = field(lines, "run").format(input=folder / "input.npy", output=folder / "output.npy").split()
    done = ptx_run(path, *run, *options, "--quiet", "--json", folder / "report.json")
    assert (folder / "report.json").exists(), done.stderr
    return done.returncode, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def expectation(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    kind, *word = field(lines, "expect").split()
    return kind, word, {number for number, line in enumerate(lines, 1) if line.endswith("<- here")}


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_exactly_this(path, tmp_path):
    kind, word, marked = expectation(path)
    code, report = execute(path, tmp_path)
    if kind in ENDS:
        assert (report["status"], code) == ENDS[kind], report
        assert report["findings"] == []
        if kind != "clean":
            assert "line %d" % min(marked) in report["message"]
        return
    assert code == 1 and report["status"] == "findings"
    assert {finding["check"] for finding in report["findings"]} == {kind}, report["findings"]
    assert {finding["line"] for finding in report["findings"]} == marked, report["findings"]
    for finding in report["findings"]:
        assert finding["kernel"] == "kernel" and finding["message"]
        assert all(part in finding["message"] for part in word), finding["message"]


@pytest.mark.parametrize("options", [["--seed", "1"], ["--seed", "2"], ["--seed", "3", "--schedule", "lowest-pc"],
                                     ["--cp-async", "earliest"], ["--cp-async", "random", "--seed", "4"]],
                         ids=lambda options: "".join(options))
@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_in_any_order(path, options, tmp_path):
    """Another order finds the same, perhaps from the other one of two conflicting lines."""
    kind, _, _ = expectation(path)
    _, report = execute(path, tmp_path, *options)
    if kind in ENDS:
        assert report["status"] == ENDS[kind][0], report
    else:
        assert {finding["check"] for finding in report["findings"]} == {kind}, report


@pytest.mark.parametrize("path", [path for path in KERNELS if expectation(path)[0] in CHECKS], ids=lambda path: path.stem)
def test_switched_off(path, tmp_path):
    """With its check off the same kernel has no finding."""
    kind, _, _ = expectation(path)
    code, report = execute(path, tmp_path, "--checks", "all,-" + kind)
    assert report["findings"] == [], report["findings"]
    assert code in (0, 3)


def test_all_checks_have_a_kernel():
    assert {expectation(path)[0] for path in KERNELS} == CHECKS | set(ENDS)
