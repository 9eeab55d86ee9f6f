# SPDX-License-Identifier: Apache-2.0
"""Pages of one layout profile as pages of another (layout_c9), on every level of the host, on device `ref` and in the
simulator: bit-equal to the oracle, which unpacks and packs by its own layouts; and with quantize and dequantize."""

import numpy as np
import pytest

import kernels
import pairwise
from checks import assert_same_bits, context, kernel, levels, run_everywhere, seed_of
from kernels import KV_HEADS, LAYOUTS, Pool, Shape
from kvq import Error, lowlevel
from simulated import context_of, device_of

PROFILES = ("vnni", "mma", "kivi")
LEVELS = [*levels(), "nvptx:sm_80"]
PARAMETERS = {
    "profiles": [(before, after) for before in PROFILES for after in PROFILES if before != after],
    "level": LEVELS,
    "k": [f"{bits}{axis}" for bits in (4, 2, 8) for axis in "ct"],
    "v": [f"{bits}{axis}" for bits in (4, 2, 8) for axis in "tc"],
    "group_k": [32, 64, 128, 16],
    "group_v": [32, 64, 128, 16],
    "head_k": [128, 64, 80, 96, 256, 16],
    "head_v": [128, 64, 80, 96, 256, 16],
    "page": [64, 128, 32, 96, 256],
}


def allowed(row):
    """text_c1, text_c2, page_c1: what a group divides."""
    for side in "kv":
        axis, group = row.get(side), row.get(f"group_{side}")
        if axis is None or group is None:
            continue
        if axis[1] == "c" and (group == 16 or row.get("page", group) % group):
            return False
        if axis[1] == "t" and row.get(f"head_{side}", group) % group:
            return False
    return True


def shape_of(row):
    pair = f"k{row['k']}{row['group_k']}-v{row['v']}{row['group_v']}"
    return Shape(pair, row["page"], row["head_k"], row["head_v"], profile=row["profiles"][1], before=row["profiles"][0])


CASES = [(shape_of(row), row["level"]) for row in pairwise.covering_array(PARAMETERS, allowed)]


@pytest.mark.parametrize(
    "shape, level",
    CASES,
    ids=[f"{s.before}-{s.profile}-{s.pair}-p{s.page}-d{s.dk}.{s.dv}-{level}" for s, level in CASES],
)
def test_layout_c9_is_bit_equal(shape, level):
    for which in "KV":
        op = f"convert_{which.lower()}"
        for layout in LAYOUTS:
            launch, outputs, ref = run_everywhere(level, op, shape, kernels.prepare_convert, shape, which, layout)
            assert_same_bits(ref["pool"], launch.expected["pool"], f"ref: {op}, {layout}")
            assert_same_bits(outputs["pool"], launch.expected["pool"], f"{level}: {op}, {layout}")


def run(level, op, shape, *args):
    kernel(device_of(level), level, shape.request(op)).launch([kernels.as_dlpack(arg) for arg in args], grid=(2, 1, 1))


def quantized(level, shape, rows):
    """A page of each of the KV heads."""
    pool = Pool.of(shape, 1, "blocks")
    items = np.zeros(KV_HEADS, kernels.QUANTIZE_ITEM)
    items["kv_head"], items["count"] = range(KV_HEADS), shape.page
    for which, op in (("K", "quantize_k"), ("V", "quantize_v")):
        run(level, op, shape, items, pool.data, *pool.strides, rows[which], shape.page, shape.page, KV_HEADS)
    return pool


def converted(level, shape, pool):
    other = Pool.of(shape, 1, "blocks")
    items = np.zeros(KV_HEADS, kernels.CONVERT_ITEM)
    items["kv_head"] = range(KV_HEADS)
    for op in ("convert_k", "convert_v"):
        run(level, op, shape, items, pool.data, *pool.strides, other.data, *other.strides)
    return other


def dequantized(level, shape, pool, which):
    items = np.zeros(KV_HEADS, kernels.DEQUANTIZE_ITEM)
    out = np.zeros((KV_HEADS, shape.page, shape.head_dim[which]), np.float32)
    items["out_offset"], items["kv_head"], items["count"] = np.arange(KV_HEADS) * out[0].size, range(KV_HEADS), shape.page
    run(level, f"dequantize_{which.lower()}", shape, items, pool.data, *pool.strides, out, shape.head_dim[which])
    return out


@pytest.mark.parametrize("level", [LEVELS[0], levels()[-1], "nvptx:sm_80"])
@pytest.mark.parametrize("pair, page", [("k2c32-v2t32", 64), ("k4c64-v8t64", 128), ("k8t128-v4c128", 128)])
def test_layout_c9_there_and_back(pair, page, level):
    """What a page means does not change: it is the page that quantizing makes in the other profile, it dequantizes to
    the same values, and converted back it is what it was, zeros between its sections included."""
    vnni = Shape(pair, page, 128, 128, profile="vnni", before="mma")
    mma = Shape(pair, page, 128, 128, profile="mma", before="vnni")
    rng = np.random.default_rng(seed_of(pair))
    rows = {which: kernels.random_rows(rng, vnni, which, page)[None] for which in "KV"}
    first = quantized(level, vnni, rows)
    moved = converted(level, mma, first)
    assert_same_bits(moved.data, quantized(level, mma, rows).data, "converted and quantized")
    assert np.any(moved.data != first.data)
    for which in "KV":
        values = dequantized(level, vnni, first, which)
        assert np.any(values)
        assert_same_bits(dequantized(level, mma, moved, which), values, f"values of {which}")
    assert_same_bits(converted(level, vnni, moved).data, first.data, "there and back")


@pytest.mark.parametrize("format", ["k2c32-v4t32/w32,sliding", "k8t16-v2c64/w64,block", "k4c32-v8t64/w32,keep4,block"])
def test_snapshot_c3_from_a_cpu_to_a_gpu_and_back(format):
    """A sequence goes on on another device, where its pages are what that device asks for, and comes back as it was."""
    caches = [
        lowlevel.Cache(where, format, layers=2, q_heads=2, kv_heads=2, dk=64, dv=128, blocks=8, sequences=2)
        for where in (context("cpu"), context_of("nvptx:sm_80", ()), context("cpu"))
    ]
    rng, sequence = np.random.default_rng(3), caches[0].add()
    for tokens in (200, 1):
        with caches[0].plan([sequence], [tokens]) as step:
            for layer in range(2):
                k, v = (rng.standard_normal((1, 2, tokens, size)).astype(np.float32) for size in (64, 128))
                step.append(layer, k, v)
    first = caches[0].snapshot(sequence)
    there = caches[1].restore(first)
    assert caches[1].state(there) == caches[0].state(sequence)
    moved = caches[1].snapshot(there)
    assert b"profile=mma" in moved and b"profile" not in first
    assert caches[2].snapshot(caches[2].restore(moved)) == first


def test_layout_c10_other_widths_are_refused():
    """3 bits are in one profile only."""
    shape = Shape("k3c32-v3t32", profile="mma", before="vnni")
    with pytest.raises(Error, match="width 3 of 'k3c32-v3t32' is not legal in the profile mma"):
        lowlevel.open_kernel(lowlevel.Context("ref"), shape.request("convert_k"))
