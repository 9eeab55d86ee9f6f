# SPDX-License-Identifier: Apache-2.0
"""Every line of PTX of every family of kernels is executed by the launches that are compared with the oracle."""

import json

import pytest

from families import TRIALS, mma, trials
from simulated import MAGIC, PtxKernel, context_of, ptx_of

LEVEL = "nvptx:sm_80"
SHAPES = {
    "4-bits": mma("k4c32-v4t32"),
    "2-bits-lag-bf16": mma("k2c32-v2t32", lag=True, dtype="bf16"),
    "8-bits-per-token-v-channel": mma("k8t32-v8c32", dtype="f32"),
    "any-frontier-window-cap": mma("k4t16-v4t16", window=True, cap=True),
    "16-rows-full": mma("k4c64-v4t64", rows=16, accuracy="full", ratio=5),
    "2-bits-magic": mma("k2c32-v2t32", lag=True, dtype="bf16"),
    # Each width, by each axis, in each order of pages.
    **{
        f"{bits}-bits-{axis}-{profile}": mma(f"k{bits}{axis}32-v{bits}{axis}32", profile=profile)
        for bits in (2, 4, 8) for axis in "ct" for profile in ("mma", "vnni")
    },
}  # fmt: skip
MOST_EXCEPTIONS = 2  # lines of a kernel


def is_wide_division(lines, number):
    """LLVM tries a division of 64 bits by one of 32 first; here all operands come of positions and sizes of 32 bits, so
    that the other side of the branch, which is a division and a jump, has no launch."""
    division = number - 1 if lines[number - 1].strip().startswith("bra.uni") else number
    return lines[division - 1].strip().startswith(("rem.u64", "div.u64"))


def reports(path):
    """Of built-in kernels: a context begins with a test of the device."""
    text, at, decoder = path.read_text(encoding="utf-8"), 0, json.JSONDecoder()
    while at < len(text):
        report, at = decoder.raw_decode(text, at)
        at += len(text[at:]) - len(text[at:].lstrip())
        if report["kernel"] == "kvq_entry":
            yield report


@pytest.mark.parametrize("op", TRIALS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_line_is_executed(name, op, tmp_path):
    shape, path = SHAPES[name], tmp_path / "reports"
    level = LEVEL + MAGIC if name.endswith("magic") else LEVEL
    ptx = ptx_of(level, shape.request(op))
    kernel = PtxKernel(level, ptx, dict(report=path))
    for trial in trials(op, shape):
        trial.run(kernel)
    context_of.cache_clear()
    found = list(reports(path))
    assert len(found) == len(trials(op, shape)) and found[0]["coverage"]["lines"] > 50
    missed = sorted(set.intersection(*(set(report["coverage"]["missed"]) for report in found)))
    lines = ptx.splitlines()
    assert len(missed) <= MOST_EXCEPTIONS
    rest = [number for number in missed if not is_wide_division(lines, number)]
    text = "".join(f"\n{number}: {lines[number - 1].strip()}" for number in rest)
    assert not rest, f"{len(rest)} of {found[0]['coverage']['lines']} lines are not executed:{text}"
