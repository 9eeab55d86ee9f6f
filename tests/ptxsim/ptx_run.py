# SPDX-License-Identifier: Apache-2.0
"""Executes forms in the simulator's tool, ptx-run."""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

import forms

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("KVQ_PTX_RUN", ROOT / "build/release/runtime/ptxsim/ptx-run"))
needs_tool = pytest.mark.skipif(not TOOL.exists(), reason="ptx-run is not built")


class Refused(Exception):
    """ptx-run did not end with status 0; the text is what it said."""


def execute(form, folder, *options):
    """The results of a form, a uint64 array for each; all checks are on."""
    folder = pathlib.Path(folder)
    given = np.frombuffer(forms.pack_inputs(form), np.uint64)
    np.save(folder / "in.npy", given)
    (folder / "form.ptx").write_text(form.ptx())
    words = form.count * len(form.outs)
    command = [str(TOOL), str(folder / "form.ptx"), "--grid", str(form.count // form.block), "--block", str(form.block),
               "--arg", f"in:{folder / 'in.npy'}", "--arg", f"fill:0:uint64:{words}:{folder / 'out.npy'}", *options]
    done = subprocess.run(command + ["--quiet", "--json", str(folder / "report.json")], capture_output=True, text=True,
                          timeout=60)
    if done.returncode:
        raise Refused(f"{form.name}: status {done.returncode}: {done.stderr.strip()} {findings(folder, done)}")
    out = np.load(folder / "out.npy").reshape(len(form.outs), form.count)
    masks = np.array([2 ** (8 * size) - 1 for size in forms.output_bytes(form)], np.uint64)
    return out & masks[:, None]


def findings(folder, done):
    report = folder / "report.json"
    if done.returncode not in (1, 3) or not report.exists():
        return ""
    content = json.loads(report.read_text())
    return content.get("message", "") + "; ".join(f"{f['check']}: {f['message']}" for f in content["findings"][:3])
