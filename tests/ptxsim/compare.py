# SPDX-License-Identifier: Apache-2.0
"""Compares results of a form with a golden file: equal bits, or within the bound that the PTX ISA states."""
import numpy as np

import float_bits
import forms
import mma_bound


# ptxas expands these into code that looks at all bits of position and length; the ISA reads the lowest eight.
WIDE_FIELDS = ("bfe.u64", "bfe.s64", "bfi.b64")


def comparable(form, inputs):
    """The elements whose operands leave nothing open."""
    if form.name not in WIDE_FIELDS:
        return np.ones(form.count, bool)
    return np.all([np.array(column) < 256 for column in inputs[-2:]], 0)


def differences(form, got, golden, inputs):
    """The indices [(result, element)] that do not agree. Arrays are uint64, one row a result."""
    if form.check == "exact":
        return np.argwhere((got != golden) & comparable(form, inputs))
    if form.check[0] == "mma":
        return np.argwhere(~mma_bound.within(form, got, inputs))
    return np.argwhere(~np.stack([near(form, kind, got[k], golden[k]) for k, kind in enumerate(form.outs)]))


def near(form, kind, got, golden):
    """Whether each word agrees within an approximation's bound. Special values have to be the same."""
    rule, bound = form.check
    element, parts = float_bits.elements(kind)
    agree = np.ones(got.shape, bool)
    for part in range(parts):
        a, b = (float_bits.decode(element, float_bits.part(element, words, part)) for words in (got, golden))
        agree &= close(element, rule, bound, a, b)
    return agree


def close(element, rule, bound, a, b):
    unit = float_bits.unit(element, b)
    with np.errstate(all="ignore"):
        allowed = unit + {"rel": bound * np.abs(b), "ulp": bound * unit, "abs": bound,
                          # lg2: the bound is absolute about one and relative elsewhere.
                          "lg2": np.maximum(bound, bound * np.abs(b))}[rule]
        near_values = np.abs(a - b) <= allowed
        finite = np.isfinite(a) & np.isfinite(b)
        top = float_bits.largest(element)
        edge = (np.isinf(a) ^ np.isinf(b)) & (np.sign(a) == np.sign(b))
        edge &= np.minimum(np.abs(a), np.abs(b)) >= 0.999 * top
        same = (np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))
        return same | (finite & near_values & ((np.signbit(a) == np.signbit(b)) | (rule == "abs"))) | edge


def describe(form, found, got, golden, inputs, source="the GPU", limit=4):
    lines = [f"{form.name}: {len(found)} of {got.size} results differ"]
    for slot, index in found[:limit]:
        width = 2 * forms.output_bytes(form)[slot]
        given = ", ".join(f"{column[index]:#x}" for column in inputs)
        lines.append(f"  result {slot} of element {index}: {int(got[slot, index]):#0{width + 2}x}, "
                     f"{source} gave {int(golden[slot, index]):#0{width + 2}x}; operands {given}")
    return "\n".join(lines)
