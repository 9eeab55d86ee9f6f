# SPDX-License-Identifier: Apache-2.0
"""The simulator against what a GPU answered (golden/*.golden, by record_goldens.py), form by form."""
import pathlib

import numpy as np
import pytest

import compare
import form_run
import forms
import golden_file
import mma_bound
import mma_model

FOLDER = pathlib.Path(__file__).parent / "golden"
GOLDENS = golden_file.load(FOLDER)
FORMS = {form.name: form for form in forms.all_forms()}
CASES = [(file, name) for file in GOLDENS for name in GOLDENS[file][1]]


def golden(file, name):
    form = FORMS.get(name)
    assert form, f"{name} is in {file} but no longer in the table of forms; record again"
    digest, packed = GOLDENS[file][1][name]
    assert digest == forms.digest(form), f"{name} has changed since {file} was recorded; record again"
    return form, np.array(golden_file.unpack(form, packed), np.uint64)


@pytest.mark.parametrize("file, name", CASES, ids=[f"{file}:{name}" for file, name in CASES])
def test_form(file, name):
    form, expected = golden(file, name)
    got = form_run.execute(form)
    inputs = form.inputs()
    found = compare.differences(form, got, expected, inputs)
    assert not len(found), compare.describe(form, found, got, expected, inputs)


@pytest.mark.parametrize("mode", ["exact", "sequential", "truncate"])
@pytest.mark.parametrize("file, name", [case for case in CASES if FORMS[case[1]].check[0] == "mma"])
def test_mma_modes(file, name, mode):
    """Every way of accumulating stays within the bound; so does the GPU, or the bound would prove nothing."""
    form, expected = golden(file, name)
    inputs = form.inputs()
    assert mma_bound.within(form, expected, inputs).all(), f"{name}: the GPU is outside the bound"
    got = form_run.execute(form, mma=mode)
    found = compare.differences(form, got, expected, inputs)
    assert not len(found), compare.describe(form, found, got, expected, inputs)


@pytest.mark.parametrize("file, name", [case for case in CASES if FORMS[case[1]].check[0] == "mma"])
def test_mma_model(file, name):
    """mma_model.hopper is the GPU, bit for bit (golden/README.md: how far each mode of the simulator gets)."""
    form, expected = golden(file, name)
    target, got = mma_bound.result(form, expected), mma_model.hopper(form, form.inputs())
    equal = (got == target) & (np.signbit(got) == np.signbit(target)) | np.isnan(got) & np.isnan(target)
    assert equal.all(), f"{(~equal).sum()} of {equal.size} differ"


def test_enough_forms():
    assert GOLDENS, "no golden file: nothing was recorded on a GPU"
    for file, (header, results) in GOLDENS.items():
        assert len(results) >= 350, f"{file} holds {len(results)} forms"
        assert not [name for name, reason in header["refused"].items() if reason.startswith("failed")]


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if not form.gpu])
def test_form_without_golden(name):
    form_run.execute(FORMS[name])


def test_golden_file_keeps_words(tmp_path):
    form = FORMS["mul.wide.u32"]
    words = [(1 << 63) + 3 * index for index in range(form.count)]
    results = {form.name: ("digest", golden_file.pack(form, words))}
    golden_file.write(str(tmp_path / "x"), {"device": "none"}, results, {})
    header, results = golden_file.read(tmp_path / "x")
    assert header["device"] == "none"
    assert golden_file.unpack(form, results[form.name][1]) == [words]
