# SPDX-License-Identifier: Apache-2.0
"""Device "ptxsim" through Python: PTX kernels on buffers of the device, streams, findings as errors, what is refused."""
import numpy as np
import pytest

import kvq
from kvq.lowlevel import Context, compile, open_kernel, query_support
from sim_env import ADD, ADD_LOAD_LINE, HEAD

FIXED = HEAD + ".visible .entry fixed() .reqntid 32, 1, 1 { ret; }\n.visible .entry free() { ret; }\n"


@pytest.fixture()
def context(monkeypatch):
    monkeypatch.delenv("KVQ_PTXSIM_ARCH", raising=False)
    return Context("ptxsim")


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


def test_levels(monkeypatch, context):
    assert context.level == "sm_80" and "sm_90" in context.levels
    assert Context("ptxsim", level="sm_90").level == "sm_90"
    monkeypatch.setenv("KVQ_PTXSIM_ARCH", "sm_89")
    assert Context("ptxsim").level == "sm_89"
    with pytest.raises(kvq.Unsupported, match="made for sm_90, which sm_89 does not run"):
        compile(Context("ptxsim"), ADD.replace("sm_80", "sm_90"))
    with pytest.raises(kvq.InvalidArgument, match="'sm_12'"):
        Context("ptxsim", level="sm_12")
    monkeypatch.setenv("KVQ_PTXSIM_SEED", "minus one")
    with pytest.raises(kvq.InvalidArgument, match="KVQ_PTXSIM_SEED"):
        Context("ptxsim")


def test_findings_are_errors_that_stay(context):
    kernel, x = compile(context, ADD), np.zeros(100, np.float32)
    source, target = buffer(context, x), context.buffer(400)
    kernel.launch([source, target, 0.5, 101], grid=[4, 1, 1], block=[32, 1, 1])  # done later
    with pytest.raises(kvq.InvalidArgument, match=rf"kernel add, line {ADD_LOAD_LINE}, block \(3, 0, 0\).* bounds: "):
        context.synchronize()
    for call in (lambda: target.download(x), lambda: context.buffer(4), lambda: compile(context, FIXED, "free"),
                 lambda: kernel.launch([source, target, 0.5, 1], grid=[1, 1, 1], block=[32, 1, 1])):
        with pytest.raises(kvq.InvalidArgument, match="the device answers nothing else"):
            call()
    del source, target
    other = Context("ptxsim")
    buffer(other, x).download(x)


def test_streams(context):
    x, out = np.arange(64, dtype=np.float32), np.empty(64, np.float32)
    kernel, source, target, stream = compile(context, ADD), buffer(context, x), context.buffer(256), context.stream()
    target.fill(0)
    kernel.launch([source, target, 1.0, 64], grid=[2, 1, 1], block=[32, 1, 1], stream=stream)
    target.download(out)  # on the context's own stream, which knows nothing of the other
    assert not out.any()
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
    free.launch([], grid=[1, 1, 1], block=[64, 1, 1], shared=160 << 10)
    with pytest.raises(kvq.InvalidArgument, match="has 2 kernels"):
        compile(context, FIXED)
    with pytest.raises(kvq.InvalidArgument, match="no kernel 'none'"):
        compile(context, FIXED, "none")
    context.synchronize()


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
        context.buffer(1 << 40)
    with pytest.raises(kvq.Unsupported, match="ptx:5: .*frobnicate"):
        compile(context, HEAD + ".visible .entry k() {\n frobnicate.b32 1;\n}")
    with pytest.raises(kvq.Unsupported, match="has no PTX yet"):
        open_kernel(context, "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact")
    with pytest.raises(kvq.Unsupported, match="has no PTX yet"):
        query_support(context, "kivi-2", layers=1, q_heads=2, kv_heads=1, dk=64, dv=64)
    made.download(x)
    context.synchronize()


def test_buffers_of_a_host():
    context, x = Context("ref", threads=1), np.arange(8, dtype=np.float32)
    made, out = buffer(context, x), np.zeros(8, np.float32)
    made.download(out)
    np.testing.assert_array_equal(out, x)
    context.synchronize()
    with pytest.raises(kvq.Unsupported, match="no streams"):
        context.stream()


def test_a_missing_simulator(monkeypatch):
    monkeypatch.setenv("KVQ_PTXSIM", "/nonexistent/libkvq-ptxsim.so")
    with pytest.raises(kvq.Unsupported, match="comes with a build of the sources"):
        Context("ptxsim")
