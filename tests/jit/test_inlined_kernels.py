# SPDX-License-Identifier: Apache-2.0
"""Unoptimized kernels, which call functions and pass structures, compute the same once their calls are inlined."""

import pytest

import nvrtc_env
import test_cuda_kernels
import toolchain
from subjects import subjects

pytestmark = toolchain.needs_toolkit

UNOPTIMIZED = (toolchain.Variant("nvcc", "O0"), toolchain.Variant("clang", "O0"))


@pytest.mark.parametrize("variant", UNOPTIMIZED, ids=str)
@pytest.mark.parametrize("name", test_cuda_kernels.NAMES)
def test_inlined_calls_compute_the_same(tmp_path, name, variant):
    subject = subjects()[name]
    path = nvrtc_env.text_file(tmp_path, subject.source, variant)
    nvrtc_env.run_well("inline", path, tmp_path / "inlined.ptx")
    inlined = (tmp_path / "inlined.ptx").read_text(encoding="utf-8")
    assert ".func" not in inlined
    test_cuda_kernels.launch_all(subject, inlined)


@pytest.mark.parametrize("variant", UNOPTIMIZED, ids=str)
def test_some_of_them_have_calls(variant):
    if reason := toolchain.missing(variant):
        pytest.skip(reason)
    sources = {subject.source for subject in subjects().values()}
    calling = [source for source in sources if "call.uni" in toolchain.ptx(source, variant)]
    assert len(calling) > 3, calling
