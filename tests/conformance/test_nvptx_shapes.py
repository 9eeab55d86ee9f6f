# SPDX-License-Identifier: Apache-2.0
"""Every kernel that the NVIDIA target makes, in the simulator with all of its checks, against the oracle and against
device `ref`: a pairwise covering array of shapes, with --full the product as test_kernels.py makes it, and named corners.

Pages are in fragment order (profile mma), as accelerators' caches have them, and some in the CPU's order (vnni).
Programs have 8 or 16 rows, of which an item says how many there are. A row of the array also has a numeric mode of the
simulator and an order of warps, blocks and lanes, in turn, in which all of its kernels run.
"""

import re

import numpy as np
import pytest

import kvq
import pairwise
from attend_kernel import AttendCase, prepare_attend, ragged_sequences
from checks import check_append, check_attend, check_merge, check_pages, compare_partials, kernel_of, seed_of
from kernels import Shape
from simulated import DEVICE, MAGIC, on_simulator, simulated_kernel, usual_level
from test_kernels import full_rows, name_of, shape_of
from test_kernels import allowed as allowed_anywhere

LEVEL = usual_level()
PARAMETERS = {
    "profile": ["mma", "vnni"],
    "bits_k": [4, 2, 8],
    "bits_v": [4, 2, 8],
    "axis_k": ["c", "t"],
    "axis_v": ["t", "c"],
    "group_k": [32, 64, 128, 16, "D", 256],
    "group_v": [32, 64, 128, 16, "D", 256],
    "head_dim": [128, 64, 80, 96, 192, 256],
    "ratio": [3, 1, 4, 5, 7, 8],
    "dtype": ["f16", "bf16", "f32"],
    "page": [64, 128, 32, 256, 96],
    "rows": [8, 16],
    "lag": [False, True],
    "window": [False, True],
    "cap": [False, True],
    "accuracy": ["exact", "full", "normal", "fast"],
}


def allowed(row):
    """What the target takes: all that there is, but no more rows than fit its registers."""
    for name in "kv":
        group, page = row.get(f"group_{name}"), row.get("page")
        if row.get(f"axis_{name}") == "c" and isinstance(group, int) and page and page % group:
            return False
    is_wide = row.get("dtype") == "f32" or row.get("accuracy") == "full"
    if row.get("rows") == 16 and row.get("head_dim", 0) > (64 if is_wide else 128):
        return False
    return allowed_anywhere(row)


CORNERS = {
    "kivi-2": Shape("k2c32-v2t32", 128, 128, 128, 4, "f16", 8, True),
    "kivi-4": Shape("k4c128-v4t128", 128, 128, 128, 4, "f16", 8),
    "kivi-8-bf16": Shape("k8c128-v8t128", 128, 128, 128, 8, "bf16", 8, True),
    "normal-4": Shape("k4c128-v4t128", 128, 128, 128, 8, "bf16", 8, accuracy="normal"),
    "unequal-head-sizes": Shape("k4c32-v4t32", 64, 192, 128, 1, "bf16", 8),
    "unequal-head-sizes-per-token": Shape("k4t32-v8t48", 64, 192, 96, 2, "f16", 8),
    "smallest-head-and-page": Shape("k8c32-v2c32", 32, 16, 16, 1, "f32", 8),
    "smallest-head-per-token": Shape("k2t16-v8t16", 64, 16, 16, 1, "f32", 8),
    "largest-head": Shape("k4t256-v2t256", 32, 256, 256, 2, "bf16", 8),
    "largest-groups": Shape("k2c256-v4c256", 256, 64, 64, 5, "bf16", 8),
    "page-of-three-groups": Shape("k2t16-v4c32", 96, 48, 80, 3, "f16", 8, window=True, cap=True),
    "groups-of-16": Shape("k2t16-v2t16", 64, 96, 96, 4, "f16", 8),
    "no-32-channels": Shape("k4c64-v2t16", 64, 96, 80, 1, "f16", 8),
    "fewer-words-than-16-bytes": Shape("k2c32-v2t16", 64, 80, 48, 3, "f16", 16, accuracy="normal"),
    "any-frontier": Shape("k8t16-v8t48", 64, 80, 96, 2, "f32", 8),
    "most-rows": Shape("k4c32-v4t32", 64, 64, 64, 16, "f16", 16),
    "rows-of-several-queries": Shape("k4c32-v4t32", 64, 128, 128, 3, "f16", 16, True),
    "gemma-2-local": Shape("k4c32-v4t32", 64, 256, 256, 2, "bf16", 8, window=True, cap=True),
    "mistral": Shape("k4c32-v4t32", 64, 128, 128, 4, "f16", 16, True, window=True),
    "f32-everywhere": Shape("k8c64-v8t64", 64, 128, 128, 4, "f32", 8, accuracy="full"),
}
"""Profile mma, all of them."""

SHARED_WORDS = {
    "groups of two words": Shape("k2t32-v2c32", 64, 128, 128, 4, "f16", 8),
    "groups of two words, 16 rows": Shape("k2t32-v2c32", 64, 128, 128, 3, "bf16", 16, window=True),
    "groups of one word": Shape("k2t16-v2t16", 64, 96, 96, 4, "f16", 16, cap=True, accuracy="normal"),
    "groups of one word and a half": Shape("k4t16-v2c32", 32, 48, 64, 2, "f32", 8),
    "all of a head": Shape("k2c32-v2t16", 64, 80, 80, 3, "f16", 16, True, window=True),
    "all of a head, in class full": Shape("k4c32-v4t16", 64, 80, 80, 4, "f32", 8, True, accuracy="full"),
    "all of a part of a head": Shape("k2c64-v8t32", 128, 96, 96, 5, "bf16", 8, True, accuracy="fast"),
    "all of the smallest head": Shape("k2c32-v2c32", 32, 16, 16, 1, "f16", 8, accuracy="full"),
    "the largest head": Shape("k2t32-v2c32", 64, 256, 256, 2, "bf16", 8, window=True, cap=True),
    "tiles of a part of a page": Shape("k2t32-v2c32", 96, 64, 64, 4, "f16", 8),
}
"""Profile vnni, of which a word of 2 bits has 16 codes along the contracted dimension, one of 4 bits 8: lanes share words
where a group or a head has few."""


NUMERIC = {
    "": {},
    "sequential": dict(mma="sequential"),
    "truncate": dict(mma="truncate"),
    "ulp": dict(approx="ulp"),
    "flush": dict(subnormals="flush"),  # for which a context takes kernels of another form
}
ORDERS = {"": {}, "seed": dict(seed=4), "lowest-pc": dict(schedule="lowest-pc", seed=1)}
# In turn, and each time the default mode after three of them; GPUs have no other.
OTHERS = [(numeric, order) for order in ORDERS for numeric in NUMERIC if numeric or order]
STRIDE = 5  # no divisor of their number; with it every width meets every mode


def mode_of(index):
    """(name, items) of the mode that a row of the array has."""
    default = DEVICE != "ptxsim" or index % 4 == 0
    numeric, order = ("", "") if default else OTHERS[STRIDE * (index - index // 4) % len(OTHERS)]
    return "-".join(filter(None, (numeric, order))), tuple((NUMERIC[numeric] | ORDERS[order]).items())


def on_mma(shape):
    return Shape(**(vars(shape) | {"profile": "mma"}))


def array(full):
    """Shapes with their modes."""
    make = full_rows if full else pairwise.covering_array
    shapes = dict.fromkeys(on_profile(row) for row in make(PARAMETERS, allowed))
    return [(shape, *mode_of(index)) for index, shape in enumerate(shapes)]


def pytest_generate_tests(metafunc):
    if "shape" in metafunc.fixturenames:
        rows = array(metafunc.config.getoption("--full"))
        ids = ["-".join(filter(None, (name_of(shape, shape.profile), name))) for shape, name, _ in rows]
        metafunc.parametrize("shape, mode", [(shape, mode) for shape, _, mode in rows], ids=ids)


def on_profile(row):
    return Shape(**(vars(shape_of(row)) | {"profile": row["profile"]}))


def check_all(shape, mode=()):
    check_append(shape, LEVEL, mode)
    check_pages(shape, LEVEL, mode=mode)
    check_merge(shape, LEVEL, mode)
    check_attend(AttendCase(shape, ragged_sequences(shape)), LEVEL, mode)


def test_kernels(shape, mode):
    check_all(shape, mode)


@on_simulator
def test_every_mode_is_in_the_array():
    """Each width, of K or of V, in each numeric mode and in each order; a fourth of the rows in the default mode."""
    rows = array(full=False)
    modes = [mode for *_, mode in rows]
    assert 4 * modes.count(()) >= len(rows) and len(set(modes)) == len(NUMERIC) * len(ORDERS)
    for options in (*NUMERIC.values(), *ORDERS.values()):
        inside = [shape for shape, _, mode in rows if options.items() <= set(mode)]
        widths = {side[1] for shape in inside for side in shape.pair.split("-")}
        assert widths == {"2", "4", "8"}, f"{options} with {widths}"


@pytest.mark.parametrize("corner", CORNERS)
def test_corner(corner):
    check_all(on_mma(CORNERS[corner]))


@pytest.mark.parametrize("what", SHARED_WORDS)
def test_shared_words(what):
    """What is not there yet, tokens and whole pages, is NaN (kernels.POISON)."""
    check_all(SHARED_WORDS[what])


@on_simulator
@pytest.mark.parametrize("mode", (dict(mma="truncate", seed=5), dict(mma="sequential", schedule="lowest-pc")), ids=str)
@pytest.mark.parametrize("what", SHARED_WORDS)
def test_shared_words_in_modes(what, mode):
    case = AttendCase(SHARED_WORDS[what], ragged_sequences(SHARED_WORDS[what]))
    for level in (LEVEL, LEVEL + MAGIC):
        launch = prepare_attend(np.random.default_rng(seed_of(what)), case)
        outputs = launch.run(simulated_kernel(level, case.shape.request("attend"), **mode))
        compare_partials(outputs, launch, f"{mode} of {level}", case.budget)


@pytest.mark.parametrize("ratio", (1, 3, 4, 5, 7, 8, 12, 16))
def test_every_ratio(ratio):
    shape = Shape("k4c32-v4t16", 64, 32, 16, ratio, "f16", 8 if ratio <= 8 else 16, profile="mma")
    check_attend(AttendCase(shape, ragged_sequences(shape)), LEVEL)


@pytest.mark.parametrize("level", sorted({"nvptx:sm_80", "nvptx:sm_90", "nvptx:sm_120"} - {LEVEL}))
def test_other_processors(level):
    """Their kernels differ in the version of PTX and in what their schedules say."""
    shape = on_mma(CORNERS["kivi-4"])
    check_pages(shape, level)
    check_attend(AttendCase(shape, ragged_sequences(shape)), level)


# ---- what is refused ------------------------------------------------------------------------------------------------

REFUSED = {
    "three bits": (Shape("k3c32-v4t32", 64, 64, 64, 3, "f16", 8), "codes of 3 bits, .* use 2, 4 or 8"),
    "rows that do not fit the registers": (
        Shape("k4c32-v4t32", 64, 256, 256, 3, "f16", 16), "16 rows of a head of 256 do not fit .*: use 8 rows"
    ),
    "rows of two halves each": (
        Shape("k4c32-v4t32", 64, 128, 128, 3, "f16", 16, accuracy="full"),
        "16 rows of a head of 128 do not fit .* hold 1024 elements .*: use 8 rows",
    ),
    "rows that are no multiple of 8": (Shape("k4c32-v4t32", 64, 64, 64, 3, "f16", 6), "multiple of 8 rows"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_one_sentence(what):
    shape, message = REFUSED[what]
    with pytest.raises(kvq.Unsupported) as refused:
        kernel_of(LEVEL, "attend", shape)
    sentence = str(refused.value).split("\nnote: ")[0]
    assert re.search(message, sentence) and "\n" not in sentence
