# SPDX-License-Identifier: Apache-2.0
"""The table of forms: ptxas takes every kernel, inputs are the same everywhere, the recorder survives a bad device."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import folding
import forms
import golden_file

HERE = pathlib.Path(__file__).parent
FORMS = forms.all_forms()
PTXAS = folding.find_ptxas()
COMPILER = shutil.which("cc") or shutil.which("gcc")


def assemble(some, arch, folder):
    """All kernels of some forms in one module."""
    version = max(form.version for form in some)
    text = ".version %d.%d\n.target sm_%s\n.address_size 64\n" % (version // 10, version % 10, arch)
    for number, form in enumerate(some):
        body = form.ptx().split("\n", 3)[3]
        text += body.replace("entry form(", "entry form%d(" % number, 1)
    source = pathlib.Path(folder, "forms.ptx")
    source.write_text(text)
    command = [PTXAS, "-O1", "-arch=sm_" + arch, str(source), "-o", os.devnull]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(PTXAS is None, reason="ptxas is not installed")
@pytest.mark.parametrize("target", sorted({form.target for form in FORMS}))
def test_ptxas_takes_every_kernel(target, tmp_path):
    """For the least GPU that a form names, in modules of at most a hundred."""
    mine = [form for form in FORMS if form.target == target]
    arch = f"{target}{mine[0].arch}"
    for begin in range(0, len(mine), 100):
        done = assemble(mine[begin:begin + 100], arch, tmp_path)
        assert done.returncode == 0, done.stderr


def test_enough_forms():
    assert len([form for form in FORMS if form.gpu]) >= 350


def test_inputs_are_the_same_everywhere():
    """A digest that another machine computed; a change here makes golden files stale, deliberately or not."""
    known = {"add.s16": "7964a26c8c6d2b04", "fma.rn.f32": "0abb54e8c2d2f7fb"}
    assert {form.name: forms.digest(form) for form in FORMS if form.name in known} == known


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    library = tmp_path_factory.mktemp("fake") / "libcuda.so.1"
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", str(HERE / "fake_cuda.c"), "-o", str(library)], check=True)
    return library


def record(fake, folder, **environment):
    done = subprocess.run([sys.executable, str(HERE / "record_goldens.py"), "--out", str(folder), "--only", "mov.",
                           "--jobs", "2", "--patience", "1"], capture_output=True, text=True, timeout=100,
                          env=dict(os.environ, KVQ_LIBCUDA=str(fake), **environment))
    return done, (folder / "report.txt").read_text()


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_recorder_notes_what_fails(fake, tmp_path):
    done, report = record(fake, tmp_path, FAKE_REFUSE="mov.u32 %d0, %tid.y", FAKE_ABORT="mov.u32 %d0, %laneid",
                          FAKE_FAULT="%lanemask_eq", FAKE_HANG="%lanemask_ge")
    assert done.returncode == 0, done.stderr
    count = len([form for form in FORMS if "mov." in form.name])
    assert f"{count - 4} of {count} forms recorded, 1 refused, 3 failed, 0 not reached" in report
    header, results = golden_file.read(tmp_path / "sm_90.golden")
    assert header["device"] == "fake 0" and len(results) == count - 4
    assert header["refused"]["mov.u32.%tid.y"].endswith("ptxas: fake refusal")
    assert header["refused"]["mov.u32.%laneid"] == "failed: the process ended, signal 6"
    assert "700 CUDA_ERROR_ILLEGAL_ADDRESS" in header["refused"]["mov.u32.%lanemask_eq"]
    assert "no answer in time" in header["refused"]["mov.u32.%lanemask_ge"]


def test_recorder_without_a_driver(tmp_path):
    done, report = record(tmp_path / "missing.so", tmp_path)
    assert done.returncode == 1
    assert re.search("no device: .*missing.so", report)


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_recorder_keeps_what_the_device_gave(fake, tmp_path):
    """The stand-in's answer is a checksum of the kernel's text."""
    record(fake, tmp_path)
    form = next(form for form in FORMS if form.name == "mov.b32")
    total = 0
    for byte in form.ptx().encode():
        total = (total * 31 + byte) % 2 ** 32
    digest, packed = golden_file.read(tmp_path / "sm_90.golden")[1]["mov.b32"]
    assert digest == forms.digest(form)
    assert golden_file.unpack(form, packed) == [[(total + index) % 2 ** 32 for index in range(form.count)]]
