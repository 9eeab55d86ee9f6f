#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs benchmark suites one after the other: ./dev bench [SUITE ..] [--json FILE]. Each suite is a program of its own."""
import argparse
import json
import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent
SUITES = {
    "cpu": "attention steps of all formats and shapes beside the memory's speed, ggml, PyTorch and transformers",
    "batch": "SmolLM2 decoding a ragged batch of 8 rows at 4k of context, beside DynamicCache",
    "decode": "SmolLM2 decoding at 1k, 4k and 8k of context, beside DynamicCache and QuantizedCache",
    "ptxsim": "the PTX simulator on flash decoding and on quantizing, with all checks and with none",
    "nvidia": "attend kernels for NVIDIA GPUs: bytes, instructions, occupancy, predicted times, without a GPU",
    "gpu": "attend kernels on an NVIDIA GPU that is here, beside its copies and the predictions; only when named",
    "tuning": "the standard sweep of schedules: tuned and default beside what exhaustive search finds, and in what time",
    "capi": "append, attend and commit through the C API, by Google Benchmark",
}
PROGRAMS = {"cpu": "cpu_suite.py", "batch": "batch_decode.py", "decode": "smollm2_decode.py", "ptxsim": "ptxsim_suite.py",
            "nvidia": "nvidia_suite.py", "tuning": "tuning_suite.py",
            "gpu": "gpu_suite.py"}
ON_REQUEST = ("gpu",)


def run_capi(json_file):
    program = ROOT / "build" / "release" / "bench" / "kvq_bench"
    report = ROOT / "build" / "bench-capi.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    code = subprocess.run([program, f"--benchmark_out={report}", "--benchmark_out_format=json"], check=False).returncode
    if code or not json_file:
        return code
    import common
    from kvq import lowlevel

    records = common.Records("capi")
    for entry in json.loads(report.read_text(encoding="utf-8"))["benchmarks"]:
        if entry.get("aggregate_name", "median") == "median":
            records.add(entry["name"], entry["real_time"], entry["time_unit"])
    records.write(json_file, common.facts(lowlevel.Context()))
    return 0


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description="Runs benchmark suites; none is a test.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)} (default: all but gpu)")
    parser.add_argument("--json", metavar="FILE", help="write the machine and the records as JSON")
    parser.add_argument("--list", action="store_true", help="name the suites")
    options, rest = parser.parse_known_args()
    if options.list:
        for name, about in SUITES.items():
            print(f"{name:10} {about}")
        return 0
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"there is no suite '{unknown[0]}'; the suites are {', '.join(SUITES)}")
    if options.json:
        pathlib.Path(options.json).unlink(missing_ok=True)
        rest += ["--json", os.path.abspath(options.json)]
    failed = []
    for suite in options.suites or [name for name in SUITES if name not in ON_REQUEST]:
        print(f"==> bench {suite}", flush=True)
        if suite == "capi":
            code = run_capi(options.json)
        else:
            code = subprocess.run([sys.executable, FOLDER / PROGRAMS[suite], *rest], check=False).returncode
        if code:
            failed.append(suite)
    for suite in failed:
        print(f"bench {suite} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
