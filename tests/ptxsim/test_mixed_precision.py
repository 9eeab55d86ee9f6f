# SPDX-License-Identifier: Apache-2.0
"""add, sub and fma of f32 with sources of 16 bits: what they are by definition, an f32 operation on the widened sources.

No answers of a GPU are there for them; f32 operations have some (test_goldens.py)."""

import numpy as np
import pytest

import form_run
import forms

MIXED = {form.name: form for form in forms.all_forms() if form.name.endswith((".f32.f16", ".f32.bf16"))
         and form.name.startswith(("add", "sub", "fma"))}


def single_form(form):
    """The same operation with sources of f32, whose values are the widened ones."""
    op = form.op.rsplit(".", 1)[0]
    kind = form.op.rsplit(".", 1)[1]
    columns = []
    for operand, words in zip(form.ins, form.inputs()):
        if operand == "f32":
            columns.append(words)
        elif kind == "bf16":
            columns.append([(word & 0xFFFF) << 16 for word in words])
        else:
            halves = np.array(words, np.uint64).astype(np.uint16).view(np.float16)
            columns.append([int(word) for word in halves.astype(np.float32).view(np.uint32)])
    return forms.Form(op, "f32", " ".join(["f32"] * len(form.ins)), count=form.count, given=columns)


@pytest.mark.parametrize("name", MIXED)
def test_is_an_f32_operation_on_widened_sources(name):
    got, expected = (form_run.execute(form)[0] for form in (MIXED[name], single_form(MIXED[name])))
    assert list(got) == list(expected)


def test_there_are_some():
    assert len(MIXED) == 30
