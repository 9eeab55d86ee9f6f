# SPDX-License-Identifier: Apache-2.0
"""A score function in CUDA C++ becomes part of a kernel: the simulator runs the result, and no call is left."""

import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

import cubin
import nvrtc_env
import ptx_run
import toolchain
from ptx_run import In, Out, U32

pytestmark = [toolchain.needs_toolkit, nvrtc_env.needs_nvrtc]

# Two calls, one of them within a branch and a loop.
CALLER = """
extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k);
extern "C" __global__ void __launch_bounds__(64) scores(const float *in, float *out, int n) {
  int i = blockIdx.x * 64 + threadIdx.x;
  if (i >= n) return;
  float a = kvq_score_mod(in[i], blockIdx.x, threadIdx.x & 3, i, n - i);
  for (int step = 0; step < (i & 3); ++step)
    if (a > -1e30f) a += kvq_score_mod(a, 1, step, i, 3 * step);
  out[i] = a;
}
"""
N = 200
HEAD = ".version 7.0\n.target sm_80\n.address_size 64\n"


def caller(tmp_path, compiler):
    variant = toolchain.Variant(compiler, "O3")
    if reason := toolchain.missing(variant):
        pytest.skip(reason)
    source, out = tmp_path / "caller.cu", tmp_path / "caller.ptx"
    source.write_text(CALLER, encoding="utf-8")
    if compiler == "nvcc":
        command = [toolchain.toolkit() / "bin/nvcc", "-ptx", "-rdc=true", "-arch=sm_80", "-o", out, source]
    else:
        (tmp_path / "curand_mtgp32_kernel.h").touch()
        command = ["clang++-22", "-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch=sm_80", "-O3", "-S", "-fgpu-rdc",
                   f"--cuda-path={toolchain.toolkit()}", "-isystem", tmp_path, "-Wno-unknown-cuda-version", "-o", out,
                   source]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    text = out.read_text(encoding="utf-8")
    assert text.count("kvq_score_mod,") + text.count("kvq_score_mod(") >= 2
    return out


def joined(tmp_path, hook, compiler="nvcc"):
    (tmp_path / "hook.cu").write_text(hook, encoding="utf-8")
    nvrtc_env.run_well("hook", caller(tmp_path, compiler), tmp_path / "hook.cu", "score.cu", "sm_80",
                       tmp_path / "joined.ptx")
    return (tmp_path / "joined.ptx").read_text(encoding="utf-8")


def expected(hook):
    """What the kernel makes of its input with the hook as a Python function of numpy floats."""
    values = inputs()
    out = np.zeros(N, np.float32)
    for i in range(N):
        a = np.float32(hook(values[i], i // 64, i % 64 & 3, i, N - i))
        for step in range(i & 3):
            if a > np.float32(-1e30):
                a = np.float32(a + np.float32(hook(a, 1, step, i, 3 * step)))
        out[i] = a
    return out


def inputs():
    return np.linspace(-40, 40, N, dtype=np.float32)


def launch(ptx):
    (out,), _ = ptx_run.run(ptx, math.ceil(N / 64), 64, In(inputs()), Out((N,), "float32"), U32(N), kernel="scores")
    return out


CAUSAL = """
extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k) {
  return k > q ? -INFINITY : score - 0.5f * (float)(q - k) * (float)(head + 1);
}
"""
EARLY = """
#include <stdint.h>
extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k) {
  int32_t distance = q > k ? q - k : k - q;
  if (distance > 100) return -score;
  for (int i = 0; i < distance % 5; ++i) {
    if (score > 16.0f) return score + (float)batch;
    score = score * 1.5f + 1.0f;
  }
  return score;
}
"""
TABLE = """
__constant__ float slopes[4] = {1.0f, 0.5f, 0.25f, 0.125f};
static __device__ __noinline__ float bias(int head, int distance) { return slopes[head & 3] * (float)distance; }
extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k) {
  return score + bias(head, q - k) + bias(head + 1, k - q);
}
"""


def early(score, batch, head, q, k):
    distance = abs(q - k)
    if distance > 100:
        return -score
    for _ in range(distance % 5):
        if score > 16:
            return np.float32(score + np.float32(batch))
        score = np.float32(np.float64(score) * 1.5 + 1)  # one rounding: the compiler fuses it
    return score


def table(score, batch, head, q, k):
    slopes = (1.0, 0.5, 0.25, 0.125)
    first = np.float32(np.float64(slopes[head & 3]) * (q - k) + np.float64(score))
    return np.float32(np.float64(slopes[head + 1 & 3]) * (k - q) + np.float64(first))


def causal(score, batch, head, q, k):
    if k > q:
        return np.float32(-np.inf)
    return np.float32(np.float64(score) + np.float64(np.float32(-0.5) * np.float32(q - k)) * (head + 1))


@pytest.mark.parametrize("compiler", ("nvcc", "clang"))
@pytest.mark.parametrize("hook, python", ((CAUSAL, causal), (EARLY, early), (TABLE, table)),
                         ids=("causal", "early-return", "table-and-calls"))
def test_the_simulator_runs_the_hook(tmp_path, hook, python, compiler):
    ptx = joined(tmp_path, hook, compiler)
    assert "call" not in ptx and ".func" not in ptx
    np.testing.assert_allclose(launch(ptx), expected(python), rtol=2e-6)


def test_no_call_is_left_in_the_machine_code(tmp_path):
    joined(tmp_path, TABLE)
    for arch in ("sm_80", "sm_90"):
        entry, = nvrtc_env.compile_ptx(tmp_path / "joined.ptx", [arch], tmp_path).values()
        code = Path(entry["file"]).read_bytes()
        assert entry["stack"] == 0 and entry["spill_stores"] == 0
        # CALL.REL.NOINC and CALL.ABS.NOINC: the low 12 bits of an instruction.
        words = cubin.kernels(code)["scores"]
        opcodes = {int.from_bytes(words[at:at + 2], "little") & 0xFFF for at in range(0, len(words), 16)}
        assert not opcodes & {0x943, 0x944}, arch


def test_names_that_collide(tmp_path):
    """Registers, labels and variables of the hook that are called as the kernel's own, or as the inliner's."""
    ptx = HEAD + """
.extern .func (.param .b32 r) kvq_score_mod(.param .b32 a, .param .b32 b, .param .b32 c, .param .b32 d, .param .b32 e);
.global .b32 table = 7;
.visible .entry scores(.param .u64 in, .param .u64 out)
{
  .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b64 %rd<9>; .reg .pred %p<3>; .reg .b32 %kvq_in0;
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd3, %r1, 4;
  add.u64 %rd1, %rd1, %rd3;
  add.u64 %rd2, %rd2, %rd3;
  ld.global.f32 %f1, [%rd1];
  mov.u32 %kvq_in0, 1000;
$L1:
  { .param .b32 a; .param .b32 b; .param .b32 c; .param .b32 d; .param .b32 e; .param .b32 r;
    st.param.f32 [a], %f1; st.param.b32 [b], %r1; st.param.b32 [c], 2; st.param.b32 [d], 3; st.param.b32 [e], 4;
    call.uni (r), kvq_score_mod, (a, b, c, d, e);
    ld.param.f32 %f2, [r];
  }
  setp.lt.f32 %p1, %f2, 0f41200000;
  mov.f32 %f1, %f2;
  @%p1 bra $L1;
  ld.global.u32 %r2, [table];
  add.u32 %r2, %r2, %kvq_in0;
  cvt.rn.f32.u32 %f3, %r2;
  add.f32 %f2, %f2, %f3;
  st.global.f32 [%rd2], %f2;
  ret;
}
"""
    hook = HEAD + """
.global .b32 table = 2;
.func (.param .b32 r) kvq_score_mod(.param .b32 a, .param .b32 b, .param .b32 c, .param .b32 d, .param .b32 e)
{
  .reg .b32 %r<3>; .reg .f32 %f<4>; .reg .pred %p<2>; .reg .b32 %kvq_in0;
  ld.param.f32 %f1, [a];
  ld.param.u32 %r1, [b];
  ld.global.u32 %r2, [table];
  mov.u32 %kvq_in0, 5;
  add.u32 %r1, %r1, %r2;
$L1:
  add.f32 %f1, %f1, 0f3F800000;
  sub.u32 %r1, %r1, 1;
  setp.gt.u32 %p1, %r1, 0;
  @%p1 bra $L1;
  st.param.f32 [r], %f1;
  ret;
}
"""
    (tmp_path / "k.ptx").write_text(ptx, encoding="utf-8")
    (tmp_path / "h.ptx").write_text(hook, encoding="utf-8")
    nvrtc_env.run_well("link", tmp_path / "k.ptx", tmp_path / "h.ptx", tmp_path / "joined.ptx")
    joined_ptx = (tmp_path / "joined.ptx").read_text(encoding="utf-8")
    values = np.arange(32, dtype=np.float32) / 4
    (out,), _ = ptx_run.run(joined_ptx, 1, 32, In(values), Out((32,), "float32"), kernel="scores")
    right = values.copy()
    for lane in range(32):
        while True:
            right[lane] += lane + 2
            if not right[lane] < 10:
                break
    np.testing.assert_array_equal(out, right + 1007)
    toolchain.accept(tmp_path / "joined.ptx", "sm_80")
    nvrtc_env.compile_ptx(tmp_path / "joined.ptx", ["sm_80", "sm_120"], tmp_path)


@pytest.mark.parametrize("hook, said", (
    ('extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k) {\n  return scores;\n}',
     'score.cu(2): error: identifier "scores" is undefined'),
    ('\nextern "C" __device__ float kvq_score_mod(float score) { return score; }', "score.cu(2): error:"),
    ('extern "C" __device__ int kvq_score_mod(float score, int b, int h, int q, int k) { return 0; }',
     "score.cu(1): error:"),
    ("__device__ float other(float score) { return score; }", "define extern \"C\" __device__ float kvq_score_mod("),
    ('extern "C" int printf(const char *, ...);\nextern "C" __device__ float kvq_score_mod(float s, int b, int h, '
     'int q, int k) { printf("%f", s); return s; }', "calls 'vprintf'"),
    ('extern "C" __device__ float away(float);\nextern "C" __device__ float kvq_score_mod(float s, int b, int h, '
     'int q, int k) { return away(s); }', "calls 'away', which its text does not define"),
    ('__device__ __noinline__ float down(float s, int n) { return n < 1 ? s : down(s * 2, n - 1) + down(s, n / 2); }\n'
     'extern "C" __device__ float kvq_score_mod(float s, int b, int h, int q, int k) { return down(s, q); }',
     "calls itself, which cannot be inlined"),
))
def test_a_hook_that_cannot_be_used(tmp_path, hook, said):
    (tmp_path / "hook.cu").write_text(hook, encoding="utf-8")
    error = nvrtc_env.refusal("hook", caller(tmp_path, "nvcc"), tmp_path / "hook.cu", "score.cu", "sm_80",
                              tmp_path / "joined.ptx")
    assert error.startswith("the score function"), error
    assert said in error, error
