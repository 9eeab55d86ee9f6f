# SPDX-License-Identifier: Apache-2.0
"""Executes a form in the simulator."""
import numpy as np

import forms
import ptx_run


def execute(form, **options):
    """The results of a form, a row of uint64 for each. All checks are on; a finding fails. Options are ptx-run's."""
    given = np.frombuffer(forms.pack_inputs(form), np.uint64)
    words = form.count * len(form.outs)
    (out,), _ = ptx_run.run(form.ptx(), form.count // form.block, form.block, ptx_run.In(given),
                            ptx_run.Fill(0, (words,), "uint64"), **options)
    masks = np.array([2 ** (8 * size) - 1 for size in forms.output_bytes(form)], np.uint64)
    return out.reshape(len(form.outs), form.count) & masks[:, None]
