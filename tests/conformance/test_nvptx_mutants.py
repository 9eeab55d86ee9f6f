# SPDX-License-Identifier: Apache-2.0
"""The launches of families.py tell a wrong kernel from a right one: mutants of the PTX of each family, one line changed,
are caught by a finding or by what comes out. Of attend's as many as it takes until 40 of them are no equivalent ones,
with --full all."""

import random

import pytest

import kvq
import mutate
from equivalent_nvptx_mutants import RULES
from families import TRIALS, mma, trials
from simulated import MAGIC, PtxKernel, context_of, ptx_of

LEVEL = "nvptx:sm_80"
ENOUGH = 40
LIMIT = 6_000_000  # warp instructions; the largest launch takes about half
# Some mistakes show only in another order.
MODES = ({}, {"schedule": "lowest-pc", "seed": 1})
SHAPES = {
    "attend": mma("k4c32-v4t32", page=256, dv=32, ratio=7),
    "attend, any frontier": mma("k4t32-v4t32", page=128, dv=32, ratio=7),
    "attend, 2 bits": mma("k2c32-v2t32", dv=32, ratio=7, lag=True),
    "attend, 8 bits": mma("k8c32-v8t32", dv=32, ratio=7),
    "attend, magic": mma("k4c32-v4t32", dv=32, ratio=7),
    "quantize_k": mma("k4c32-v4t32", page=128, dk=128, dtype="f32"),
    "quantize_v": mma("k4c32-v2t32", page=128, dv=128, dtype="f32"),
    "dequantize_k": mma("k2c32-v4t32", page=256, dk=128),
    "dequantize_v": mma("k4c32-v4t32", page=256, dv=128, dtype="f32"),
    "append": mma("k4c32-v4t32", dtype="f32", dv=32),
    "merge": mma("k4c32-v4t32", dtype="f32"),
}


def caught(name, ptx):
    """How a mutant shows, in a word, or "" where it does not."""
    op, shape = op_of(name), SHAPES[name]
    for mode in MODES:
        kernel = PtxKernel(level_of(name), ptx, dict(limit=LIMIT, max_findings=1, **mode))
        for trial in trials(op, shape):
            try:
                trial.run(kernel)
            except AssertionError:
                return "result"
            except kvq.Error:
                return "finding"
    return ""


def op_of(name):
    return name.split(",")[0]


def level_of(name):
    return LEVEL + MAGIC if name.endswith("magic") else LEVEL


def all_mutants(name):
    ptx = ptx_of(level_of(name), SHAPES[name].request(op_of(name)))
    return ptx, mutate.mutants(ptx, "kvq_entry", mutate.LLVM_OPERATORS, times=2)


def rules_for(name, mutant, lines):
    return [rule for rule in RULES if rule(name, mutant, lines)]


def verdicts(name, ptx, found, enough):
    """(mutant, how it was caught, whether it is equivalent), until so many are not. A mutant that is caught is no
    equivalent one, whatever the rules say of its line."""
    lines, out, counted = ptx.splitlines(), [], 0
    for mutant in found:
        how = caught(name, mutant.of(ptx))
        equivalent = not how and bool(rules_for(name, mutant, lines))
        out.append((mutant, how, equivalent))
        counted += not equivalent
        if counted == enough:
            break
    return out


@pytest.mark.parametrize("name", SHAPES)
def test_mutants_are_caught(name, pytestconfig, capsys):
    ptx, found = all_mutants(name)
    assert len(found) >= 60
    assert not caught(name, ptx), "caught as it is"
    enough = None
    if op_of(name) == "attend" and not pytestconfig.getoption("--full"):
        found, enough = random.Random(name).sample(found, len(found)), ENOUGH
    tried = verdicts(name, ptx, found, enough)
    survivors = [mutant for mutant, how, equivalent in tried if not how and not equivalent]
    counted = sum(not equivalent for *_, equivalent in tried)
    share = 1 - len(survivors) / counted
    listed = "".join(f"\n{mutant.line}: {mutant.key} -> {mutant.after.strip()}" for mutant in survivors)
    with capsys.disabled():
        findings = sum(how == "finding" for _, how, _ in tried)
        print(f"\n{name}: {len(tried)} mutants, {len(tried) - counted} equivalent, {100 * share:.1f} % of the other "
              f"{counted} caught, {findings} of them by a finding{listed}")
    assert counted >= ENOUGH
    assert share >= 0.95, listed
    assert len(tried) - counted <= len(tried) / 5


@pytest.fixture(autouse=True, scope="module")
def contexts_end_with_the_module():
    yield
    context_of.cache_clear()


def test_every_family_is_there():
    assert {op_of(name) for name in SHAPES} == set(TRIALS)
