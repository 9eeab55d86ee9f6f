# SPDX-License-Identifier: Apache-2.0
"""Kernels over a plain cache of halves, and launches of them for the simulator: plain_f16.mlir, a tile program for the same
compiler as ours, and decode_f16.cu, written by hand."""
import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent
KERNEL = "decode_f16"
CHANNELS, WARPS, TILE, THREADS = 128, 4, 64, 128
SHARED = 2 * 2 * TILE * (CHANNELS + 8) * 2  # two stages of K and V, rows 16 bytes longer for the banks
ELEMENTS_PER_ITERATION = TILE // WARPS * 2 * CHANNELS  # of a warp


def arrays(tokens, heads, group, seed=1):
    """q [heads][group][128], k and v [heads][tokens][128]."""
    random = np.random.default_rng(seed)
    shapes = {"q": (heads, group, CHANNELS), "k": (heads, tokens, CHANNELS), "v": (heads, tokens, CHANNELS)}
    return {name: random.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


def shape_bytes(tokens, heads, group, splits):
    scale = np.float32(np.log2(np.e) / CHANNELS**0.5)
    return np.array([tokens, heads, group, splits], np.int32).tobytes() + scale.tobytes()


TILE_PROGRAM = FOLDER / "plain_f16.mlir"
ROWS, TOKENS_OF_A_TILE = 8, 64  # of the tile program


def tile_arguments(tokens, group, splits):
    """What the tile program takes behind its pointers."""
    scale = float(np.float32(np.log2(np.e) / CHANNELS**0.5))
    return [tokens, tokens // splits, splits, group, scale]


def write_tile_workload(folder, tokens, heads, group, splits):
    """A workload of plain_f16.mlir: a split has whole tiles."""
    assert tokens % (splits * TOKENS_OF_A_TILE) == 0, f"{tokens} tokens are no whole tiles in {splits} splits"
    for name, array in arrays(tokens, heads, group).items():
        np.save(folder / f"{name}.npy", array)
    *numbers, scale = tile_arguments(tokens, group, splits)
    parts = heads * splits * ROWS
    word = int(np.float32(scale).view(np.uint32))
    file = folder / "plain_f16.json"
    file.write_text(json.dumps({
        "about": f"one query, {tokens} tokens in f16, {heads} KV heads, {splits} splits",
        "grid": [-(-splits // WARPS), heads, 1], "block": [THREADS],
        "arguments": ["in:q.npy", "in:k.npy", "in:v.npy", f"out:float32:{parts}x{CHANNELS}:o.npy",
                      f"out:float32:{parts}x2:s.npy", *(f"u64:{number}" for number in (*numbers, word, splits))],
        "elements": tokens * heads * 2 * CHANNELS, "elements_per_iteration": TOKENS_OF_A_TILE * 2 * CHANNELS,
    }), encoding="utf-8")  # fmt: skip
    return file


def write_workload(folder, tokens, heads, group, splits):
    """Writes a workload for `kvq inspect kernel` and returns its file."""
    for name, array in arrays(tokens, heads, group).items():
        np.save(folder / f"{name}.npy", array)
    (folder / "shape").write_bytes(shape_bytes(tokens, heads, group, splits))
    parts = heads * splits * WARPS * group
    file = folder / f"{KERNEL}.json"
    file.write_text(json.dumps({
        "about": f"one query, {tokens} tokens in f16, {heads} KV heads, {splits} splits",
        "grid": [splits, heads, 1], "block": [THREADS], "shared": SHARED,
        "arguments": ["in:q.npy", "in:k.npy", "in:v.npy", f"out:float32:{parts}x{CHANNELS}:o.npy",
                      f"out:float32:{parts}x2:s.npy", "bytes:shape"],
        "elements": tokens * heads * 2 * CHANNELS, "elements_per_iteration": ELEMENTS_PER_ITERATION,
        # One tile is asked for while the last one is worked on.
        "bytes_in_flight": ELEMENTS_PER_ITERATION * 2,
    }), encoding="utf-8")  # fmt: skip
    return file
