# SPDX-License-Identifier: Apache-2.0
"""Kernel stores for machines that are not here: what is prepared for a target is what a frozen context of it looks for,
and nothing is compiled there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from device_tensor import empty_tensor, random_tensor
from kvq.cli import main
from score_life import score_function

import kvq
from kvq import lowlevel

BUILD = Path(kvq.__file__).absolute().parents[2]
FORMAT = "k4c32-v4t32/w32,block"
SHAPE = {"q_heads": 4, "kv_heads": 2, "dk": 64, "dv": 64, "dtype": "float16"}
KERNELS = {"nvptx:sm_90": 8, "x86-64-v4": 16}  # of a cache with 2 query heads a KV head: 6 and its attend kernels


def decode(context, **options):
    """A prompt and a token, forward and back into dense rows: all operations of a cache."""
    cache = lowlevel.Cache(context, FORMAT, layers=1, blocks=8, **SHAPE, **options)
    sequence, rng = cache.add(), np.random.default_rng(4)
    outs = []
    for tokens in (150, 1):
        q, k, v = (random_tensor(context, (1, h, tokens, 64), rng, torch.float16) for h in (4, 2, 2))
        out = empty_tensor(context, q.host.shape, torch.float16)
        with cache.plan([sequence], [tokens]) as step:
            step.forward(0, q.array, k.array, v.array, 0.2, out.array)
        outs.append(out.fetch())
    dense = [empty_tensor(context, (2, 151, 64), torch.float16) for _ in "kv"]
    cache.read(sequence, 0, *(one.array for one in dense))
    return [*outs, *(one.fetch() for one in dense)]


def prepared(store, targets, **options):
    context, told = lowlevel.Context("cpu", threads=2, store_dir=str(store)), []
    lowlevel.prepare_targets(context, FORMAT, targets, **SHAPE, progress=told.append, **options)
    return told


@pytest.mark.parametrize("language", [None, "ir", "cuda"])
def test_a_frozen_gpu_finds_everything(tmp_path, language):
    options = {"score": score_function("alibi", language)} if language else {}
    told = prepared(tmp_path, ["nvptx:sm_90"], **options)
    kernels = [record for record in told if not record["name"].startswith("cubin of ")]
    assert len(kernels) == KERNELS["nvptx:sm_90"] and {record["source"] for record in told} == {"compiled"}
    assert all(record["name"].endswith(" for nvptx:sm_90") for record in told)
    files = sorted(path.name for path in tmp_path.iterdir())
    frozen = lowlevel.Context("ptxsim", level="sm_90", store_dir=str(tmp_path), frozen=True)
    answers = decode(frozen, **options)
    assert frozen.level == "nvptx:sm_90" and {kernel["source"] for kernel in frozen.kernels()} == {"store"}
    assert {kernel["key"] for kernel in frozen.kernels()} <= {record["key"] for record in kernels}
    assert sorted(path.name for path in tmp_path.iterdir()) == files  # no entry, and no lock
    open_one = lowlevel.Context("ptxsim", level="sm_90", store_dir="")
    assert all(map(np.array_equal, answers, decode(open_one, **options)))
    other = lowlevel.Context("ptxsim", level="sm_80", store_dir=str(tmp_path), frozen=True)
    with pytest.raises(kvq.Unsupported, match="for level nvptx:sm_80 is not in the kernel store .* frozen"):
        decode(other, **options)


def test_a_frozen_cpu_finds_everything(tmp_path):
    level = lowlevel.shared_context().level
    first, again = prepared(tmp_path, [level]), prepared(tmp_path, [level])
    assert {record["source"] for record in first} == {"compiled"} and {r["source"] for r in again} == {"store"}
    frozen = lowlevel.Context("cpu", threads=1, store_dir=str(tmp_path), frozen=True)
    decode(frozen)
    assert {kernel["source"] for kernel in frozen.kernels()} == {"store"}


def test_several_targets_at_once(tmp_path):
    context, told = lowlevel.Context("cpu", threads=2, store_dir=str(tmp_path)), []
    cache = lowlevel.Cache(context, FORMAT, layers=1, blocks=1, **SHAPE)
    cache.prepare(told.append, targets=["nvptx:sm_90", "x86-64-v4"])
    for target, count in KERNELS.items():
        names = [r["name"] for r in told if r["name"].endswith(f" for {target}") and not r["name"].startswith("cubin")]
        assert len(names) == len(set(names)) == count, target
    assert not context.kernels(), "nothing was loaded here"


def test_a_gpu_without_nvrtc_gets_the_cubins(tmp_path):
    """Device cuda over the look-alike of the driver, with no NVRTC to ask."""
    told = prepared(tmp_path, ["nvptx:sm_80"])
    cubins = [record for record in told if record["name"].startswith("cubin of ")]
    if not cubins:
        pytest.skip("NVRTC is not installed: pip install -r python/requirements/cuda.txt")
    assert len(cubins) == len(told) / 2 and all(record["object_bytes"] > 1000 for record in cubins)
    program = ("import sys; sys.path[:0] = sys.argv[2:]\n"
               "from test_prepare_targets import decode, lowlevel\n"
               "context = lowlevel.Context('cuda', store_dir=sys.argv[1], frozen=True)\n"
               "decode(context)\n"
               "print({kernel['source'] for kernel in context.kernels()})\n")  # fmt: skip
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith(("KVQ_PTXSIM_", "KVQ_CUDA_"))},
                   "LD_LIBRARY_PATH": str(BUILD / "runtime/ptxsim/driver"), "KVQ_NVRTC": "/nonexistent/libnvrtc.so"}  # fmt: skip
    files = sorted(path.name for path in tmp_path.iterdir())
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path), *sys.path], env=environment,
                         capture_output=True, text=True, timeout=300)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "{'store'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_what_is_refused(tmp_path):
    with pytest.raises(kvq.InvalidArgument, match="target 'nvptx:sm_75' is none that the compiler makes code for: use "
                                                  "some of x86-64 .* nvptx:sm_80 .* nvptx:sm_120"):  # fmt: skip
        prepared(tmp_path, ["nvptx:sm_90", "nvptx:sm_75"])
    assert not any(tmp_path.iterdir()), "nothing is compiled where one target is unknown"
    with pytest.raises(kvq.InvalidArgument, match="no target is named: use some of x86-64"):
        prepared(tmp_path, [])
    with pytest.raises(kvq.InvalidArgument, match="there is no kernel store"):
        prepared("", ["x86-64-v4"])
    with pytest.raises(kvq.InvalidArgument, match="for nvptx:sm_90: .*3"):
        context = lowlevel.Context("cpu", threads=1, store_dir=str(tmp_path))
        lowlevel.prepare_targets(context, "kvq-3", ["nvptx:sm_90"], **SHAPE)
    with pytest.raises(kvq.Unsupported, match="for x86-64-v4: score function 'alibi' is CUDA C\\+\\+"):
        prepared(tmp_path, ["x86-64-v4"], score=score_function("alibi", "cuda"))
    frozen = lowlevel.Context("cpu", threads=1, store_dir=str(tmp_path), frozen=True)
    with pytest.raises(kvq.FailedPrecondition, match="this context is frozen and compiles nothing"):
        lowlevel.prepare_targets(frozen, FORMAT, ["nvptx:sm_90"], **SHAPE)


def test_the_command(tmp_path, capsys):
    words = ["prepare", "q_heads=4,kv_heads=2,d=64", FORMAT, "--targets", "nvptx:sm_90", "--store", str(tmp_path)]
    assert main(words) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    compiled = int(re.fullmatch(r"(\d+) compiled, 0 were there", last)[1])
    assert compiled == len(lines) >= KERNELS["nvptx:sm_90"] and all(line.startswith("compiled") for line in lines)
    decode(lowlevel.Context("ptxsim", level="sm_90", store_dir=str(tmp_path), frozen=True))
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().out == f"0 compiled, {compiled} were there\n"


def test_the_command_takes_models(tmp_path, capsys):
    store = str(tmp_path / "store")
    assert main(["prepare", "smollm2", "kivi-4", "--targets", "nvptx:sm_80", "--dtype", "float16", "--store", store]) == 0
    assert ":dk64:dv64:g3:f16:" in capsys.readouterr().out


@pytest.mark.parametrize("words, message", [
    (["q_heads=4,kv_heads=2", "kvq-4", "--targets", "nvptx:sm_90"], "lacks dk, dv: write q_heads=N,kv_heads=N,d=N"),
    (["q_heads=4,heads=2,d=64", "kvq-4", "--targets", "nvptx:sm_90"], "a shape has no 'heads'"),
    (["q_heads=many", "kvq-4", "--targets", "nvptx:sm_90"], "q_heads is 'many': give a number"),
    (["q_heads=4,kv_heads=2,d=64", "kvq-4", "--targets", "sm_90"], "target 'sm_90' is none"),
    (["q_heads=4,kv_heads=2,d=64", "kvq-5", "--targets", "nvptx:sm_90"], "kvq-5"),
])  # fmt: skip
def test_mistakes_on_the_command_line(tmp_path, capsys, words, message):
    assert main(["prepare", *words, "--store", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
