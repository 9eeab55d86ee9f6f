# SPDX-License-Identifier: Apache-2.0
"""The simulator against ptxas, which computes instructions on constants while it compiles: an opinion of NVIDIA's own.

A result that ptxas left to the machine is counted and proves nothing.
"""
import pathlib

import numpy as np
import pytest

import compare
import float_bits
import folding
import form_convert
import form_draw
import form_float
import form_integer
import form_run
import golden_file

PTXAS = folding.find_ptxas()
# Bodies with a scope of their own declare registers, which fifty copies in one kernel cannot.
FORMS = [form for family in (form_integer, form_float, form_convert) for form in family.forms()
         if form.gpu and "{\n" not in form.body]
GROUP = 40
GROUPS = [FORMS[begin:begin + GROUP] for begin in range(0, len(FORMS), GROUP)]
needs_ptxas = pytest.mark.skipif(PTXAS is None, reason="ptxas is not installed")


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """{form's name: {(result, index): value}}"""
    folder = tmp_path_factory.mktemp("folding")
    found = {}
    for group in GROUPS:
        found.update(folding.compile_forms(PTXAS, group, folder, 90))
    return found


@pytest.fixture(scope="module")
def disputed(folded):
    """{(form's name, result, index)} on which ptxas and a GPU do not agree: there the golden file decides."""
    found = set()
    for _, goldens in golden_file.load(pathlib.Path(__file__).parent / "golden").values():
        for form in FORMS:
            if form.name in goldens:
                machine = np.array(golden_file.unpack(form, goldens[form.name][1]), np.uint64)
                found |= {(form.name, *place) for place in mismatches(form, folded[form.name], machine)[0].tolist()}
    return found


def mismatches(form, known, got):
    """The places [(result, index)] where the simulator and ptxas do not agree."""
    expected = got.copy()
    for (slot, index), value in known.items():
        expected[slot, index] = value
    return compare.differences(form, got, expected, form.inputs()), expected


@needs_ptxas
@pytest.mark.parametrize("group", range(len(GROUPS)), ids=[group[0].name for group in GROUPS])
def test_folded_constants(group, folded, disputed):
    wrong = []
    for form in GROUPS[group]:
        if not folded[form.name]:
            continue
        got = form_run.execute(form)
        known = {place: value for place, value in folded[form.name].items() if (form.name, *place) not in disputed}
        found, expected = mismatches(form, known, got)
        if len(found):
            wrong.append(compare.describe(form, found, got, expected, form.inputs(), "ptxas"))
    assert not wrong, "\n".join(wrong)


@needs_ptxas
def test_enough_is_folded(folded):
    whole = [form.name for form in FORMS if len(folded[form.name]) == folding.INPUTS * len(form.outs)]
    cases, known = sum(folding.INPUTS * len(form.outs) for form in FORMS), sum(map(len, folded.values()))
    print(f"{len(whole)} of {len(FORMS)} forms computed whole by ptxas; {known} of {cases} results")
    assert len(whole) >= 60


@needs_ptxas
def test_ptxas_agrees_with_the_gpu(folded, disputed):
    """But for payloads of NaN and once: ptxas 13.0 folds cvt.rni.s32.f64 of -0.5000000000000001 to 0."""
    table = {form.name: form for form in FORMS}
    other = [place for place in disputed if not is_nan(table[place[0]], folded[place[0]][place[1:]])]
    assert set(other) <= {("cvt.rni.s32.f64", 0, 26)}
    assert len(disputed) <= 40


def is_nan(form, value):
    element, parts = float_bits.elements(form.outs[0])
    return element in form_draw.FLOATS and any(
        np.isnan(float_bits.decode(element, float_bits.part(element, value, part))) for part in range(parts))


@needs_ptxas
def test_reads_constants_of_every_width(tmp_path):
    """The reader of machine code itself: constants through each width of store, zero among them."""
    forms = {form.name: form for form in FORMS}
    known = folding.compile_forms(PTXAS, [forms["mov.b16"], forms["mov.b32"], forms["mov.b64"]], tmp_path, 80)
    for name, results in known.items():
        given = forms[name].inputs()[0]
        assert len(results) == folding.INPUTS
        assert all(value == given[index] for (_, index), value in results.items()), name
    assert np.any([value == 0 for value in known["mov.b32"].values()])
