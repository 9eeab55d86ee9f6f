# SPDX-License-Identifier: Apache-2.0
"""Every built-in kernel, as generated for each level of this host, against the oracle and against device `ref`.

Shapes: by default a pairwise covering array, with --full the whole product of formats, head sizes, dtypes, pages and
levels, through which ratio, rows, accuracy class and what only masks keys are dealt in turn; then named corners at
every level. The corners of the accuracy classes are in test_classes.py.
Without the built module the suite cannot be collected, and that is a failure.
"""

import numpy as np
import pytest

import kernels
import pairwise
from attend_kernel import ATTEND_ITEM, AttendCase, Sequence, prepare_attend, ragged_sequences
from checks import (
    assert_same_bits, check_append, check_attend, check_merge, check_pages, compare_partials, kernel, levels,
)  # fmt: skip
from kernels import Shape

PARAMETERS = {
    "bits_k": [4, 2, 8, 3],
    "bits_v": [4, 2, 8, 3],
    "axis_k": ["c", "t"],
    "axis_v": ["t", "c"],
    "group_k": [32, 64, 128, 16, "D", 256],
    "group_v": [32, 64, 128, 16, "D", 256],
    "head_dim": [64, 80, 96, 128, 192, 256],
    "ratio": [3, 1, 4, 8],
    "dtype": ["f32", "bf16", "f16"],
    "page": [64, 128, 256],
    "rows": ["ratio", 16, 5],
    "lag": [False, True],
    "window": [False, True],
    "cap": [False, True],
    "accuracy": ["full", "exact", "normal", "fast"],
}


DEALT = ("ratio", "rows", "lag", "window", "cap", "accuracy")


def allowed(row):
    """text_c2, text_c4 and page_c1 for rows that may still lack parameters."""
    for name in "kv":
        axis, group = row.get(f"axis_{name}"), row.get(f"group_{name}")
        head_dim = row.get("head_dim")
        if axis == "c" and group in (16, "D"):
            return False
        if axis == "t" and group == 256:
            return False  # the same kernel as "D" with D 256
        if axis == "t" and group not in (None, "D") and head_dim is not None and head_dim % group:
            return False
        if axis == "c" and group is not None and row.get("page", 256) < group:
            return False
    return not (row.get("lag") and (row.get("axis_k") == "t" or row.get("axis_v") == "c"))


def full_rows(parameters, allowed):
    """All of it would be some hundred thousand kernels: what only changes loop counts is dealt in turn."""
    dealt = pairwise.full_product({name: parameters[name] for name in DEALT})
    fixed = {name: values for name, values in parameters.items() if name not in dealt[0]}
    for index, row in enumerate(pairwise.full_product(fixed, allowed)):
        # The first of the following combinations that the row allows: lag needs K per channel and V per token.
        turns = (row | dealt[(index + i) % len(dealt)] for i in range(len(dealt)))
        yield next(turn for turn in turns if allowed(turn))


def shape_of(row):
    side = lambda name: (
        f"{row[f'bits_{name}']}{row[f'axis_{name}']}"
        f"{row['head_dim'] if row[f'group_{name}'] == 'D' else row[f'group_{name}']}"
    )
    rows = row["ratio"] if row["rows"] == "ratio" else row["rows"]
    return Shape(
        f"k{side('k')}-v{side('v')}", row["page"], row["head_dim"], row["head_dim"], row["ratio"], row["dtype"], rows,
        row["lag"], row["window"], row["cap"], row["accuracy"],
    )  # fmt: skip


def name_of(shape, level):
    flags = "".join(f"-{name}" for name in ("lag", "window", "cap") if getattr(shape, name))
    place = f"{shape.pair}-p{shape.page}-d{shape.dk}.{shape.dv}-g{shape.ratio}"
    return f"{place}-{shape.dtype}-rows{shape.rows}{flags}-{shape.accuracy}-{level}"


CORNERS = {
    "unequal-head-sizes": Shape("k4c32-v4t32", 64, 128, 64, 4, "f32", 4),
    "three-bits": Shape("k3c32-v3t32", 64, 64, 64, 3, "f32", 3),
    "three-bits-any-frontier": Shape("k3t16-v3t80", 96, 80, 80, 2, "bf16", 6),
    "three-bits-kivi": Shape("k3c32-v3t32", 32, 128, 96, 4, "f16", 4, True),
    "three-bits-longest-group": Shape("k3c256-v3c256", 256, 80, 192, 1, "f16", 1),
    "smallest-head": Shape("k2c32-v8t16", 64, 16, 16, 1, "f32", 1),
    "largest-head": Shape("k4t256-v2t256", 32, 256, 256, 2, "bf16", 2),
    "smallest-page": Shape("k8c32-v2t16", 32, 80, 80, 3, "f32", 3),
    "page-of-three-groups": Shape("k4c32-v4c32", 96, 96, 96, 3, "f32", 6),
    "largest-page": Shape("k2c64-v4c128", 256, 64, 64, 5, "bf16", 10),
    "kivi-2": Shape("k2c32-v2t32", 64, 64, 64, 3, "f32", 3, True),
    "kivi-4-chunk": Shape("k4c32-v4t32", 64, 64, 64, 3, "bf16", 48, True),
    "most-rows": Shape("k4c32-v4t32", 64, 64, 64, 64, "f32", 64),
    "unequal-head-sizes-per-token": Shape("k4t32-v8t48", 64, 192, 96, 2, "f16", 2),
    "any-frontier": Shape("k4t16-v2t16", 64, 80, 80, 5, "bf16", 5),
    "any-frontier-wide-group": Shape("k8t64-v4t64", 32, 128, 64, 1, "f32", 7),
    "gemma-2-local": Shape("k4c32-v4t32", 64, 256, 256, 2, "bf16", 2, window=True, cap=True),
    "mistral-chunk": Shape("k4c32-v4t32", 64, 128, 128, 4, "f16", 32, True, window=True),
    "window-any-frontier": Shape("k4t32-v4t32", 64, 64, 64, 3, "f16", 3, window=True),
    "mma-4-bits": Shape("k4c32-v4t32", 64, 128, 128, 3, "f16", 8, profile="mma"),
    "mma-2-bits-chunk": Shape("k2c32-v2t32", 128, 64, 64, 4, "bf16", 16, True, accuracy="normal", profile="mma"),
    "mma-8-bits-any-frontier": Shape("k8t16-v8t48", 64, 80, 96, 2, "f32", 8, profile="mma"),
    "mma-smallest-pages-and-heads": Shape("k8c32-v2c32", 32, 16, 16, 1, "f32", 8, profile="mma"),
    "mma-page-of-three-groups": Shape("k2t16-v4c32", 96, 48, 80, 3, "f16", 8, window=True, cap=True, profile="mma"),
    "mma-no-32-channels": Shape("k4c64-v2t16", 64, 96, 80, 1, "f16", 8, profile="mma"),
    "kivi-layout": Shape("k2c32-v4t32", 64, 64, 64, 3, "f32", 3, True, profile="kivi"),
}


def pytest_generate_tests(metafunc):
    if "shape" in metafunc.fixturenames:
        make = full_rows if metafunc.config.getoption("--full") else pairwise.covering_array
        rows = make(PARAMETERS | {"level": levels()}, allowed)
        # A group of D and the same number are one shape.
        cases = list(dict.fromkeys((shape_of(row), row["level"]) for row in rows))
        metafunc.parametrize("shape, level", cases, ids=[name_of(*case) for case in cases])
    elif "corner" in metafunc.fixturenames:
        cases = [(name, level) for name in CORNERS for level in levels()]
        metafunc.parametrize("corner, level", cases, ids=["-".join(case) for case in cases])
    elif "level" in metafunc.fixturenames:
        metafunc.parametrize("level", levels())


# ---- the covering array ---------------------------------------------------------------------------------------------


def test_append_counts_and_copies(shape, level):
    check_append(shape, level)


def test_pages_are_bit_equal(shape, level):
    check_pages(shape, level)


def test_attend(shape, level):
    check_attend(AttendCase(shape, ragged_sequences(shape)), level)


def test_merge(shape, level):
    check_merge(shape, level)


# ---- named corners at every level -----------------------------------------------------------------------------------


def test_corner_shape(corner, level):
    shape = CORNERS[corner]
    check_append(shape, level)
    check_pages(shape, level)
    check_merge(shape, level)
    check_attend(AttendCase(shape, ragged_sequences(shape)), level)


PAIRS = [("k4c32-v4t32", False), ("k2c32-v2t32", True), ("k8t64-v8c64", False)]


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("pair, lag", PAIRS)
@pytest.mark.parametrize("rows", ["subnormal", "constant", "tie", "wide", "tiny", "zero", "clipped"])
def test_corner_values_are_bit_equal(level, pair, lag, rows, dtype):
    shape = Shape(pair, 64, 64, 64, 3, dtype, 3, lag)
    check_pages(shape, level, getattr(kernels, f"{rows}_rows"))


@pytest.mark.parametrize("rows, size", [("subnormal", 2.0**18), ("constant", 1.0), ("tie", 1.0)])
@pytest.mark.parametrize("pair, lag", PAIRS)
def test_corner_values_attend(level, pair, lag, rows, size):
    shape = Shape(pair, 64, 64, 64, 3, "f32", 3, lag)
    rows_of = getattr(kernels, f"{rows}_rows")
    check_attend(AttendCase(shape, ragged_sequences(shape), q_size=size, rows_of=rows_of), level)


@pytest.mark.parametrize("pair, lag", PAIRS)
def test_attend_with_ranges_that_fit_each_program(level, pair, lag):
    shape = Shape(pair, 64, 64, 64, 3, "f32", 4, lag)
    check_attend(AttendCase(shape, ragged_sequences(shape), exact_ranges=True), level)


@pytest.mark.parametrize("pair, lag", PAIRS)
def test_attend_a_whole_chunk_of_queries(level, pair, lag):
    shape = Shape(pair, 64, 64, 64, 4, "f32", 16, lag)
    case = AttendCase(shape, [Sequence(0, 32), Sequence(150, 32, 2), Sequence(128 - 16, 32)])
    check_attend(case, level)


@pytest.mark.parametrize("pair, lag", PAIRS)
def test_attend_more_splits_than_pages(level, pair, lag):
    """Some programs see no key at all."""
    shape = Shape(pair, 64, 64, 64, 1, "f32", 1, lag)
    check_attend(AttendCase(shape, [Sequence(3, 1, 3), Sequence(170, 1, 6)]), level)


@pytest.mark.parametrize("pair, lag", PAIRS)
def test_attend_scores_far_apart(level, pair, lag):
    """Most probabilities vanish in f32 and the running maximum moves often."""
    shape = Shape(pair, 64, 64, 64, 3, "f32", 3, lag)
    check_attend(AttendCase(shape, ragged_sequences(shape), q_size=8.0), level)


@pytest.mark.parametrize("pair, lag", PAIRS)
def test_attend_scale_is_in_natural_units(level, pair, lag):
    shape = Shape(pair, 64, 64, 64, 2, "f32", 2, lag)
    check_attend(AttendCase(shape, [Sequence(200, 2, 2)], scale=0.375), level)


@pytest.mark.parametrize("ratio", range(1, 17))
def test_every_ratio(level, ratio):
    """A program of one query, and one whose rows are of several queries and not all there."""
    for rows in (ratio, 20):
        shape = Shape("k4c32-v4t16", 64, 32, 16, ratio, "f32", rows)
        check_attend(AttendCase(shape, [Sequence(130, 3, 2, keep=3)]), level)


TOKEN_PAIR = ("k4t32-v4t32", False)


@pytest.mark.parametrize("pair, lag", [*PAIRS, TOKEN_PAIR])
@pytest.mark.parametrize("window", [1, 33, 100, 2**40])
def test_window_c1_attend(level, pair, lag, window):
    """Windows of the query alone, across kept tokens, from within a page on, without an end; pages before them do not
    exist."""
    shape = Shape(pair, 64, 64, 64, 3, "f32", 4, lag, window=True)
    sequences = [*ragged_sequences(shape), Sequence(20, 4, keep=9), Sequence(300, 32, 2, keep=2)]
    for exact in (False, True):
        check_attend(AttendCase(shape, sequences, window=window, exact_ranges=exact), level)


@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_attention_c11_attend(level, cap):
    shape = Shape("k4c32-v4t32", 64, 64, 64, 3, "f32", 3, cap=True)
    check_attend(AttendCase(shape, ragged_sequences(shape), q_size=6.0, cap=cap), level)


@pytest.mark.parametrize("pair, lag", [*PAIRS, TOKEN_PAIR])
def test_commit_c7_attend(level, pair, lag):
    """Numbers of kept tokens around the step over the tail, beside rings that begin and end anywhere."""
    shape = Shape(pair, 64, 64, 64, 2, "f32", 6, lag)
    sequences = [Sequence(90, 3, 2, keep=keep) for keep in (1, 31, 32, 33, 64, 100)]
    sequences += [Sequence(-40, 4, keep=64), Sequence(-2, 5, keep=64), Sequence(0, 1, 2, keep=7)]
    check_attend(AttendCase(shape, sequences), level)


@pytest.mark.parametrize(
    "pair, lag, frontiers",
    [
        ("k4t32-v4t32", False, [(93, 93), (1, 1), (64, 64), (127, 127)]),
        ("k4c32-v8t64", False, [(96, 96), (128, 128)]),
        ("k2c32-v2t32", True, [(96, 77), (160, 151), (160, 96)]),
    ],
)
def test_crop_c1_attend(level, pair, lag, frontiers):
    """Frontiers that taking tokens back has left above the rule's."""
    shape = Shape(pair, 64, 64, 64, 3, "f32", 5, lag)
    sequences = [Sequence(max(front) + more, 4, 2, 3, front) for front in frontiers for more in (0, 9)]
    check_attend(AttendCase(shape, sequences), level)
    check_attend(AttendCase(shape, sequences, exact_ranges=True), level)


def test_every_level_of_the_host_is_tested():
    names = levels()
    assert names and len(set(names)) == len(names)


# ---- the suite against itself: each planted fault must be seen -------------------------------------------------------


class Faulty:
    """Device ref with one fault in what it is given or gives."""

    def __init__(self, real, before=None, after=None):
        self.real, self.before, self.after = real, before, after

    def launch(self, args, grid):
        changed = self.before(list(args)) if self.before else args
        self.real.launch(changed, grid=grid)
        if self.after:
            self.after(args)


def with_field(**changes):
    """The same arguments with fields of the items changed by functions."""

    def change(args):
        items = args[0].view(ATTEND_ITEM).copy()
        for field, function in changes.items():
            items[field] = function(items[field])
        return [items.view(np.uint8)] + args[1:]

    return change


def overrun(args):
    """One element written past the end of partial o."""
    o = args[19]
    np.lib.stride_tricks.as_strided(o.reshape(-1), (o.size + 1,), (4,))[-1] = 0.0


ATTEND_FAULTS = {
    "tail cropped by one": dict(before=with_field(raw_end=lambda x: x - 1)),
    "kept token dropped": dict(before=with_field(kept=lambda x: np.maximum(x - 1, 0))),
    "commit dropped": dict(before=with_field(packed_end=lambda x: np.maximum(x - 32, 0))),
    "sequences swapped": dict(before=with_field(tail_slot=lambda x: x.max() - x)),
    "wrong page": dict(before=with_field(table_base=lambda x: np.where(x > 0, x - 1, x))),
    "overrun": dict(after=overrun),
}


@pytest.mark.parametrize("fault", ATTEND_FAULTS)
def test_planted_faults_in_attend_are_seen(fault):
    shape = Shape("k4c32-v4t32", 64, 64, 64, 3, "f32", 3)
    launch = prepare_attend(np.random.default_rng(5), AttendCase(shape, ragged_sequences(shape)))
    faulty = Faulty(kernel("ref", None, shape.request("attend")), **ATTEND_FAULTS[fault])
    with pytest.raises(AssertionError):
        compare_partials(launch.run(faulty), launch, "ref")


def test_planted_fault_in_a_page_is_seen():
    """One code of one token off by one."""
    shape = Shape("k4c32-v4t32")
    launch = kernels.prepare_quantize(np.random.default_rng(5), shape, "K")

    def nudge(args):
        args[1][77] ^= 1

    outputs = launch.run(Faulty(kernel("ref", None, shape.request("quantize_k")), after=nudge))
    with pytest.raises(AssertionError, match="1 bytes differ"):
        assert_same_bits(outputs["pool"], launch.expected["pool"], "pool")
