# SPDX-License-Identifier: Apache-2.0
"""Accuracy classes (attention_c4, accuracy_c1): attend of every class at every level on the named corners, and the
budgets themselves against a model of the arithmetic and its mistakes."""

import numpy as np
import pytest

import class_corners
import tolerances
from attend_kernel import prepare_attend
from checks import check_attend, compare_partials, levels, seed_of
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


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("accuracy", tolerances.CLASSES)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("corner", CORNERS)
def test_attention_c4_attend(corner, pair, accuracy, level):
    check_attend(CORNERS[corner](shape_of(pair, accuracy)), level)


# ---- the budgets against the arithmetic that they are for ------------------------------------------------------------


def modelled(corner, pair, accuracy, mistake=""):
    """(launch, what the model gives as a kernel would leave it, budget)."""
    case = CORNERS[corner](shape_of(pair, accuracy))
    launch = prepare_attend(np.random.default_rng(seed_of(corner, pair)), case)
    outputs = {name: array.copy() for name, array in launch.outputs.items()}
    for where, (o, lse) in launch.expected["partials by"](Integers(accuracy, mistake)).items():
        outputs["o"][where], outputs["lse"][where] = o, lse
    return launch, outputs, case.budget


@pytest.mark.parametrize("accuracy", tolerances.CLASSES)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("corner", CORNERS)
def test_accuracy_c1_keeps_the_budget(corner, pair, accuracy):
    launch, outputs, budget = modelled(corner, pair, accuracy)
    compare_partials(outputs, launch, "model", budget)
