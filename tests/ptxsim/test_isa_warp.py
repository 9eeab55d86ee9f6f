# SPDX-License-Identifier: Apache-2.0
"""Instructions between lanes and on memory in the simulator against isa/: shfl, vote, match, redux, atom, cp.async."""

import numpy as np
import pytest

import ptx_run
from isa import kernels, memory, warp
from isa_run import assert_codes, run_lanes, words

WARPS = 64
# Runs the instruction in the lanes of %mask only; the others keep what their results held before.
MEMBERS = """
.reg .pred %in, %p, %q;
.reg .b32 %bit;
mov.b32 %y0_0, 0xdead;
mov.b32 %y1_0, 0xdead;
shr.u32 %bit, %x0_0, %t;
and.b32 %bit, %bit, 1;
setp.ne.u32 %in, %bit, 0;
@!%in bra DONE;
{instruction}
DONE:
"""
# What the predicate %p says, as a number.
PREDICATE = "selp.u32 %y1_0, 1, 0, %p;"


def masks(rng):
    """One mask for each warp: full, halves, single lanes, random ones."""
    chosen = [warp.FULL, 0xFFFF, 0xFFFF0000, 1, 1 << 31, 0x55555555] + rng.integers(1, 1 << 32, WARPS - 6).tolist()
    return np.repeat(np.array(chosen, dtype=np.uint32), 32)


def compare_warps(instruction, mask, arrays, reference):
    """y0 and y1 of each member against reference(membermask, the 32 values of each array) -> 32 pairs."""
    body = MEMBERS.replace("{instruction}", instruction)
    first, second = run_lanes(body, [mask, *arrays], [("b32", 1), ("b32", 1)])
    for w in range(len(mask) // 32):
        lanes = slice(32 * w, 32 * w + 32)
        membermask = int(mask[32 * w])
        pairs = reference(membermask, *([int(v) for v in a[lanes]] for a in arrays))
        for lane in warp.members(membermask):
            found = (int(first[lanes][lane, 0]), int(second[lanes][lane, 0]))
            expected = tuple(0xDEAD if value is None else int(value) for value in pairs[lane])
            assert found == expected, f"{instruction} mask {membermask:#x} warp {w} lane {lane}: {found} != {expected}"
        for lane in set(range(32)) - set(warp.members(membermask)):
            assert int(first[lanes][lane, 0]) == 0xDEAD, "a lane outside the mask was written"


# ---- shfl ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("uniform", [True, False], ids=["uniform", "by-lane"])
def test_shfl(mode, uniform):
    """Random sources, clamps and segment masks; b and c equal in a warp, as compilers write it, or of each lane."""
    rng = np.random.default_rng(21)
    count = 32 * 4 * WARPS
    a, b = words(rng, count), rng.integers(0, 48, count, dtype=np.uint32)
    clamp = rng.choice([0, 31, 31, 7, 15, 21], count)
    segment = rng.choice([0, 0x1F, 0x1E, 0x1C, 0x18, 0x10, 0x0A], count)
    c = (segment << 8 | clamp).astype(np.uint32)
    if uniform:
        b, c = np.repeat(b[::32], 32), np.repeat(c[::32], 32)
    mask = np.full(count, warp.FULL, dtype=np.uint32)
    compare_warps(
        f"shfl.sync.{mode}.b32 %y0_0|%p, %x1_0, %x2_0, %x3_0, %x0_0;\n{PREDICATE}", mask, [a, b, c],
        lambda m, *x: warp.shfl(mode, *x, m),
    )


def test_shfl_of_some_lanes():
    """Lanes of the mask read lanes of the mask; the result of any other source is undefined."""
    rng = np.random.default_rng(22)
    mask = masks(rng)
    a, c = words(rng, len(mask)), np.full(len(mask), 31, dtype=np.uint32)
    b = np.array([rng.choice(warp.members(int(m))) for m in mask], dtype=np.uint32)
    compare_warps(
        f"shfl.sync.idx.b32 %y0_0|%p, %x1_0, %x2_0, %x3_0, %x0_0;\n{PREDICATE}", mask, [a, b, c],
        lambda m, *x: [pair or (0, 0) for pair in warp.shfl("idx", *x, m)],
    )


# ---- vote, match, redux --------------------------------------------------------------------------------------------
def flags(rng, mask):
    """Truth values: mixed, all 0 and all 1 warps in turn."""
    mixed = rng.integers(0, 2, len(mask), dtype=np.uint32)
    kind = np.repeat(np.arange(len(mask) // 32) % 4, 32)
    return np.where(kind == 0, 0, np.where(kind == 1, 1, mixed)).astype(np.uint32)


@pytest.mark.parametrize("mode", ["all", "any", "uni"])
def test_vote(mode):
    rng = np.random.default_rng(23)
    mask = masks(rng)
    compare_warps(
        f"setp.ne.u32 %q, %x1_0, 0;\nvote.sync.{mode}.pred %p, %q, %x0_0;\n{PREDICATE}\nmov.b32 %y0_0, 0;", mask,
        [flags(rng, mask)], lambda m, a: [(0, warp.vote(mode, a, m))] * 32,
    )


def test_vote_ballot():
    rng = np.random.default_rng(24)
    mask = masks(rng)
    compare_warps(
        "setp.ne.u32 %q, %x1_0, 0;\nvote.sync.ballot.b32 %y0_0, %q, %x0_0;", mask, [flags(rng, mask)],
        lambda m, a: [(warp.vote("ballot", a, m), None)] * 32,
    )


@pytest.mark.parametrize("width", [32, 64])
def test_match(width):
    rng = np.random.default_rng(25)
    mask = masks(rng)
    # Few different values, in the upper half too; the values of every fourth warp are equal.
    few = np.array([0, 1, 1 << (width - 1), (1 << width) - 1], dtype=f"uint{width}")
    a = few[np.where(np.repeat(np.arange(WARPS) % 4, 32) == 0, 1, rng.integers(0, 4, len(mask)))]
    compare_warps(
        f"match.any.sync.b{width} %y0_0, %x1_0, %x0_0;", mask, [a],
        lambda m, x: [(d, None) for d in warp.match_any(x, m)],
    )
    compare_warps(
        f"match.all.sync.b{width} %y0_0|%p, %x1_0, %x0_0;\n{PREDICATE}", mask, [a],
        lambda m, x: [warp.match_all(x, m)] * 32,
    )


REDUX = [(op, kind) for op in ("add", "min", "max") for kind in ("u32", "s32")] + [
    (op, "b32") for op in ("and", "or", "xor")
]


@pytest.mark.parametrize("operation,kind", REDUX)
def test_redux(operation, kind):
    rng = np.random.default_rng(26)
    mask = masks(rng)
    compare_warps(
        f"redux.sync.{operation}.{kind} %y0_0, %x1_0, %x0_0;", mask, [words(rng, len(mask))],
        lambda m, x: [(warp.redux(operation, kind, x, m), None)] * 32,
    )


# ---- atom ----------------------------------------------------------------------------------------------------------
ATOMICS = [
    ("inc", "u32"), ("dec", "u32"), ("cas", "b32"), ("cas", "b64"), ("exch", "b32"), ("exch", "b64"),
    *((op, kind) for op in ("add", "min", "max") for kind in ("u32", "s32", "u64")), ("min", "s64"), ("max", "s64"),
    *((op, kind) for op in ("and", "or", "xor") for kind in ("b32", "b64")),
]


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("operation,kind", ATOMICS)
def test_atom(operation, kind, space):
    """Each thread its own location: what it held before and what it holds afterwards."""
    rng = np.random.default_rng(27)
    width = int(kind[1:])
    old, b, c = (words(rng, 320, width) for _ in range(3))
    # Equal operands and neighbours are where inc, dec and cas turn.
    b[::3] = old[::3]
    b[1::6] = old[1::6] + np.array(1, dtype=old.dtype)
    typ = f"b{width}"
    place = "%o1" if space == "global" else "%place"
    third = ", %x2_0" if operation == "cas" else ""
    body = f"""
.reg .b32 %place;
.reg .{typ} %after;
mov.u32 %place, buffer;
mad.lo.u32 %place, %t, 8, %place;
st.{space}.{typ} [{place}], %x0_0;
atom.{space}.{operation}.{kind} %y0_0, [{place}], %x1_0{third};
ld.{space}.{typ} %after, [{place}];
st.global.{typ} [%o1], %after;
"""
    before, after = run_lanes(body, [old, b, c], [(typ, 1), (typ, 1, "body")], shared=256)
    assert_codes(before, old, [old, b, c], f"atom.{operation} before")
    expected = [memory.atom(operation, kind, *(int(v) for v in row)) for row in zip(old, b, c, strict=True)]
    assert_codes(after, expected, [old, b, c], f"atom.{space}.{operation}.{kind}")


@pytest.mark.parametrize("operation", ["inc", "dec"])
def test_atom_of_one_location(operation):
    """128 threads step one counter: in whatever order, the values before are the first 128 of the cycle."""
    bound, threads = 40, 128
    body = f"""
.reg .pred %first;
.reg .b32 %place;
mov.u32 %place, buffer;
setp.eq.u32 %first, %t, 0;
@%first st.shared.u32 [%place], %x0_0;
bar.sync 0;
atom.shared.{operation}.u32 %y0_0, [%place], {bound};
bar.sync 0;
ld.shared.u32 %y1_0, [%place];
"""
    start = np.full(threads, 3, dtype=np.uint32)
    before, after = run_lanes(body, [start], [("b32", 1), ("b32", 1)], block=threads, shared=16)
    cycle = [3]
    for _ in range(threads):
        cycle.append(memory.atom(operation, "u32", cycle[-1], bound))
    assert sorted(before.ravel().tolist()) == sorted(cycle[:threads])
    assert set(after.ravel().tolist()) == {cycle[threads]}


# ---- cp.async ------------------------------------------------------------------------------------------------------
def cp_async_kernel(cache, size, operands):
    fill = "\n".join(f"st.shared.b32 [%place+{4 * i}], 0xaaaaaaaa;" for i in range(4))
    back = "\n".join(f"ld.shared.b32 %y0_{i}, [%place+{4 * i}];" for i in range(4))
    body = f"""
.reg .b32 %place;
.reg .b64 %source;
.reg .pred %ignore;
mov.u32 %place, buffer;
mad.lo.u32 %place, %t, 16, %place;
{fill}
add.s64 %source, %a0, %x2_0;
setp.ne.u32 %ignore, %x1_0, {size};
cp.async.{cache}.shared.global [%place], [%source], {size}{operands};
cp.async.commit_group;
cp.async.wait_group 0;
{back}
"""
    inputs = [("b8", 16, "body"), ("b32", 1), ("b64", 1)]
    return kernels.lane_kernel(body, inputs, [("b32", 4)], shared=".shared .align 16 .b8 buffer[1024];")


@pytest.mark.parametrize("cache,size", [("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)])
@pytest.mark.parametrize("when", ["latest", "earliest", "random"])
def test_cp_async_fills_with_zeros(cache, size, when):
    """Sources end with the buffer where a size says so; of nothing, the source lies far outside."""
    sizes = np.array([i % (size + 1) for i in range(64)], dtype=np.uint32)
    far = np.where(sizes == 0, 1 << 30, 0).astype(np.uint64)
    sizes[63], far[63] = size - 1, 0
    data = np.random.default_rng(28).integers(1, 256, 63 * 16 + size - 1, dtype=np.uint8)
    ptx = cp_async_kernel(cache, size, ", %x1_0")
    arguments = [ptx_run.In(data), ptx_run.In(sizes), ptx_run.In(far), ptx_run.Out((64, 4), "uint32")]
    (found,), _ = ptx_run.run(ptx, 1, 64, *arguments, cp_async=when)
    for i, row in enumerate(found):
        expected = memory.cp_async(data[16 * i :].tobytes(), size, int(sizes[i])) + b"\xaa" * (16 - size)
        assert row.tobytes() == expected, f"{size} bytes, source size {sizes[i]}"


def test_cp_async_without_a_source_size():
    data = np.random.default_rng(29).integers(1, 256, 64 * 16, dtype=np.uint8)
    arguments = [
        ptx_run.In(data), ptx_run.In(np.zeros(64, np.uint32)), ptx_run.In(np.zeros(64, np.uint64)),
        ptx_run.Out((64, 4), "uint32"),
    ]
    (found,), _ = ptx_run.run(cp_async_kernel("cg", 16, ""), 1, 64, *arguments)
    assert found.tobytes() == data.tobytes()


def test_cp_async_ignored():
    """Where the predicate ignore-src holds, nothing is read and zeros are written."""
    sizes = np.where(np.arange(64) % 2, 16, 0).astype(np.uint32)
    data = np.random.default_rng(30).integers(1, 256, 64 * 16, dtype=np.uint8)
    arguments = [
        ptx_run.In(data), ptx_run.In(sizes), ptx_run.In(np.zeros(64, np.uint64)), ptx_run.Out((64, 4), "uint32")
    ]
    (found,), _ = ptx_run.run(cp_async_kernel("cg", 16, ", %ignore"), 1, 64, *arguments)
    for i, row in enumerate(found):
        assert row.tobytes() == memory.cp_async(data[16 * i :].tobytes(), 16, int(sizes[i]))
