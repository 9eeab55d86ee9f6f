#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast the PTX simulator is: kernels of tests/ptxsim/kernels, compiled by nvcc, with every check on and with none.

A time is that of a whole process of ptx-run on one thread, reading its buffers included: a lower bound of the rate.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "bench"), str(ROOT / "tests" / "ptxsim"), str(ROOT / "tests")]

CHECKS = ("all", "none")


def flash_decode(folder, random, tokens, heads, splits, shared):
    """One step of attention, 8 query heads on each of `heads` KV heads of 64 channels in 4 bits."""
    arrays = {"q": random.standard_normal((heads, 8, 64)).astype(np.float16)}
    for side in "kv":
        arrays[f"{side}w"] = random.integers(0, 2**32, (heads, tokens, 8), dtype=np.uint32)
        arrays[f"{side}p"] = np.stack([random.uniform(0.05, 0.2, (heads, tokens)),
                                       random.uniform(-1, 0, (heads, tokens))], -1).astype(np.float16)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    shape = np.array([tokens, heads, 8, splits], np.int32).tobytes() + np.float32(np.log2(np.e) / 8).tobytes()
    (folder / "shape").write_bytes(shape)
    return ["--grid", f"{splits},{heads},1", "--block", "128", "--shared", str(shared),
            *(word for name in ("q", "kw", "kp", "vw", "vp") for word in ("--arg", f"in:{folder / name}.npy")),
            "--arg", f"out:float32:{heads}x8x{splits}x64:{folder / 'o.npy'}",
            "--arg", f"out:float32:{heads}x8x{splits}x2:{folder / 's.npy'}", "--arg", f"bytes:{folder / 'shape'}"]


def quantize(folder, random, rows, columns):
    np.save(folder / "x.npy", random.standard_normal((rows, columns)).astype(np.float16))
    groups = columns // 32
    return ["--kernel", "quantize_4", "--grid", str(rows * groups // 4), "--block", "128",
            "--arg", f"in:{folder / 'x.npy'}", "--arg", f"out:uint32:{rows}x{groups}x4:{folder / 'w.npy'}",
            "--arg", f"out:float16:{rows}x{groups}x2:{folder / 'p.npy'}", "--arg", f"s32:{rows}", "--arg", f"s32:{columns}"]


def execute(command, folder, checks):
    """The number of warp instructions, in millions."""
    report = folder / "report.json"
    done = subprocess.run([*command, "--checks", checks, "--quiet", "--json", report], check=False, capture_output=True,
                          text=True)
    if done.returncode:
        raise SystemExit(f"ptx-run ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(report.read_text(encoding="utf-8"))["counters"]["warp_instructions"] / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    import common
    import sim_env
    import subjects
    import toolchain
    from kvq import lowlevel

    if toolchain.missing(toolchain.PLAIN):
        raise SystemExit(f"no PTX: {toolchain.missing(toolchain.PLAIN)}")
    random = np.random.default_rng(1)
    records = common.Records("ptxsim")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shared = subjects.DECODE_SHARED
        cases = {
            "flash_decode/32k tokens, 8 KV heads": ("flash_decode", flash_decode(folder, random, 32768, 8, 16, shared)),
            "quantize_4/4k x 1k": ("quantize", quantize(folder, random, 4096, 1024)),
        }
        for case, (source, arguments) in cases.items():
            (folder / f"{source}.ptx").write_text(toolchain.ptx(source), encoding="utf-8")
            command = [sim_env.PTX_RUN, str(folder / f"{source}.ptx"), *arguments]
            contenders = {checks: lambda checks=checks: execute(command, folder, checks) for checks in CHECKS}
            times = common.interleave(contenders, options.rounds)
            millions = execute(command, folder, "none")
            for checks, values in times.items():
                rate, spread = common.median_and_spread([1e3 / value for value in values])
                records.add(f"{case}/{checks}", rate, "M warp instructions/s", spread,
                            seconds=statistics.median(values) * millions / 1e3, warp_instructions=int(millions * 1e6))
    if options.json:
        records.write(options.json, common.facts(lowlevel.Context()))


if __name__ == "__main__":
    main()
