# SPDX-License-Identifier: Apache-2.0
"""The capability vector: what it holds, and that the same machine always has the same text and hash."""

import json
import os
from pathlib import Path

import pytest
from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.evaluate import machine as described
from kvq.tune import capability
from kvq.tune.kernels import make_runner
from kvq.tune.problem import Conditions, knobs, parse_conditions
from made_rows import MACHINE, VECTOR


def test_this_processor_is_described_by_the_runtime_alone():
    """By the text that choices are found by: an entry and a choice cannot disagree on whose they are."""
    machine, context = capability.this_cpu(), lowlevel.shared_context(threads=1)
    assert machine.text == context.machine and machine.target == context.level
    assert capability.machine_of(machine.vector) == machine, "the runtime's text is not canonical"
    for level in context.levels:
        other = lowlevel.Context("cpu", level=level, threads=2)
        assert capability.this_cpu(level).text == other.machine and capability.this_cpu(level).target == level
        assert make_runner(level).machine == capability.this_cpu(level)
    assert len({capability.this_cpu(level).hash for level in context.levels}) == len(context.levels)


def test_the_vector_of_this_processor_holds_what_the_system_says():
    vector = capability.this_cpu().vector
    assert set(vector) == {"kind", "target", "name", "cores", "caches"} and vector["kind"] == "cpu"
    assert vector["name"] == described.processor() and vector["cores"] == os.cpu_count()
    assert vector["caches"] == said_caches()
    assert capability.last_level_bytes(capability.this_cpu()) == max(vector["caches"].values(), default=32 << 20)


def said_caches():
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction":
            assert size.endswith("K")
            sizes[f"L{level}"] = int(size[:-1]) << 10
    return sizes


def test_the_order_of_a_vector_does_not_matter_and_its_content_does():
    assert capability.machine_of(dict(reversed(VECTOR.items()))) == MACHINE
    assert MACHINE.text == json.dumps(VECTOR, sort_keys=True, separators=(",", ":")) and len(MACHINE.hash) == 32
    hashes = {capability.machine_of({**VECTOR, **change}).hash for change in (
        {}, {"cores": 9}, {"name": "B"}, {"target": "x86-64"}, {"caches": {"L1": 1}})}
    assert len(hashes) == 5


def test_accelerators_have_target_and_name():
    machine = capability.accelerator("nvptx:sm_90", "H100")
    assert machine.vector == {"kind": "accelerator", "target": "nvptx:sm_90", "name": "H100"}
    assert str(machine) == "H100 (nvptx:sm_90)" and capability.last_level_bytes(machine) == 128 << 20
    with pytest.raises(InvalidArgument, match="'x86-64' is no accelerator's"):
        capability.accelerator("x86-64", "A")


@pytest.mark.parametrize(
    "vector", [{}, {"target": 3}, {"target": "x", "cores": float("nan")}, {"target": "x", "a": {1}}]
)
def test_what_is_no_vector_is_refused(vector):
    with pytest.raises(InvalidArgument, match="the capability vector"):
        capability.machine_of(vector)


@pytest.mark.parametrize("conditions", [Conditions(), Conditions("warm", 1, 2, 3, 4, 5)])
def test_conditions_are_a_text_and_back(conditions):
    assert parse_conditions(str(conditions)) == conditions


@pytest.mark.parametrize(
    "text",
    ["", "hot", "cold:tokens0:batch1:heads8:threads1:window0", "cold:tokens1:batch1:heads8:threads1",
     "cold:tokens01:batch1:heads8:threads1:window0", "cold:batch1:tokens1:heads8:threads1:window0",
     "lukewarm:tokens1:batch1:heads8:threads1:window0"],
)
def test_other_texts_are_no_conditions(text):
    with pytest.raises(InvalidArgument, match="are not legal: write them as in cold:tokens4096"):
        parse_conditions(text)


def test_knobs_of_a_schedule():
    assert knobs("") == {} and knobs("tile_tokens=64,rows=4") == {"tile_tokens": "64", "rows": "4"}
    for text in ("rows", "rows=", "=4", "rows=4,", "rows=4,rows=3", "rows=4=3"):
        with pytest.raises(InvalidArgument, match="is not legal: write name=value"):
            knobs(text)
