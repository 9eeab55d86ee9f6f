# SPDX-License-Identifier: Apache-2.0
"""./dev bench gpu, tried out in the simulator: what it records; and where there is no GPU, that it says so."""

import json
import subprocess
import sys
from pathlib import Path

from inspect_tools import needs_machine_code

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--tokens", "256", "--batch", "1", "--heads", "1", "--copies", "1", "--copy-mib", "1", "--rounds", "4"]


def run(*arguments):
    command = [sys.executable, ROOT / "bench/run.py", "gpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@needs_machine_code
def test_records(tmp_path):
    file = tmp_path / "bench.json"
    done = run("--device", "ptxsim", *SMALL, "--format", "k4c128-v4t128", "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    records = {record["name"]: record for record in json.loads(file.read_text(encoding="utf-8"))["records"]}
    copy, attend = records["k4c128-v4t128/copy"], records["k4c128-v4t128/attend"]
    assert copy["unit"] == attend["unit"] == "GB/s" and copy["value"] > 0
    assert attend["baseline"] == copy["name"] and attend["ratio"] * copy["value"] == attend["value"]
    assert attend["bytes"] == 256 * 136 and attend["predicted_of"] == "A100" and attend["predicted_us"] > 0


def test_without_a_gpu():
    done = run("--device", "cuda", *SMALL)
    if done.returncode:  # there may be one
        assert "bench gpu needs a GPU: " in done.stderr
