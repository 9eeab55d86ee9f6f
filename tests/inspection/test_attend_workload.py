# SPDX-License-Identifier: Apache-2.0
"""Workloads of the built-in attend kernels, run on a stand-in that has their parameters and reads their pages."""

import json
from pathlib import Path

import numpy as np
import pytest
import schema
from attend_kernel import ATTEND_ITEM
from inspect_tools import needs_machine_code
from kvq import lowlevel
from kvq.cli import main
from kvq.errors import InvalidArgument
from kvq.inspect import attend, requests, workload

STAND_IN = (Path(__file__).resolve().parent / "attend_stand_in.ptx").read_text(encoding="utf-8")
REQUEST = "attend:k4c128-v4t128:mma:p128:dk128:dv128:g4:f16:rows8:lag0:win0:cap0:exact"


def buffers(work):
    return [np.load(a.removeprefix("in:")) if a.startswith("in:") else a for a in work.arguments]


def test_arguments_are_those_of_the_kernel_abi(tmp_path):
    header = (Path(__file__).resolve().parents[2] / "runtime/include/kvq/kernel_abi.h").read_text(encoding="utf-8")
    count = int(header.split("KVQ_ATTEND_ARGS = ")[1].split()[0])
    work = attend.attend_workload(REQUEST, STAND_IN, attend.AttendSize(300, heads=3, splits=2), tmp_path)
    given = buffers(work)
    assert len(given) == count + 1 and given[-1] == "u64:6" and (work.grid, work.block) == ((2,), (128, 1, 1))
    assert work.elements == 301 * 3 * 256 and "300 packed tokens, 3 KV heads, 2 splits" in work.about
    items = given[0].view(ATTEND_ITEM)
    assert sorted((i["split"], i["kv_head"]) for i in items) == [(s, h) for s in range(2) for h in range(3)]
    ranges = [(i["packed_begin"], i["packed_end"], i["raw_begin"], i["raw_end"]) for i in items[::3]]
    assert ranges == [(0, 128, 300, 300), (128, 300, 300, 301)] and set(items["row_count"]) == {4}
    page = lowlevel.format_page_bytes("k4c128-v4t128", 128, 128, 128)
    assert given[4].size == 3 * 3 * page and given[5:7] == [f"u64:{3 * page}", f"u64:{page}"]
    assert np.isfinite(given[4].view(np.float16)).all() and list(given[7].view(np.int32)) == [0, 1, 2]


@pytest.mark.parametrize("tokens, splits, half", [(4096, 4, 2048), (1100, 4, 512), (1023, 4, None), (200, 4, None)])
def test_half_of_the_pages(tokens, splits, half, tmp_path):
    """Proves that the launch which the steady state is told by has whole pages, the same splits and a page in each."""
    size = attend.AttendSize(tokens, 2, splits)
    whole, less = attend.workloads(REQUEST, requests.Compiled(STAND_IN, "tile_tokens=64,warps=4"), size, tmp_path)
    assert whole.elements_per_iteration == 64 * 256 and whole.elements == (tokens + 1) * 2 * 256
    assert (less and less.elements) == (half and (half + 1) * 2 * 256)
    assert half is None or (less.grid, less.arguments[-1]) == (whole.grid, whole.arguments[-1])


@needs_machine_code
@pytest.mark.parametrize("size", [(1, 1, 1), (128, 2, 4), (1000, 3, 2), (4096, 2, 8)])
def test_every_page_is_read_once(size, tmp_path):
    tokens, heads, splits = size
    work = attend.attend_workload(REQUEST, STAND_IN, attend.AttendSize(tokens, heads, splits), tmp_path)
    counts = workload.count(work, STAND_IN, "kvq_entry")
    assert (counts.status, counts.findings) == ("ok", 0)
    page = lowlevel.format_page_bytes("k4c128-v4t128", 128, 128, 128)
    pages, used = -(-tokens // 128), min(splits, -(-tokens // 128)) * heads
    # Besides pages: the block table and 20 bytes of each item.
    assert counts.counters["unique_global_bytes_read"] == pages * heads * page + 4 * pages + 20 * used


@needs_machine_code
def test_command_on_a_request(monkeypatch, tmp_path, capsys):
    (tmp_path / "stand_in.ptx").write_text(STAND_IN, encoding="utf-8")
    compiler = tmp_path / "kvqc"
    compiler.write_text(f"#!/bin/sh\ncat {tmp_path}/stand_in.ptx\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("KVQ_KVQC", str(compiler))
    file = tmp_path / "report.json"
    command = ["inspect", "kernel", REQUEST, "--target", "nvptx:sm_120", "--workload", "tokens=2048,heads=2", "--json"]
    assert main([*command, str(file)]) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert schema.wrong(report) == "" and report["source"] == REQUEST
    assert report["counters"]["bytes_per_element"]["read_unique"] == pytest.approx(136 / 256, rel=0.01)
    assert report["loop"]["depth"] == 2 and report["loop"]["classes"]["LDG"] >= 1
    assert main(["inspect", "kernel", str(tmp_path / "stand_in.ptx"), "--workload", "tokens=7"]) == 2
    assert "the workload tokens=7 cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, message",
    [
        ("heads=2", "tokens=N is missing"),
        ("tokens=0", "'tokens=0' is none of tokens=N, heads=N, splits=N"),
        ("tokens=9,batch=2", "'batch=2' is none of"),
        ("tokens=9,tokens=9", "'tokens=9' is none of"),
        ("tokens=many", "'tokens=many' is none of"),
    ],
)
def test_bad_sizes(text, message):
    with pytest.raises(InvalidArgument, match=f"the workload '{text}': {message}"):
        attend.parse_size(text)


@pytest.mark.parametrize(
    "request_text, message",
    [
        ("merge:k4c32-v4t32:vnni:p64", "is no request for attend"),
        (REQUEST.replace("rows8", "rows2"), "has fewer rows than query heads of a KV head: 2 of 4"),
    ],
)
def test_bad_requests(request_text, message, tmp_path):
    with pytest.raises(InvalidArgument, match=message):
        attend.attend_workload(request_text, STAND_IN, attend.AttendSize(9), tmp_path)
