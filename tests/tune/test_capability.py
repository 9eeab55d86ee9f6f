# SPDX-License-Identifier: Apache-2.0
"""The capability vector: what it holds, and that the same machine always has the same text and hash."""

import json
import os

import pytest
from kvq import lowlevel
from kvq.errors import InvalidArgument
from kvq.evaluate import machine as described
from kvq.tune import capability
from kvq.tune.problem import Conditions, knobs, parse_conditions
from made_rows import MACHINE, VECTOR


def test_this_processor_is_described_as_the_runtime_sees_it():
    machine = capability.this_cpu()
    vector = machine.vector
    context = lowlevel.shared_context()
    assert set(vector) == {"kind", "target", "name", "features", "cores", "caches"}
    assert vector["target"] == machine.target == context.level and vector["kind"] == "cpu"
    assert vector["features"] == described.features() and vector["name"] == described.processor()
    assert vector["cores"] == len(os.sched_getaffinity(0))
    assert capability.this_cpu() == machine and capability.this_cpu().hash == machine.hash
    other = capability.this_cpu("x86-64")
    assert other.target == "x86-64" and other.hash != machine.hash
    assert capability.last_level_bytes(machine) >= max(vector["caches"].values(), default=1 << 20)


def test_the_order_of_a_vector_does_not_matter_and_its_content_does():
    assert capability.machine_of(dict(reversed(VECTOR.items()))) == MACHINE
    assert MACHINE.text == json.dumps(VECTOR, sort_keys=True, separators=(",", ":")) and len(MACHINE.hash) == 32
    hashes = {capability.machine_of({**VECTOR, **change}).hash for change in (
        {}, {"cores": 9}, {"name": "B"}, {"features": ["avx2"]}, {"target": "x86-64"}, {"caches": {"L1": 1}})}
    assert len(hashes) == 6


def test_accelerators_have_target_and_name():
    machine = capability.accelerator("nvptx:sm_90", "H100")
    assert machine.vector == {"kind": "accelerator", "target": "nvptx:sm_90", "name": "H100"}
    assert str(machine) == "H100 (nvptx:sm_90)" and capability.last_level_bytes(machine) == 32 << 20
    with pytest.raises(InvalidArgument, match="'x86-64' is no accelerator's"):
        capability.accelerator("x86-64", "A")


@pytest.mark.parametrize(
    "vector", [{}, {"target": 3}, {"target": "x", "cores": float("nan")}, {"target": "x", "a": {1}}]
)
def test_what_is_no_vector_is_refused(vector):
    with pytest.raises(InvalidArgument, match="the capability vector"):
        capability.machine_of(vector)


def test_sizes_of_data_caches_are_read(tmp_path):
    rows = [("Data", 1, "48K"), ("Instruction", 1, "64K"), ("Unified", 2, "1024K"), ("Unified", 3, "32M"),
            ("Unified", 4, "x")]
    for number, row in enumerate(rows):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, value in zip(("type", "level", "size"), row, strict=True):
            (folder / name).write_text(f"{value}\n")
    (tmp_path / "index9").mkdir()
    assert capability.cache_sizes(tmp_path) == {"L1": 48 << 10, "L2": 1 << 20, "L3": 32 << 20}
    assert capability.cache_sizes(tmp_path / "absent") == {}


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
