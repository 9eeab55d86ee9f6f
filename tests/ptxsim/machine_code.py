#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What ptxas makes of the kernels for NVIDIA: registers, static shared memory of a block and spilled bytes, by request
and processor.

    tests/ptxsim/machine_code.py --write     writes tests/golden/nvptx_ceilings.json: today's figures as ceilings
"""

import argparse
import concurrent.futures
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import toolchain  # noqa: E402
from sim_env import BUILD, ROOT  # noqa: E402

CEILINGS = ROOT / "tests/golden/nvptx_ceilings.json"
PROCESSORS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def request(operation, bits=4, group=128, dim=128, rows=8, page=128, flags="lag0:win0:cap0", dtype="f16", accuracy="exact",
            key="c"):
    tail = f"mma:p{page}:dk{dim}:dv{dim}:g4:{dtype}:rows{rows}:{flags}:{accuracy}"
    return f"{operation}:k{bits}{key}{group}-v{bits}t{min(group, dim)}:{tail}"


def shared_words():
    """Attention of profile vnni in whose groups or heads lanes share words (codegen/nvptx/Fragment.cpp), and one whose
    loops follow each other at once."""
    shapes = (("k2t32-v2c32", 128, 8), ("k2t32-v2c32", 128, 16), ("k2t32-v4t32", 128, 8), ("k4c32-v2c32", 64, 16),
              ("k2c32-v2t32", 96, 8), ("k4c32-v4c32", 80, 16), ("k2t32-v2c32", 256, 8), ("k8t32-v8c64", 64, 16))
    return [f"attend:{pair}:vnni:p64:dk{dim}:dv{dim}:g4:f16:rows{rows}:lag0:win0:cap0:exact"
            for pair, dim, rows in shapes]


def requests():
    """Attention in every width, group, head dimension and number of rows that differ in code, and the other kernels."""
    attends = [request("attend", bits, group, dim) for bits in (2, 4, 8) for group in (32, 128) for dim in (64, 128)]
    attends += [request("attend", bits, group, 256) for bits in (2, 4, 8) for group in (32, 128)]
    attends += [request("attend", bits, group, rows=16) for bits in (2, 4, 8) for group in (32, 128)]
    others = ((4, 128, 80, 8), (8, 32, 96, 8), (8, 32, 64, 16), (4, 32, 96, 16), (2, 128, 80, 16))
    attends += [request("attend", *other) for other in others]
    attends += [request("attend", group=32, page=64), request("attend", page=256)]
    attends += [request("attend", 8, 64, rows=16, page=64)]
    others = [request(operation, bits, 32) for bits in (2, 4, 8)
              for operation in ("quantize_k", "quantize_v", "dequantize_k", "dequantize_v")]
    others += [request(operation, bits, 32).replace(":mma:", ":vnni-mma:") for bits in (2, 4, 8)
               for operation in ("convert_k", "convert_v")]
    return attends + shared_words() + others + [request("append", group=32), request("merge", group=32)]


def large_halves():
    """Large heads whose query and weights are two halves an element: f32 and class full."""
    kinds = (("k4c32-v4t32:mma:p64", 256, "f16", "lag0:win0:cap0", "full"),
             ("k4c32-v4t32:mma:p64", 256, "f32", "lag0:win0:cap0", "full"),
             ("k2c64-v2t64:mma:p256", 256, "f32", "lag0:win0:cap0", "full"),
             ("k4c32-v4t32:mma:p64", 192, "f32", "lag1:win1:cap1", "full"),
             ("k8c64-v8t32:mma:p64", 192, "f32", "lag1:win0:cap0", "normal"),
             ("k4c32-v2c32:vnni:p64", 192, "f32", "lag0:win0:cap0", "normal"),
             ("k8t64-v8t96:mma:p256", 192, "bf16", "lag0:win0:cap0", "full"),
             ("k4c64-v4c64:vnni:p64", 128, "f16", "lag1:win0:cap0", "full"))
    return [f"attend:{head}:dk{dim}:dv{dim}:g4:{dtype}:rows8:{flags}:{accuracy}"
            for head, dim, dtype, flags, accuracy in kinds]


def scarce():
    """Attention that has next to no registers left: caches of which V is packed later than K, tails of f32 and bf16,
    heads of 256, and K per token."""
    lagging = [request("attend", 2, 32, dim, flags=f"lag1:win{window}:cap0") for dim in (128, 256) for window in (0, 1)]
    lagging += [request("attend", bits, 32, dim, rows, flags="lag1:win0:cap0") for bits, dim, rows in
                ((4, 128, 16), (8, 128, 8), (8, 256, 8))]
    lagging += [request("attend", 4, 32, flags="lag1:win1:cap1", dtype="bf16")]
    wide = [request("attend", dtype="f32"), request("attend", 4, 32, dtype="f32", accuracy="full")]
    bf16 = [request("attend", bits, group, 256, dtype="bf16") for bits, group in ((4, 32), (8, 128))]
    tokens = [request("attend", bits, group, dim, rows, page, key="t") for bits, group, dim, rows, page in
              ((2, 16, 128, 16, 128), (2, 16, 256, 8, 128), (4, 16, 256, 8, 128), (8, 16, 256, 8, 128),
               (4, 64, 256, 8, 64), (8, 32, 256, 8, 64), (8, 32, 256, 8, 128), (8, 64, 128, 8, 256))]
    bf16 += [request("attend", 4, 64, dim, rows, dtype="bf16", key="t") for dim, rows in ((256, 8), (128, 16))]
    return lagging + wide + large_halves() + bf16 + tokens


# At most: issue slots of the steady loop for each element of K and V, of 32 lanes (head 128, ratio 4, page 128, sm_80).
# With 2 bits some 30 of 1,030 fetch the page ahead, which an A100 needs.
LEAN = {(2, 128): 1.01, (4, 128): 0.99, (8, 128): 1.00, (2, 32): 1.24, (4, 32): 1.21, (8, 32): 1.21}


# Each has a processor that fetches pages of 2 bits ahead and one that does so of 4 bits too.
PAIRS_IN_TURN = (("sm_80", "sm_90"), ("sm_86", "sm_100"), ("sm_89", "sm_90"), ("sm_120", "sm_100"))


def processors_for(index, full):
    """Those that a test compiles request number `index` of both lists for: all with --full; else two in turn, of the
    second list, whose kernels take ptxas some 5 s, one."""
    pair = PAIRS_IN_TURN[index % len(PAIRS_IN_TURN)]
    return PROCESSORS if full else pair if index < len(requests()) else (pair[index // len(PAIRS_IN_TURN) % 2],)


def slots_per_element(bits, group):
    """Of the steady loop of attention, in machine code for sm_80: the one with most matrix products (docs/nvidia.md)."""
    from kvq.inspect import machine_code, steady, tools

    text = request("attend", bits, group)
    ptx = tools.run("kvqc", [f"--request={text}", "--target=nvptx:sm_80", "--no-bundle"]).stdout
    loop = steady.steady_loop(machine_code.compile_ptx(ptx, "kvq_entry", "sm_80").function)
    return 32 * loop.issue_slots / (128 * (128 + 128))


def figures(text, processor, schedule=""):
    """Of a kernel with its default schedule or another: registers, bytes of shared memory of a block, spilled bytes. An
    AssertionError says what kvqc or ptxas refused."""
    with tempfile.TemporaryDirectory(prefix="kvq-ptxas-") as name:
        ptx = Path(name) / "kernel.ptx"
        command = [BUILD / "bin/kvqc", f"--request={text}", f"--target=nvptx:{processor}", "--no-bundle",
                   f"--schedule={schedule}", "-o", ptx]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        command = [toolchain.toolkit() / "bin/ptxas", "-v", f"-arch={processor}", "-o", "/dev/null", ptx]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr
        stores, loads = map(int, re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said).groups())
        shared = re.search(r"(\d+) bytes smem", said)
        return {"registers": int(re.search(r"Used (\d+) registers", said)[1]),
                "shared": int(shared[1]) if shared else 0, "spilled": stores + loads}


def all_figures():
    pairs = [(text, processor) for text in requests() + scarce() for processor in PROCESSORS]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: figures(*pair), pairs))
    result = {}
    for (text, processor), figure in zip(pairs, found):
        result.setdefault(text, {})[processor] = figure
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {CEILINGS.relative_to(ROOT)}")
    options = parser.parse_args()
    found = all_figures()
    if options.write:
        lines = [f"  {json.dumps(text)}: {json.dumps(by)}" for text, by in found.items()]
        CEILINGS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    for text, by in found.items():
        print(text, *(f"{name}: {f['registers']}, {f['shared']} B" + (f" +{f['spilled']} B" if f["spilled"] else "")
                      for name, f in by.items()))


if __name__ == "__main__":
    main()
