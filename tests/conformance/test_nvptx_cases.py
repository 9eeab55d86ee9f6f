# SPDX-License-Identifier: Apache-2.0
"""Named cases of attend and of the page kernels on the NVIDIA target: every length up to two pages, warps and blocks in
other orders, what the ISA leaves open, values on which arithmetic of few bits goes wrong first, and findings as failures.
"""

from dataclasses import replace

import numpy as np
import pytest

import kernels
import kvq
import tolerances
from attend_kernel import AttendCase, Sequence, laid_out, prepare_attend, ragged_sequences
from checks import (
    assert_same_bits, check_attend, check_pages, compare_attend, compare_partials, kernel, kernel_of, seed_of,
)  # fmt: skip
from class_corners import CORNERS, PAIRS
from kernels import Shape
from simulated import DEVICE, MAGIC, PtxKernel, SimulatedKernel, on_simulator, ptx_of, simulated_kernel, usual_level

LEVEL = usual_level()
MODES = {
    "sums one after the other": dict(mma="sequential"),
    "sums cut off as tensor cores do": dict(mma="truncate"),
    "approximate functions disturbed": dict(approx="ulp", seed=3),
    "lanes that go their own way": dict(schedule="lowest-pc", seed=1),
    "another order of blocks and warps": dict(seed=2),
    "yet another, cut off": dict(seed=5, schedule="lowest-pc", mma="truncate"),
}
WIDTHS = {2: "k2c32-v2t32", 4: "k4c32-v4t32", 8: "k8c32-v8t32"}


def of(pair, **options):
    return Shape(**(dict(pair=pair, page=64, dk=64, dv=64, ratio=4, dtype="f16", rows=8, profile="mma") | options))


# ---- lengths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("pair", ["k{0}c32-v{0}t32", "k{0}t32-v{0}t32", "k{0}c32-v{0}c32"])
def test_every_length(pair, bits):
    """One launch of a sequence of every length up to two pages and a little; lengths that end a page in more parts."""
    shape = of(pair.format(bits))
    sequences = [Sequence(length, 1, 1 + (length % 64 == 0)) for length in range(2 * shape.page + 3)]
    check_attend(AttendCase(shape, sequences), LEVEL)


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_length_of_the_default_page(bits):
    """Pages of 128 tokens, which are a tile each, in one launch of 259 sequences of unequal length."""
    shape = of(f"k{bits}c128-v{bits}t128", page=128, dk=128, dv=128, ratio=1)
    sequences = [Sequence(length, 1, 1 + (length % 64 == 0)) for length in range(2 * shape.page + 3)]
    check_attend(AttendCase(shape, sequences), LEVEL)


@pytest.mark.parametrize("pair", ["k4c32-v4t32", "k4t32-v4t32"])
@pytest.mark.parametrize("window", [1, 33, 100, 2**40])
def test_window_c1_attend(pair, window):
    shape = of(pair, ratio=3, rows=8, window=True)
    sequences = [*ragged_sequences(shape), Sequence(20, 4, keep=9), Sequence(300, 32, 2, keep=2)]
    for exact in (False, True):
        check_attend(AttendCase(shape, sequences, window=window, exact_ranges=exact), LEVEL)


@pytest.mark.parametrize("pair, lag", [("k4c32-v4t32", False), ("k2c32-v2t32", True), ("k4t32-v4t32", False)])
def test_commit_c7_attend(pair, lag):
    shape = of(pair, ratio=2, lag=lag)
    sequences = [Sequence(90, 3, 2, keep=keep) for keep in (1, 31, 32, 33, 64, 100)]
    sequences += [Sequence(-40, 4, keep=64), Sequence(-2, 5, keep=64), Sequence(0, 1, 2, keep=7)]
    check_attend(AttendCase(shape, sequences), LEVEL)


@pytest.mark.parametrize("rows", [8, 16])
@pytest.mark.parametrize("pair, lag", [("k4c32-v4t32", False), ("k2c32-v2t32", True), ("k8t64-v8c64", False)])
def test_chunks_of_queries(pair, lag, rows):
    """Programs of several queries, ranges that fit each of them, more splits than pages."""
    shape = of(pair, rows=rows, lag=lag)
    sequences = [Sequence(0, 32), Sequence(150, 32, 2), Sequence(112, 31), Sequence(3, 1, 3), Sequence(170, 1, 6)]
    for exact in (False, True):
        check_attend(AttendCase(shape, sequences, exact_ranges=exact), LEVEL)


@pytest.mark.parametrize(
    "pair, lag, frontiers",
    [
        ("k4t32-v4t32", False, [(93, 93), (1, 1), (64, 64), (127, 127)]),
        ("k4c32-v8t64", False, [(96, 96), (128, 128)]),
        ("k2c32-v2t32", True, [(96, 77), (160, 151), (160, 96)]),
    ],
)
def test_crop_c1_attend(pair, lag, frontiers):
    shape = of(pair, ratio=3, lag=lag)
    sequences = [Sequence(max(front) + more, 4, 2, 3, front) for front in frontiers for more in (0, 9)]
    check_attend(AttendCase(shape, sequences), LEVEL)


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["subnormal", "constant", "tie", "wide", "tiny", "zero", "clipped"])
@pytest.mark.parametrize("pair", [*WIDTHS.values(), "k8t64-v8c64", "k4t16-v8t48"])
def test_corner_values_are_bit_equal(pair, rows):
    dtype = ["f16", "bf16", "f32"][(len(pair) + len(rows)) % 3]
    size = 96 if "48" in pair else 64
    check_pages(of(pair, dk=size, dv=size, dtype=dtype), LEVEL, getattr(kernels, f"{rows}_rows"))


def rows_of_size(exponent):
    def rows_of(rng, shape, which, tokens):
        x = rng.standard_normal((kernels.KV_HEADS, tokens, shape.head_dim[which])) * 2.0**exponent
        return kernels.round_to(np.clip(x, -65280, 65280), shape.dtype)

    return rows_of


SIZES = [("f16", -10), ("f16", 14), ("bf16", -12), ("bf16", 16), ("f32", -18), ("f32", 16)]
"""Exponents of K and V, the opposite of q: as small as a dtype's classes hold, and so large that scales are at the end
of f16's range."""


@pytest.mark.parametrize("accuracy", ["exact", "full"])
@pytest.mark.parametrize("dtype, exponent", SIZES)
@pytest.mark.parametrize("pair", PAIRS)
def test_values_of_any_size(pair, dtype, exponent, accuracy):
    """Coefficients are halves: neither do they overflow, nor lose bits below 2^-14."""
    shape = of(pair, dk=128, dv=128, dtype=dtype, lag=PAIRS[pair], accuracy=accuracy)
    case = AttendCase(shape, ragged_sequences(shape), rows_of=rows_of_size(exponent), q_size=2.0**-exponent)
    launch, reference = (prepare_attend(np.random.default_rng(seed_of(shape)), case) for _ in range(2))
    ref = reference.run(kernel("ref", None, case.shape.request("attend")))
    compare_attend(case, LEVEL, launch, launch.run(kernel_of(LEVEL, "attend", case.shape)), ref)


def classes_of(index, full):
    """The default class always, another in turn."""
    others = [name for name in tolerances.CLASSES if name != "exact"]
    return tolerances.CLASSES if full else ("exact", others[index % len(others)])


SUMS = ("exact", "truncate", "sequential")


def sums_of(index, full):
    """The ways of tensor cores to add, in turn."""
    return SUMS if full else (SUMS[index % len(SUMS)],)


def pytest_generate_tests(metafunc):
    if "corner" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        cases = [(corner, pair) for corner in CORNERS for pair in PAIRS]
        cases = [(*case, name) for index, case in enumerate(cases) for name in classes_of(index, full)]
        cases = [(*case, mma) for index, case in enumerate(cases) for mma in sums_of(index, full)]
        metafunc.parametrize("corner, pair, accuracy, mma", cases, ids=["-".join(case) for case in cases])
    if "magic_mode" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        cases = [(mode, pair, accuracy) for i, pair in enumerate(MAGIC_PAIRS) for j, accuracy in enumerate(tolerances.CLASSES)
                 for mode in magic_modes_of(i + j, full)]  # fmt: skip
        metafunc.parametrize("magic_mode, pair, accuracy", cases, ids=["-".join(case) for case in cases])


def test_attention_c4_attend(corner, pair, accuracy, mma):
    """test_classes.py's corners, in programs of 8 rows of which two queries of four heads have all."""
    shape = of(pair, dk=128, dv=128, dtype="f32", lag=PAIRS[pair], accuracy=accuracy)
    case = CORNERS[corner](shape)
    launch, reference = (prepare_attend(np.random.default_rng(seed_of(corner, pair)), case) for _ in range(2))
    ref = reference.run(kernel("ref", None, case.shape.request("attend")))
    compare_attend(case, LEVEL, launch, launch.run(simulated_kernel(LEVEL, case.shape.request("attend"), mma=mma)), ref)


# ---- what the ISA leaves open ----------------------------------------------------------------------------------------


def run_in(mode, case):
    launch = prepare_attend(np.random.default_rng(seed_of("modes", case.shape)), case)
    return launch, launch.run(simulated_kernel(LEVEL, case.shape.request("attend"), **mode))


@pytest.mark.parametrize("accuracy", ["exact", "full", "normal"])
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("mode", MODES)
def test_modes(mode, bits, accuracy):
    """Every mode within the class's budget."""
    shape = of(WIDTHS[bits], ratio=3, lag=bits == 2, accuracy=accuracy)
    case = AttendCase(shape, ragged_sequences(shape))
    launch, outputs = run_in(MODES[mode], case)
    compare_partials(outputs, launch, mode, case.budget)


@pytest.mark.parametrize("bits", WIDTHS)
def test_modes_of_order_change_no_bit(bits):
    shape = of(WIDTHS[bits])
    case = AttendCase(shape, ragged_sequences(shape))
    _, plain = run_in({}, case)
    for mode in (dict(seed=7), dict(seed=8, schedule="lowest-pc"), dict(threads=2)):
        _, outputs = run_in(mode, case)
        for name, output in outputs.items():
            assert_same_bits(output, plain[name], f"{name} in {mode}")


def zero_mean_rows(rng, shape, which, tokens):
    """A flat softmax: keys that differ by little, values around 0."""
    x = rng.standard_normal((kernels.KV_HEADS, tokens, shape.head_dim[which]))
    return kernels.round_to(x * (0.02 if which == "K" else 1.0), shape.dtype)


FLAT = [(mode, accuracy) for mode in SUMS for accuracy in ("exact", "normal", "full")]


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("mode, accuracy", FLAT)
def test_a_long_flat_context(mode, accuracy, bits):
    """Sums over unsigned codes grow with the context while what comes of them does not; and tensor cores cut off what
    they add, which loses in one direction."""
    shape = of(f"k{bits}c128-v{bits}t128", page=128, dk=128, dv=128, accuracy=accuracy)
    case = AttendCase(shape, [Sequence(8192, 1)], rows_of=zero_mean_rows)
    launch, outputs = run_in(dict(mma=mode), case)
    compare_partials(outputs, launch, mode, case.budget)


# ---- halves below 2^-14 ---------------------------------------------------------------------------------------------


@on_simulator
@pytest.mark.parametrize("bits", WIDTHS)
def test_hardware_that_flushes_subnormal_halves_needs_its_own_kernels(bits):
    """Codes are subnormal halves: where these are flushed, the result is plainly wrong."""
    shape = of(WIDTHS[bits], ratio=3)
    ptx = ptx_of(LEVEL, shape.request("attend"))  # which a context in this mode would not take
    launch = prepare_attend(np.random.default_rng(bits), AttendCase(shape, ragged_sequences(shape)))
    outputs = launch.run(PtxKernel(LEVEL, ptx, dict(subnormals="flush")))
    with pytest.raises(AssertionError, match="relative rms|lse"):
        compare_partials(outputs, launch, "flush", 0.1)


FLUSH = dict(subnormals="flush")
MAGIC_MODES = {"flushed": FLUSH, "flushed, cut off": FLUSH | dict(mma="truncate"), "kept": {}}
MAGIC_PAIRS = (*PAIRS, "k8t32-v8c32", "k2c32-v2t32")


def magic_modes_of(index, full):
    """One in turn."""
    return tuple(MAGIC_MODES) if full else (tuple(MAGIC_MODES)[index % len(MAGIC_MODES)],)


def run_magic(mode, case):
    """On a GPU that flushes, a context takes this form by itself; on another it is asked for."""
    level = LEVEL if "subnormals" in mode else LEVEL + MAGIC
    launch, reference = (prepare_attend(np.random.default_rng(seed_of("magic", case.shape)), case) for _ in range(2))
    opened = simulated_kernel(level, case.shape.request("attend"), **mode)
    assert opened.opened()[0].level == LEVEL + MAGIC
    return launch, launch.run(opened), reference


def test_kernels_without_subnormal_halves(magic_mode, pair, accuracy):
    shape = of(pair, dk=128, dv=128, lag=PAIRS.get(pair, False), accuracy=accuracy, dtype="bf16")
    case = AttendCase(shape, ragged_sequences(shape))
    launch, outputs, reference = run_magic(MAGIC_MODES[magic_mode], case)
    ref = reference.run(kernel("ref", None, shape.request("attend")))
    compare_partials(outputs, launch, magic_mode, case.budget)
    seen = np.isfinite(ref["lse"]) & np.isfinite(outputs["lse"])
    error = tolerances.relative_rms(outputs["o"][seen], ref["o"][seen])
    assert error <= tolerances.two_devices_rms(case.budget)


@pytest.mark.parametrize("dtype, exponent", SIZES)
@pytest.mark.parametrize("pair", PAIRS)
def test_kernels_without_subnormal_halves_take_values_of_any_size(pair, dtype, exponent):
    shape = of(pair, dk=128, dv=128, dtype=dtype, lag=PAIRS[pair])
    case = AttendCase(shape, ragged_sequences(shape), rows_of=rows_of_size(exponent), q_size=2.0**-exponent)
    launch, outputs, _ = run_magic(FLUSH, case)
    compare_partials(outputs, launch, "flush", case.budget)


@pytest.mark.parametrize("mma", ["exact", "truncate"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_a_long_flat_context_without_subnormal_halves(bits, mma):
    shape = of(f"k{bits}c128-v{bits}t128", page=128, dk=128, dv=128)
    case = AttendCase(shape, [Sequence(8192, 1)], rows_of=zero_mean_rows)
    launch, outputs, _ = run_magic(FLUSH | dict(mma=mma), case)
    compare_partials(outputs, launch, "flush", case.budget)


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_outputs_are_not_read():
    """Memory that a kernel only writes begins uninitialised: a read would be a finding."""
    shape = of("k4c32-v4t32")
    case = AttendCase(shape, ragged_sequences(shape))
    rng = np.random.default_rng(1)
    o, lse = (rng.standard_normal((2, 3, shape.q_heads, *size)).astype(np.float32) for size in ((64,), ()))
    for op, launch in (
        ("attend", prepare_attend(rng, case)),
        ("append", kernels.prepare_append(rng, shape)),
        ("dequantize_k", kernels.prepare_dequantize(rng, shape, "K")),
        ("dequantize_v", kernels.prepare_dequantize(rng, shape, "V")),
        ("merge", kernels.prepare_merge(rng, shape, o, lse, [1, 2, 2])),
    ):
        opened = kernel_of(LEVEL, op, shape)
        fresh = [name for name in launch.outputs if op != "append" or name == "status"]
        before = opened.unwritten
        opened.unwritten = [launch.outputs[name] for name in fresh]
        try:
            launch.run(opened)
        finally:
            opened.unwritten = before


@on_simulator
def test_a_finding_is_a_failure_and_the_next_launch_works():
    """An item that points behind the pool."""
    shape = of("k4c32-v4t32")
    launch = prepare_attend(np.random.default_rng(2), AttendCase(shape, [Sequence(200, 1)]))
    table = launch.args[7]
    table[...] = np.where(table >= 0, table + 1000, table)
    with pytest.raises(kvq.InvalidArgument, match="bounds: "):
        launch.run(kernel_of(LEVEL, "attend", shape))
    check_attend(AttendCase(shape, [Sequence(200, 1)]), LEVEL)


@pytest.mark.parametrize("bits", WIDTHS)
def test_where_pages_lie_changes_no_bit(bits):
    shape = of(WIDTHS[bits], page=128, dk=128, dv=128)
    launch = prepare_attend(np.random.default_rng(bits), AttendCase(shape, [Sequence(700, 2, 3), Sequence(400, 1)]))
    first = {name: output.copy() for name, output in launch.run(kernel_of(LEVEL, "attend", shape)).items()}
    outputs = laid_out(launch, "runs").run(kernel_of(LEVEL, "attend", shape))
    for name, output in outputs.items():
        assert_same_bits(output, first[name], name)


@pytest.mark.parametrize("accuracy", ["exact", "full"])
@pytest.mark.parametrize("warps", [1, 2, 4])
@pytest.mark.parametrize("pair, lag", [("k4c32-v4t32", False), ("k2c32-v2t32", True), ("k8t64-v8c64", False)])
def test_warps_of_a_program(pair, lag, warps, accuracy):
    """Any number of them gives the answer, in any order; contexts with fewer tiles than warps among them, and blocks
    some of whose programs do not exist."""
    shape = of(pair, page=128, ratio=3, rows=8, lag=lag, accuracy=accuracy)
    text = "tile_tokens=64,rows=1,vectors=1,prefetch=1" + (f",warps={warps}" if warps > 1 else "")
    sequences = [*ragged_sequences(shape), Sequence(5, 1), Sequence(1000, 1, 3), Sequence(150, 4, keep=100)]
    case = AttendCase(shape, sequences)
    for mode in ({}, dict(seed=7), dict(seed=8, schedule="lowest-pc")) if DEVICE == "ptxsim" else ({},):
        launch = prepare_attend(np.random.default_rng(warps), case)
        kernel = SimulatedKernel(LEVEL, shape.request("attend"), mode, text)
        compare_partials(launch.run(kernel), launch, str(mode), case.budget)


def test_more_programs_than_warps():
    """Grids whose last block has warps without a program."""
    for queries in (1, 2, 3, 5):
        shape = replace(of("k4c32-v4t32"), ratio=1)
        check_attend(AttendCase(shape, [Sequence(70, queries)]), LEVEL)
