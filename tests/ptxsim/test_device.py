# SPDX-License-Identifier: Apache-2.0
"""Devices that run PTX, through Python: kernels on buffers of the device, streams, failures as errors, what is refused.

$KVQ_TEST_ACCELERATOR says which device: "ptxsim" (default), or "cuda" over the driver that the system's loader finds, which
test_cuda_device.py lets be the simulator's look-alike.
"""
import gc
import os

import numpy as np
import pytest

import kvq
from kvq.lowlevel import Context, compile, open_kernel, query_support
from sim_env import ADD, ADD_LOAD_LINE, BUILD, HEAD

DEVICE = os.environ.get("KVQ_TEST_ACCELERATOR", "ptxsim")
FIXED = HEAD + ".visible .entry fixed() .reqntid 32, 1, 1 { ret; }\n.visible .entry free() { ret; }\n"
# What a kernel that reads beyond its buffer is told.
FAILURE = {
    "ptxsim": rf"kernel add, line {ADD_LOAD_LINE}, block \(3, 0, 0\).* bounds: ",
    "cuda": r"kernel add failed with CUDA_ERROR_ILLEGAL_ADDRESS \(an illegal memory access was encountered\)",
}
PTX_COMPILER = BUILD / "tests/unit/fakes/libfake_ptx_compiler.so"
REQUEST = "attend:k{}c32-v4t32:vnni:p64:dk64:dv64:g3:f16:rows8:lag0:win0:cap0:exact"

on_ptxsim = pytest.mark.skipif(DEVICE != "ptxsim", reason="about device ptxsim")


@pytest.fixture()
def context(monkeypatch):
    if DEVICE == "ptxsim":
        monkeypatch.delenv("KVQ_PTXSIM_ARCH", raising=False)
    return Context(DEVICE)


def is_simulated(context):
    return context.description.startswith("ptxsim ")


def buffer(context, array):
    made = context.buffer(array.nbytes)
    made.upload(array)
    return made


def test_a_kernel_on_buffers(context):
    x, out = np.arange(100, dtype=np.float32), np.empty(100, np.float32)
    kernel = compile(context, ADD)
    assert kernel.signature == "b64 b64 b32 b32"
    source, target = buffer(context, x), context.buffer(x.nbytes)
    assert source.nbytes == 400 and source.address % 256 == 0 and source.address != target.address
    kernel.launch([source, target, 0.5, 100], grid=[4, 1, 1], block=[32, 1, 1])
    target.download(out)
    np.testing.assert_array_equal(out, x + np.float32(0.5))
    target.download(out[:10], offset=40)
    np.testing.assert_array_equal(out[:10], x[10:20] + np.float32(0.5))
    assert [k["name"] for k in context.kernels()] == ["add"]


def test_what_it_is(context):
    assert "compute capability" in context.description and "\n" not in context.description
    assert context.level.startswith("nvptx:sm_") and context.level in context.levels
    assert "nvptx:sm_80" in context.levels
    with pytest.raises(kvq.InvalidArgument, match="'sm_12'"):
        Context(DEVICE, level="sm_12")


@on_ptxsim
def test_levels(monkeypatch, context):
    assert context.level == "nvptx:sm_80" and "nvptx:sm_90" in context.levels
    for level in ("sm_90", "nvptx:sm_90"):
        assert Context("ptxsim", level=level).level == "nvptx:sm_90"
    assert Context("ptxsim", level="sm_87").level == "nvptx:sm_86"  # there is no code for 8.7 alone
    monkeypatch.setenv("KVQ_PTXSIM_ARCH", "sm_89")
    assert Context("ptxsim").level == "nvptx:sm_89"
    with pytest.raises(kvq.Unsupported, match="made for sm_90, which sm_89 does not run"):
        compile(Context("ptxsim"), ADD.replace("sm_80", "sm_90"))
    monkeypatch.setenv("KVQ_PTXSIM_SEED", "minus one")
    with pytest.raises(kvq.InvalidArgument, match="KVQ_PTXSIM_SEED"):
        Context("ptxsim")


def fail(context, x):
    kernel, source, target = compile(context, ADD), buffer(context, x), context.buffer(400)
    kernel.launch([source, target, 0.5, 101], grid=[4, 1, 1], block=[32, 1, 1])  # done later
    with pytest.raises(kvq.InvalidArgument, match=FAILURE[DEVICE]):
        context.synchronize()
    for call in (lambda: target.download(x), lambda: context.buffer(4), lambda: compile(context, FIXED, "free"),
                 lambda: kernel.launch([source, target, 0.5, 1], grid=[1, 1, 1], block=[32, 1, 1])):
        with pytest.raises(kvq.InvalidArgument, match="the device answers nothing else"):
            call()


def test_failures_are_errors_that_stay(monkeypatch):
    if DEVICE == "ptxsim":
        monkeypatch.delenv("KVQ_PTXSIM_ARCH", raising=False)
    context, x = Context(DEVICE), np.zeros(100, np.float32)
    if not is_simulated(context):
        pytest.skip("one float behind an allocation is no illegal address on a GPU, and a failure would end the process")
    fail(context, x)
    del context
    gc.collect()  # the driver's context ends with the last object on it, and the failure with that
    other = Context(DEVICE)
    buffer(other, x).download(x)


def test_streams(context):
    x, out = np.arange(64, dtype=np.float32), np.empty(64, np.float32)
    kernel, source, target, stream = compile(context, ADD), buffer(context, x), context.buffer(256), context.stream()
    target.fill(0)
    kernel.launch([source, target, 1.0, 64], grid=[2, 1, 1], block=[32, 1, 1], stream=stream)
    target.download(out)  # on the context's own stream, which knows nothing of the other
    assert not out.any() or not is_simulated(context)
    stream.synchronize()
    target.download(out)
    np.testing.assert_array_equal(out, x + 1)
    kernel.launch([target, target, 1.0, 64], grid=[2, 1, 1], block=[32, 1, 1], stream=stream)
    target.download(out, stream=stream)
    np.testing.assert_array_equal(out, x + 2)


def test_kernels_of_one_size(context):
    compile(context, FIXED, "fixed").launch([], grid=[2, 1, 1])
    context.synchronize()
    free = compile(context, FIXED, "free")
    with pytest.raises(kvq.InvalidArgument, match="was not made for one size of blocks"):
        free.launch([], grid=[1, 1, 1])
    with pytest.raises(kvq.InvalidArgument, match="reqntid"):
        compile(context, FIXED, "fixed").launch([], grid=[1, 1, 1], block=[64, 1, 1])
    free.launch([], grid=[1, 1, 1], block=[64, 1, 1], shared=96 << 10)  # more than a kernel may have without opting in
    with pytest.raises(kvq.Error, match="shared memory"):
        free.launch([], grid=[1, 1, 1], block=[64, 1, 1], shared=1 << 20)
    with pytest.raises(kvq.InvalidArgument, match="has 2 kernels"):
        compile(context, FIXED)
    with pytest.raises(kvq.InvalidArgument, match="no kernel 'none'"):
        compile(context, FIXED, "none")
    context.synchronize()


def test_warps_that_run_at_once(context):
    """Blocks of one warp: as many as a multiprocessor of an A100 takes, on 108 of them."""
    found = compile(context, FIXED, "fixed").resident_warps
    assert found == 32 * 108 if is_simulated(context) else found > 0
    with pytest.raises(kvq.InvalidArgument, match="kernel free was not made for one size of blocks"):
        compile(context, FIXED, "free").resident_warps  # noqa: B018
    with pytest.raises(kvq.Unsupported, match="as many programs at once as the context has threads"):
        open_kernel(Context("ref", threads=1), REQUEST.format(4)).resident_warps  # noqa: B018


def test_refused(context):
    kernel, x = compile(context, ADD), np.zeros(8, np.float32)
    made = buffer(context, x)
    for args, block, message in (
            ([made, made, 0.5], 32, "takes 4 arguments and was given 3"), ([x, made, 0.5, 1], 32, "argument 0"),
            ([made, made, 0.5, 1 << 32], 32, "argument 3"), ([made, made, 0.5, 1], 2048, "1024 threads")):
        with pytest.raises(kvq.InvalidArgument, match=message):
            kernel.launch(args, grid=[1, 1, 1], block=[block, 1, 1])
    with pytest.raises(kvq.InvalidArgument, match="outside of the buffer"):
        made.upload(x, offset=4)
    with pytest.raises(kvq.InvalidArgument, match="contiguous"):
        made.upload(np.zeros((4, 4), np.float32)[:, 0])
    with pytest.raises(kvq.InvalidArgument, match="at least 1"):
        context.buffer(0)
    with pytest.raises(kvq.PoolFull, match="bytes free"):
        context.buffer(1 << 42)
    with pytest.raises(kvq.Unsupported, match="ptx:5: .*frobnicate"):
        compile(context, HEAD + ".visible .entry k() {\n frobnicate.b32 1;\n}")
    made.download(x)
    context.synchronize()


def test_builtin_kernels():
    """Of a compiler that makes one kernel of every request: fakes/fake_ptx_compiler.c says which."""
    context = Context(DEVICE, compiler=str(PTX_COMPILER), store_dir="")
    kernel, out = open_kernel(context, REQUEST.format(4)), np.zeros(11, np.uint32)
    assert kernel.signature == "ptr<i32> i64"
    target = context.buffer(out.nbytes)
    target.fill(0xff)
    kernel.launch([target, 5], grid=[5, 2, 1])
    target.download(out)
    assert out.tolist() == [5, 6, 7, 8, 9, 1005, 1006, 1007, 1008, 1009, 0xffffffff]
    kernel.launch([target, 5], grid=[0, 2, 1])
    with pytest.raises(kvq.InvalidArgument, match="takes 2 arguments and was given 1"):
        kernel.launch([target], grid=[1, 1, 1])
    with pytest.raises(kvq.InvalidArgument, match="has a grid of programs: use kvq_kernel_launch"):
        kernel.launch([target, 5], grid=[1, 1, 1], block=[128, 1, 1])
    with pytest.raises(kvq.Unsupported, match="^there is no kernel for 3 bits on an accelerator: use 2, 4 or 8$"):
        open_kernel(context, REQUEST.format(3))
    assert [(k["name"], k["source"]) for k in context.kernels()] == [(REQUEST.format(4), "compiled")]


def test_without_a_compiler():
    context = Context(DEVICE, compiler="")
    compile(context, FIXED, "fixed").launch([], grid=[1, 1, 1])
    for call in (lambda: open_kernel(context, REQUEST.format(4)),
                 lambda: query_support(context, "kivi-2", layers=1, q_heads=2, kv_heads=1, dk=64, dv=64)):
        with pytest.raises(kvq.Unsupported, match="was asked for without a compiler plug-in"):
            call()
    context.synchronize()


def test_buffers_of_a_host():
    context, x = Context("ref", threads=1), np.arange(8, dtype=np.float32)
    made, out = buffer(context, x), np.zeros(8, np.float32)
    made.download(out)
    np.testing.assert_array_equal(out, x)
    context.synchronize()
    with pytest.raises(kvq.Unsupported, match="no streams"):
        context.stream()


@on_ptxsim
def test_a_missing_simulator(monkeypatch):
    monkeypatch.setenv("KVQ_PTXSIM", "/nonexistent/libkvq-ptxsim.so")
    with pytest.raises(kvq.Unsupported, match="comes with a build of the sources"):
        Context("ptxsim")
