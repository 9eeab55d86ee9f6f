# SPDX-License-Identifier: Apache-2.0
"""One cache, three devices: the same life of a cache by kernels of the CPU, by PTX kernels in the simulator with all
its checks, and by the scalar reference. Codes, scales and minima in the pages and what is read are the same bit by bit,
attention within the accuracy class, lengths and errors the same; and PTX kernels once more through the driver's interface. With
KVQ_TEST_ACCELERATOR=cuda a GPU takes the simulator's place."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from device_tensor import random_tensor
from three_devices import LAYERS, SHORT_CASES, Case, Life, compare

import kvq
from kvq import lowlevel

ACCELERATOR = os.environ.get("KVQ_TEST_ACCELERATOR", "ptxsim")
on_simulator = pytest.mark.skipif(ACCELERATOR != "ptxsim", reason="about the simulator")
HERE = Path(__file__).resolve().parent
DRIVER = Path(kvq.__file__).absolute().parents[2] / "runtime/ptxsim/driver"

CASES = [
    *SHORT_CASES,
    Case("k4c32-v4t32/w32,block", 4, 128, "bf16", q_heads=6),
    Case("k8c32-v8t32/w64,block", 8, 64, "bf16", q_heads=2),
    Case("k2c32-v2t16/w32,sliding", 2, 128, "f16"),
    Case("k4t32-v4t16/w32,keep4,flush", 4, 128, "f16"),
    Case("k8t64-v4t32/w48,keep4,flush", 4, 64, "bf16", q_heads=8),
    Case("k4t16-v2t16/w32,block", 2, 80, "f16"),
    Case("k8c64-v4t16/w128,sliding", 4, 80, "bf16", kv_heads=3, q_heads=9),
    Case("k4c32-v4t32/w32,block", 4, 64, "f16", accuracy="normal"),
    Case("k2c32-v2t32/w32,block", 2, 128, "bf16", accuracy="normal"),
    Case("k4c32-v4t32/w32,block", 4, 64, "f16", window=48),
    Case("k2c32-v4t32/w32,sliding", 2, 128, "f16", cap=20.0),
]
# Those that the CPU lives too: its kernels take ten times as long to compile, and test_cache_model.py has more of them.
ON_CPU = CASES[:2] + CASES[4:6] + CASES[9:12]
_lives = {}


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    store = str(tmp_path_factory.mktemp("store"))
    return {name: lowlevel.Context(name, threads=1, store_dir=store) for name in ("cpu", "ref", ACCELERATOR)}


def life(contexts, device, case):
    if (device, case) not in _lives:
        _lives[device, case] = Life(contexts[device], case).run()
    return _lives[device, case]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_accelerator_lives_as_the_reference(contexts, case):
    compare(life(contexts, ACCELERATOR, case), life(contexts, "ref", case))


@pytest.mark.parametrize("case", ON_CPU, ids=str)
def test_cpu_lives_as_the_reference(contexts, case):
    compare(life(contexts, "cpu", case), life(contexts, "ref", case))


def test_a_difference_would_be_seen(contexts):
    """compare() sees one bit of K, one of a code in a page, and an answer of another head."""
    case = CASES[0]
    expected = life(contexts, "ref", case)
    for spoil in ("value", "code", "answer"):
        other = Life(contexts["ref"], case).run()
        if spoil == "value":
            values = [entry for name, entry in other.exact if ": K of sequence" in name]
            values[-1].view(np.int32).reshape(-1)[-1] ^= 1 << 16
        elif spoil == "code":
            codes = [entry for name, entry in other.exact if ": codes of" in name and entry.size]
            codes[-1][0, 0, 0, 0] ^= 1
        else:
            other.answers[3][1][:] = np.roll(other.answers[3][1], 1, axis=0)
        with pytest.raises(AssertionError):
            compare(other, expected)


def test_what_has_no_kernel_is_refused_as_a_whole(contexts):
    """3 bits: the layout mma has no such words."""
    context = contexts[ACCELERATOR]
    with pytest.raises(kvq.InvalidArgument, match="width 3"):
        Life(context, Case("k3c32-v3t32/w32,block", 4, 64, "f16"))


def test_a_stream_of_the_callers(contexts):
    """Attention on it, and nothing waits but the caller."""
    context, case = contexts[ACCELERATOR], CASES[0]
    plain, streamed = Life(context, case), Life(context, case)
    stream = context.stream()
    found = []
    for one, options in ((plain, {}), (streamed, {"stream": stream})):
        rng = np.random.default_rng(2)
        sequence, outs = one.cache.add(), []
        for tokens in (70, 1, 4):
            q, *kv = (random_tensor(context, (1, heads, tokens, case.d), rng, torch.float16)
                      for heads in (case.q_heads, case.kv_heads, case.kv_heads, case.q_heads))  # fmt: skip
            with one.cache.plan([sequence], [tokens]) as opened:
                for layer in range(LAYERS):
                    opened.forward(layer, q.array, kv[0].array, kv[1].array, 0.2, kv[2].array, **options)
            outs.append(kv[2])
        stream.synchronize()
        found.append([out.fetch() for out in outs])
    assert all(map(np.array_equal, *found))


@on_simulator
@pytest.mark.parametrize("case", SHORT_CASES, ids=str)
def test_a_gpu_that_flushes_subnormal_halves(contexts, case, monkeypatch):
    """The context sees it and takes kernels that need none."""
    monkeypatch.setenv("KVQ_PTXSIM_SUBNORMALS", "flush")
    context = lowlevel.Context("ptxsim", threads=1, store_dir="")
    assert context.level == "nvptx:sm_80+magic"
    assert "take halves below 2^-14 as zero" in context.description
    compare(Life(context, case).run(), life(contexts, "ref", case))


@on_simulator
@pytest.mark.parametrize("subnormals", ["keep", "flush"])
def test_device_cuda_over_the_look_alike(subnormals):
    """In a process of its own, as whoever loads libcuda.so.1 first decides which it is."""
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith(("KVQ_PTXSIM_", "KVQ_CUDA_"))},
                   "LD_LIBRARY_PATH": str(DRIVER), "PYTHONPATH": os.pathsep.join(sys.path),
                   "KVQ_PTXSIM_SUBNORMALS": subnormals}  # fmt: skip
    ran = subprocess.run([sys.executable, str(HERE / "three_devices.py"), "cuda", "ref"], env=environment,
                         capture_output=True, text=True, timeout=300)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"{case}: 101 10" for case in SHORT_CASES]
