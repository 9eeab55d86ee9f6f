# SPDX-License-Identifier: Apache-2.0
"""mma in the simulator's mode "truncate" is what an H200 answers, bit for bit: every floating-point shape and type but f64,
which test_goldens.py compares bit for bit in any mode."""
import numpy as np
import pytest

import form_run
import mma_bound
from test_goldens import CASES, FORMS, golden

FLOATS = [(file, name) for file, name in CASES
          if file == "sm_90.golden" and FORMS[name].check[0] == "mma"]


@pytest.mark.parametrize("file, name", FLOATS, ids=[name for _, name in FLOATS])
def test_truncate_is_the_gpu(file, name):
    form, expected = golden(file, name)
    target = mma_bound.result(form, expected)
    got = mma_bound.result(form, form_run.execute(form, mma="truncate"))
    equal = (got == target) & (np.signbit(got) == np.signbit(target)) | np.isnan(got) & np.isnan(target)
    assert equal.all(), f"{(~equal).sum()} of {equal.size} differ"


def test_all_types_are_there():
    assert len(FLOATS) == 20
