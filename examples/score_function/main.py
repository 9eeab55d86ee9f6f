# SPDX-License-Identifier: Apache-2.0
"""Attention with ALiBi over a quantized cache: a score function of one's own, compiled into the kernel.

alibi.mlir runs on every device; alibi.cu says the same in CUDA C++, for GPUs. Both are held against the definition, on this
CPU and, where this build has it, on the simulated GPU. Then a mistake in each, to show where it is reported.
"""

from pathlib import Path

import numpy as np

import kvq
from kvq import lowlevel

HEADS, KV_HEADS, D, TOKENS, SCALE = 4, 2, 64, 200, 0.125
HERE = Path(__file__).parent
ALIBI = lowlevel.ScoreFunction((HERE / "alibi.mlir").read_text(), name="alibi.mlir")
ALIBI_CUDA = lowlevel.ScoreFunction((HERE / "alibi.cu").read_text(), language="cuda", name="alibi.cu")


def on_device(context, host):
    """The array where kernels of the context see it: the bytes, and what calls of a cache take."""
    buffer = context.buffer(host.nbytes)
    buffer.upload(host)
    return buffer, buffer.array(list(host.shape), str(host.dtype))


def attend(context, score, q, k, v):
    """The last token's attention over all of them, and the keys and values as the cache has them."""
    cache = lowlevel.Cache(context, "k8c32-v8t32/w64,block", layers=1, q_heads=HEADS, kv_heads=KV_HEADS, dk=D, dv=D,
                           dtype="float16", blocks=8, score=score)  # fmt: skip
    sequence = cache.add()
    out = np.zeros((1, HEADS, TOKENS, D), np.float16)
    dense = np.zeros((2, KV_HEADS, TOKENS, D), np.float16)
    (out_at, out_array), *inputs = (on_device(context, x) for x in (out, q, k, v))
    with cache.plan([sequence], [TOKENS]) as step:
        step.forward(0, *(array for _, array in inputs), SCALE, out_array)
    (k_at, k_array), (v_at, v_array) = (on_device(context, x) for x in dense)
    cache.read(sequence, 0, k_array, v_array)
    for buffer, host in ((out_at, out), (k_at, dense[0]), (v_at, dense[1])):
        buffer.download(host)
    return out[0, :, -1].astype(np.float64), dense.astype(np.float64)


def defined(q, dense):
    k, v = np.repeat(dense, HEADS // KV_HEADS, axis=1)
    scores = SCALE * np.einsum("hd,htd->ht", q, k)
    scores += 2.0 ** -np.arange(1, HEADS + 1)[:, None] * np.arange(1 - TOKENS, 1)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.einsum("ht,htd->hd", weights / weights.sum(axis=1, keepdims=True), v)


def mistake(context, score, old, new):
    """What is said of the function with `new` in place of `old`."""
    wrong = lowlevel.ScoreFunction(score.text.replace(old, new), score.language, score.name)
    try:
        lowlevel.Cache(context, "kvq-8", layers=1, q_heads=1, kv_heads=1, dk=D, dv=D, blocks=1, score=wrong)
    except kvq.Error as error:
        return str(error).splitlines()[0]
    raise AssertionError("a mistake was not found")


def main():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, h, TOKENS, D)).astype(np.float16) for h in (HEADS, KV_HEADS, KV_HEADS))
    cpu = lowlevel.shared_context()
    runs = [("cpu", cpu, ALIBI)]
    try:
        gpu = lowlevel.shared_context("ptxsim")
        runs += [("ptxsim", gpu, ALIBI), ("ptxsim", gpu, ALIBI_CUDA)]
    except kvq.Unsupported as reason:
        gpu = None
        print(f"the simulated GPU is left out: {reason}")
    for device, context, score in runs:
        try:
            found, dense = attend(context, score, q, k, v)
        except kvq.Unsupported as reason:  # NVRTC is not installed
            print(f"{device}, {score.name}: left out: {reason}")
            continue
        expected = defined(q[0, :, -1].astype(np.float64), dense)
        error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
        print(f"{device}, {score.name}: relative error {error:.1e}")
        assert error < 2e-3, error

    print("a mistake in IR:", told := mistake(cpu, ALIBI, "arith.mulf", "arith.mul"))
    assert told.startswith("score function 'alibi.mlir': 16:11: "), told
    print("CUDA C++ on a CPU:", told := mistake(cpu, ALIBI_CUDA, "", ""))
    assert "which a CPU cannot run" in told, told
    if gpu:
        print("a mistake in CUDA C++:", told := mistake(gpu, ALIBI_CUDA, "k - q", "k - query"))
        assert "alibi.cu(" in told or "NVRTC" in told, told


if __name__ == "__main__":
    main()
