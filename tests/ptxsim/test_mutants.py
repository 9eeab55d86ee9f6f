# SPDX-License-Identifier: Apache-2.0
"""The simulator finds mistakes: mutants of the kernels under kernels/, each with one line of PTX changed, are caught by
a finding, by a deadlock, or by what comes out. A mutant in a line that is not executed survives like any other."""

import mutate
import ptx_run
import pytest
import toolchain
from equivalent_mutants import EQUIVALENT
from subjects import subjects

pytestmark = toolchain.needs_toolkit

# The other kernels are these with another type or width.
NAMES = ("gemm_f16", "gemm_s8", "matvec_async", "reduce", "scan", "histogram", "transpose", "quantize_4",
         "flash_decode", "flash_combine")
# The largest launch takes 10,000 warp instructions; a loop without an end is given up soon.
LIMIT = 300_000
# Some mistakes show only in other orders: a survivor of the plain run gets these.
MODES = (
    {},
    {"schedule": "lowest-pc", "seed": 1, "cp_async": "random"},
    {"schedule": "lowest-pc", "seed": 2, "cp_async": "earliest"},
    {"seed": 3},
)


def caught(subject, ptx):
    """How a mutant shows, in a few words, or "" where it does not."""
    for mode in MODES:
        for launch in subject.launches:
            try:
                outputs, _ = ptx_run.run(ptx, launch.grid, launch.block, *launch.arguments, kernel=subject.kernel,
                                         shared=launch.shared or None, limit=LIMIT, max_findings=1, **mode)
            except ptx_run.PtxFindings as error:
                status = error.report["status"]
                return error.report["findings"][0]["check"] if status == "findings" else status
            if launch.compare(outputs):
                return "result"
    return ""


@pytest.fixture(scope="module")
def verdicts():
    """(kernel, mutant, how it was caught) of all mutants."""
    chosen = subjects()
    out = []
    for name in NAMES:
        ptx = toolchain.ptx(chosen[name].source)
        assert not caught(chosen[name], ptx), f"{name} is caught as it is"
        out += [(name, mutant, caught(chosen[name], mutant.of(ptx))) for mutant in mutate.mutants(ptx, name)]
    return out


def declared(name, mutant):
    return mutant.key in EQUIVALENT.get(name, {})


def listed(verdicts):
    return "".join(f"\n{name}:{mutant.line}: {mutant.key}" for name, mutant, _ in verdicts)


def test_there_are_enough_mutants_of_every_operator(verdicts):
    assert len(verdicts) >= 150
    unused = {operator.name for operator in mutate.OPERATORS} - {mutant.operator for _, mutant, _ in verdicts}
    assert not unused


def test_removed_barriers_and_waits_are_all_caught(verdicts):
    ordering = {operator.name for operator in mutate.OPERATORS if operator.ordering}
    survivors = [v for v in verdicts if v[1].operator in ordering and not v[2]]
    assert not survivors, listed(survivors)


def test_equivalent_mutants_are_few_and_not_stale(verdicts):
    equivalent = [v for v in verdicts if declared(*v[:2])]
    keys = {(name, mutant.key) for name, mutant, _ in verdicts}
    stale = [(name, key) for name, table in EQUIVALENT.items() for key in table if (name, key) not in keys]
    assert not stale
    wrong = [v for v in equivalent if v[2]]
    assert not wrong, f"declared equivalent, but caught:{listed(wrong)}"
    assert len(equivalent) <= len(verdicts) / 10


def test_nearly_all_other_mutants_are_caught(verdicts, capsys):
    rest = [v for v in verdicts if not declared(*v[:2])]
    survivors = [v for v in rest if not v[2]]
    ways = {way: sum(v[2] == way for v in rest) for way in sorted({v[2] for v in rest if v[2]})}
    share = 1 - len(survivors) / len(rest)
    with capsys.disabled():
        print(f"\n{len(verdicts)} mutants, {len(verdicts) - len(rest)} equivalent; {100 * share:.1f} % of the others "
              f"caught ({', '.join(f'{way} {count}' for way, count in ways.items())}){listed(survivors)}")
    assert share >= 0.95, listed(survivors)
