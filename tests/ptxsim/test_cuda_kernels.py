# SPDX-License-Identifier: Apache-2.0
"""Kernels in CUDA C++ that no pass of ours made: every compiler and level of them runs in the simulator without a
finding and makes what plain C++ makes, in all of its modes; and together the launches execute every line."""

import pytest
import ptx_run
import toolchain
from subjects import subjects

pytestmark = toolchain.needs_toolkit

NAMES = ("gemm_f16", "gemm_bf16", "gemm_s8", "matvec_async", "reduce", "scan", "histogram", "transpose", "quantize_2",
         "quantize_4", "quantize_8", "flash_decode", "flash_combine")
MODES = (
    {},
    {"schedule": "lowest-pc", "seed": 1},
    {"seed": 2, "mma": "sequential", "approx": "ulp", "cp_async": "earliest"},
    {"seed": 3, "schedule": "lowest-pc", "mma": "truncate", "subnormals": "flush", "cp_async": "random"},
)
# What the compilers make most of gets every mode, the others the plain one and one more each.
EVERY_MODE = (toolchain.PLAIN, toolchain.Variant("clang", "O3"))


@pytest.fixture(scope="module")
def all_subjects():
    return subjects()


def launch_all(subject, ptx, **options):
    """Runs every launch of a subject; returns the reports of the runs, all clean and right."""
    reports = []
    for launch in subject.launches:
        outputs, report = ptx_run.run(ptx, launch.grid, launch.block, *launch.arguments, kernel=subject.kernel,
                                      shared=launch.shared or None, **options)
        wrong = launch.compare(outputs)
        assert not wrong, f"{subject.kernel} {launch.name} {options}: {wrong}"
        reports.append(report)
    return reports


def missed_lines(reports):
    """Lines that none of the runs executed, and how many lines there are."""
    missed = set.intersection(*(set(report["coverage"]["missed"]) for report in reports))
    return sorted(missed), reports[0]["coverage"]["lines"]


def modes_of(variant):
    if variant in EVERY_MODE:
        return MODES
    return MODES[0], MODES[1 + toolchain.VARIANTS.index(variant) % (len(MODES) - 1)]


def test_all_subjects_are_tested(all_subjects):
    assert tuple(all_subjects) == NAMES


@pytest.mark.parametrize("variant", toolchain.VARIANTS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_kernel_equals_plain_cpp(all_subjects, name, variant):
    if reason := toolchain.missing(variant):
        pytest.skip(reason)
    subject = all_subjects[name]
    ptx = toolchain.ptx(subject.source, variant)
    reports = []
    for mode in modes_of(variant):
        reports = launch_all(subject, ptx, **mode)
    missed, count = missed_lines(reports)
    lines = ptx.splitlines()
    text = "\n".join(f"{line}: {lines[line - 1].strip()}" for line in missed)
    assert not missed, f"{len(missed)} of {count} lines are not executed:\n{text}"


@pytest.mark.parametrize("name", NAMES)
def test_seeds_of_warps_and_blocks(all_subjects, name):
    subject = all_subjects[name]
    for seed in range(4, 10):
        launch_all(subject, toolchain.ptx(subject.source), seed=seed,
                   schedule="lowest-pc" if seed % 2 else "reconverge", cp_async="random")


@pytest.mark.parametrize("name", NAMES)
def test_blocks_on_two_threads(all_subjects, name):
    launch_all(all_subjects[name], toolchain.ptx(all_subjects[name].source), threads=2)
