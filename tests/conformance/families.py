# SPDX-License-Identifier: Apache-2.0
"""The families of kernels that a cache is made of, each as one request with launches that together reach all of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

import kernels
from attend_kernel import AttendCase, Sequence, prepare_attend, ragged_sequences
from checks import TOGETHER, assert_same_bits, compare_append, compare_merge, compare_partials, prepare_merge_with_holes
from kernels import Launch, Shape


@dataclass(frozen=True)
class Trial:
    """A launch that can be made again and again, and what must come of it."""

    launch: Launch
    compare: Callable  # (outputs, launch, label): raises AssertionError
    before: list  # the arrays among the arguments, as they are before a launch

    @classmethod
    def of(cls, launch, compare):
        arrays = [arg for arg in launch.args if isinstance(arg, np.ndarray)]
        return cls(launch, compare, [array.copy() for array in arrays])

    def run(self, kernel):
        """Raises what the launch or the comparison does."""
        arrays = [arg for arg in self.launch.args if isinstance(arg, np.ndarray)]
        for array, before in zip(arrays, self.before):
            array.view(np.uint8)[...] = before.view(np.uint8)
        self.compare(self.launch.run(kernel), self.launch, "simulated")


def same_bits(name, outputs, launch, label):
    assert_same_bits(outputs[name], launch.expected[name], label)


def lengths_of_all_kinds(page):
    """Every length below 32, each page's end with its neighbours, and some between them, of all remainders."""
    ends = (end + i for end in (page, 2 * page) for i in (-2, -1, 0, 1))
    return sorted({*range(32), *range(0, 2 * page, page // 8 | 1), *ends})


def moving_frontiers(shape):
    """K's frontier comes to a page's end, or moves beyond it, at each place among the rows of a program, and at the last
    query alone; where it may be any number, it is each about a page's end."""
    step = shape.commit_step
    moves = shape.first_commit + (-(-shape.page // step) - 1) * step
    ends = range(shape.page - 9, shape.page + 10) if shape.flushes else ()
    return [
        *(Sequence(moves - before, queries) for before in range(9) for queries in sorted({before + 1, 9})),
        *(Sequence(end + 2, 1, frontiers=(end, end)) for end in ends),
    ]


def uneven_rows(rng, shape, which, tokens):
    """Of V some tokens are 2^17 times as large as the others: the largest of a tile is where few lanes look."""
    x = rng.standard_normal((kernels.KV_HEADS, tokens, shape.head_dim[which]))
    small = (which == "V") & (np.arange(tokens) % 5 != 2)
    return kernels.round_to(x * np.where(small, 2.0**-17, 1.0)[:, None], shape.dtype)


def attend_trials(shape):
    cases = [
        AttendCase(shape, ragged_sequences(shape)),
        AttendCase(shape, [Sequence(length, 1) for length in lengths_of_all_kinds(shape.page)]),
        AttendCase(shape, moving_frontiers(shape)),
        AttendCase(shape, [Sequence(shape.first_commit + more, 1) for more in range(0, 97, 16)], rows_of=uneven_rows),
        # What a query's largest magnitude is, is by far another channel in each row, and by far another size in the next.
        AttendCase(shape, [Sequence(shape.first_commit + 40, 9), Sequence(20, 3)], q_size=2.0**-20, q_peak=8.0),
        AttendCase(shape, [Sequence(150, 9, 2), Sequence(64, 2, keep=3), Sequence(3, 1, 3)], exact_ranges=True, scale=-0.2),
        AttendCase(shape, [Sequence(90, 3, 2, keep=keep) for keep in (1, 31, 32, 33, 64, 100)]),
        AttendCase(shape, ragged_sequences(shape), q_size=30.0, values="extreme"),
        # Tiles for every warp of a program, several of each kind; each warp has the largest score of some row.
        AttendCase(shape, [Sequence(1100, 3), Sequence(240, 32)], q_size=4.0),
    ]
    for seed, case in enumerate(cases):
        launch = prepare_attend(np.random.default_rng(seed), case)
        yield launch, lambda outputs, launch, label, budget=case.budget: compare_partials(
            outputs, launch, label, budget
        )


def page_trials(prepare, name, which, shape):
    for seed, rows in enumerate(("random", "constant", "tie", "wide", "subnormal", "tiny", "zero", "clipped")):
        layout = kernels.LAYOUTS[seed % len(kernels.LAYOUTS)]
        launch = prepare(np.random.default_rng(seed), shape, which, getattr(kernels, f"{rows}_rows"), layout)
        yield launch, partial(same_bits, name)


def append_trials(shape):
    yield kernels.prepare_append(np.random.default_rng(0), shape), compare_append


def merge_trials(shape):
    for together in TOGETHER:
        launch = prepare_merge_with_holes(np.random.default_rng(0), shape, together)
        yield launch, lambda outputs, launch, label: compare_merge(outputs, launch, label, shape)


TRIALS = {
    "attend": attend_trials,
    "quantize_k": partial(page_trials, kernels.prepare_quantize, "pool", "K"),
    "quantize_v": partial(page_trials, kernels.prepare_quantize, "pool", "V"),
    "dequantize_k": partial(page_trials, kernels.prepare_dequantize, "out", "K"),
    "dequantize_v": partial(page_trials, kernels.prepare_dequantize, "out", "V"),
    "append": append_trials,
    "merge": merge_trials,
}


@lru_cache(maxsize=2)
def trials(op, shape):
    return [Trial.of(*made) for made in TRIALS[op](shape)]


def mma(pair, **options):
    return Shape(**(dict(pair=pair, page=64, dk=64, dv=64, ratio=3, dtype="f16", rows=8, profile="mma") | options))
