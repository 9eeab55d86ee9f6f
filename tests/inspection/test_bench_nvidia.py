# SPDX-License-Identifier: Apache-2.0
"""./dev bench nvidia with a compiler that gives a stand-in for every request: what it records, prints and refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import schema
import toolchain
from inspect_tools import needs_machine_code

import kvq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from gpu import cases  # noqa: E402

pytestmark = [needs_machine_code, toolchain.needs_toolkit]
BUILD = Path(kvq.__file__).absolute().parents[2]
STAND_IN = Path(__file__).resolve().parent / "attend_stand_in.ptx"


def run(tmp_path, compiler, *arguments):
    script = tmp_path / "kvqc"
    script.write_text(f"#!/bin/sh\n{compiler}\n")
    script.chmod(0o755)
    file = tmp_path / "bench.json"
    command = [sys.executable, ROOT / "bench/run.py", "nvidia", "--tokens", "512", *arguments, "--json", file]
    environment = {**os.environ, "KVQ_KVQC": str(script)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    return done, json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def test_records(tmp_path):
    real = f'case "$*" in *.mlir*) exec {BUILD}/bin/kvqc "$@" ;; esac'  # the tile program beside our kernels
    done, found = run(tmp_path, f"{real}\ncat {STAND_IN}", "--target", "sm_80", "--target", "sm_86")
    assert done.returncode == 0, done.stdout + done.stderr
    reports = found["nvidia"]["reports"]
    assert [schema.wrong(report) for report in reports] == [""] * len(reports) and not found["nvidia"]["not_inspected"]
    assert [(r["source"], r["target"]) for r in reports] == [
        (source, f"nvptx:{target}")
        for source in (*(case.request for case in cases.CASES), "plain_f16", "decode_f16")
        for target in ("sm_80", "sm_86")
    ]
    records = {record["name"]: record for record in found["records"]}
    sources = {case.format: case.request for case in cases.CASES} | {"f16": "plain_f16", "f16-cuda": "decode_f16"}
    for name, size in (("k2c128-v2t128", 72), ("k4c128-v4t128", 136), ("k8c32-v8t32", 288), ("f16", 512), ("f16-cuda", 512)):
        figure = records[f"{name}/sm_80/bytes"]
        assert figure["value"] == pytest.approx(size / 256, rel=0.02) and figure["unit"] == "bytes/element"
        # There is no GPU of sm_86 in the table.
        predicted = [n for n in records if n.startswith(f"{name}/") and "/predicted/" in n]
        assert predicted == [f"{name}/sm_80/predicted/A100"] and records[predicted[0]]["unit"] == "us predicted"
        # By class, together what the loop has in all.
        kinds = [r["value"] for n, r in records.items() if n.startswith(f"{name}/sm_80/instructions/")]
        report = next(r for r in reports if (r["source"], r["target"]) == (sources[name], "nvptx:sm_80"))
        assert sum(kinds) == pytest.approx(report["loop"]["thread_instructions_per_element"]) and len(kinds) > 3
    assert "by class" in done.stdout
    # What ours compare with is a tile program compiled by kvqc, whose kernels have this name; the other one is CUDA C++.
    kernels = {report["source"]: report["kernel"] for report in reports}
    assert kernels["plain_f16"] == "kvq_entry" and kernels["decode_f16"] == "decode_f16"
    for label in ("f16, tile program (kvqc)", "f16, by hand (CUDA C++)"):
        assert sum(line.startswith(label) for line in done.stdout.splitlines()) == 2 * 2 + 1  # tables, A100
    assert records["f16/sm_80/steady/bytes"]["value"] == records["f16-cuda/sm_80/steady/bytes"]["value"] == 2
    assert "k2c128-v2t128/sm_80/steady/bytes" not in records  # 512 tokens are one page a split
    assert all("predicted" in line for line in done.stdout.split("PREDICTED")[1].splitlines()[1:] if line)


def test_what_cannot_be_compiled_is_named(tmp_path):
    complaint = "echo 'kvqc: error: no such profile' >&2; echo 'module {' >&2; exit 1"
    done, found = run(tmp_path, complaint, "--target", "sm_80", "--format", "k4c128-v4t128", "--format", "f16-cuda")
    assert done.returncode == 1
    message = "k4c128-v4t128 for sm_80: kvqc ended with 1 and said: kvqc: error: no such profile"
    assert f"not inspected: {message}\n" in done.stdout and found["nvidia"]["not_inspected"] == [message]
    assert [report["source"] for report in found["nvidia"]["reports"]] == ["decode_f16"]


def test_cases_are_what_is_promised():
    assert sorted(case.format for case in cases.CASES) == sorted(
        f"k{bits}c{group}-v{bits}t{group}" for bits in (2, 4, 8) for group in (32, 128)
    )
    assert cases.CASES[0].request == "attend:k2c32-v2t32:mma:p128:dk128:dv128:g4:f16:rows8:lag0:win0:cap0:exact"
    assert cases.TARGETS == ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
