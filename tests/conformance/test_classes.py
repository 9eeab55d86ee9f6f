# SPDX-License-Identifier: Apache-2.0
"""Accuracy classes (attention_c4, accuracy_c1): attend of every class at every level on the named corners, and the
budgets themselves against a model of the arithmetic and its mistakes."""

from functools import lru_cache

import numpy as np
import pytest

import tolerances
from attend_kernel import forget, prepare_attend
from checks import compare_attend, compare_partials, kernel, levels, seed_of
from class_corners import CORNERS, PAIRS, shape_of
from coefficient_model import MISTAKES, Integers
from kvq import lowlevel


def test_attention_c4_classes_are_those_of_the_library():
    assert tolerances.CLASSES == lowlevel.ACCURACY_CLASSES
    assert lowlevel.DEFAULT_ACCURACY in tolerances.CLASSES


def test_attention_c4_a_class_is_no_worse_than_the_next():
    for values in ("ordinary", "dominant", "outliers", "extreme"):
        for bits in (2, 3, 4, 8):
            budgets = [tolerances.budget(accuracy, bits, values) for accuracy in tolerances.CLASSES]
            assert budgets == sorted(budgets)


@lru_cache(maxsize=1)  # tests of one corner and pair follow each other
def launch_of(corner, pair):
    """A launch, whose values are the same in every class, and what device ref makes of it."""
    case = CORNERS[corner](shape_of(pair, "exact"))
    launch = prepare_attend(np.random.default_rng(seed_of(corner, pair)), case)
    ref = launch.run(kernel("ref", None, case.shape.request("attend")))
    compare_partials(ref, launch, "ref")
    return launch, {name: array.copy() for name, array in ref.items()}


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("accuracy", tolerances.CLASSES)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("corner", CORNERS)
def test_attention_c4_attend(corner, pair, accuracy, level):
    launch, ref = launch_of(corner, pair)
    case = CORNERS[corner](shape_of(pair, accuracy))
    forget(launch)
    compare_attend(case, level, launch, launch.run(kernel("cpu", level, case.shape.request("attend"))), ref)


# ---- the budgets against the arithmetic that they are for ------------------------------------------------------------


def check_model(corner, pair, accuracy, mistake=""):
    """What the model gives, as a kernel would leave it, against the class's budget."""
    launch, _ = launch_of(corner, pair)
    forget(launch)
    outputs = launch.outputs
    for where, (o, lse) in launch.expected["partials by"](Integers(accuracy, mistake)).items():
        outputs["o"][where], outputs["lse"][where] = o, lse
    compare_partials(outputs, launch, accuracy, CORNERS[corner](shape_of(pair, accuracy)).budget)


@pytest.mark.parametrize("accuracy", tolerances.CLASSES)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("corner", CORNERS)
def test_accuracy_c1_keeps_the_budget(corner, pair, accuracy):
    check_model(corner, pair, accuracy)


FLAT, OUTLIERS = "dominant token in a short flat context", "four channels ten times larger"
Q, P = (f"correction from unrounded coefficients of {which}" for which in "qp")
# What a mistake costs, and where the class's budget is small enough to tell: a wrong correction of p is nothing but
# where many small probabilities are lost, and 4 and 2 bits need no low limb of p beyond the dominant token's.
SEEN = [
    *((Q, "normal", OUTLIERS, pair) for pair in ("k4c32-v4t32", "k2c32-v2t32")),
    *((Q, "fast", OUTLIERS, pair) for pair in ("k8c32-v4t128", "k2c32-v2t32")),
    *((P, "fast", FLAT, pair) for pair in ("k8t64-v8c64", "k4c32-v4t32", "k4t32-v4t32", "k4c64-v2c64")),
    *(
        (f"centre of {which} left out", accuracy, OUTLIERS, pair)
        for which in "KV"
        for accuracy in tolerances.CLASSES
        for pair in ("k8t64-v8c64", "k4c32-v4t32", "k4t32-v4t32", "k2c32-v2t32")
    ),
    *(
        (f"low limb of {which} dropped", accuracy, OUTLIERS, "k8t64-v8c64")
        for which in "qp"
        for accuracy in ("exact", "normal")
    ),
    *(
        (f"low limb of {which} dropped", "exact", OUTLIERS, pair)
        for which in "qp"
        for pair in ("k4c32-v4t32", "k2c32-v2t32")
    ),
]


@pytest.mark.parametrize("mistake, accuracy, corner, pair", SEEN)
def test_accuracy_c1_a_mistake_exceeds_the_budget(mistake, accuracy, corner, pair):
    with pytest.raises(AssertionError, match="relative rms|lse"):
        check_model(corner, pair, accuracy, mistake)


def test_every_mistake_is_seen_somewhere():
    assert {mistake for mistake, *_ in SEEN} == set(MISTAKES)
