# SPDX-License-Identifier: Apache-2.0
"""Score functions of users: the same text in IR on every device, CUDA C++ on those that run PTX; what is wrong with one is
said when the cache is made, with its line; and the store knows one function from another. With
KVQ_TEST_ACCELERATOR=cuda a GPU takes the simulator's place."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from device_tensor import random_tensor
from score_life import CUDA, D, FUNCTIONS, KV_HEADS, Q_HEADS, check, make_cache, score_function

import kvq
from kvq import lowlevel

HERE = Path(__file__).resolve().parent
DRIVER = Path(kvq.__file__).absolute().parents[2] / "runtime/ptxsim/driver"
ACCELERATOR = os.environ.get("KVQ_TEST_ACCELERATOR", "ptxsim")
CASES = [("cpu", "ir"), (ACCELERATOR, "ir"), (ACCELERATOR, "cuda")]
REQUEST = "attend:k4c32-v4t32:{}:p64:dk64:dv64:g3:f16:rows{}:lag0:win0:cap0:exact"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    store = str(tmp_path_factory.mktemp("store"))
    return {name: lowlevel.Context(name, threads=1, store_dir=store) for name in ("cpu", ACCELERATOR, "ref")}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("device, language", CASES, ids=map("-".join, CASES))
def test_attention_is_what_the_function_says(contexts, device, language, name):
    check(contexts[device], name, language)


@pytest.mark.skipif(ACCELERATOR != "ptxsim", reason="about the simulator")
def test_device_cuda_over_the_look_alike():
    """In a process of its own, as whoever loads libcuda.so.1 first decides which it is."""
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith(("KVQ_PTXSIM_", "KVQ_CUDA_"))},
                   "LD_LIBRARY_PATH": str(DRIVER), "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    ran = subprocess.run([sys.executable, str(HERE / "score_life.py"), "cuda"], env=environment, capture_output=True,
                         text=True, timeout=500)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"{name}, {language}" for name in FUNCTIONS for language in ("ir", "cuda")]


def test_a_cache_without_one_is_another_kernel(contexts):
    context = contexts[ACCELERATOR]
    plain, scored = make_cache(context, None), make_cache(context, score_function("alibi", "ir"))
    assert plain.config["score"] is None and scored.config["score"].name == "alibi"
    names = [k["name"] for k in context.kernels() if "with score function 'alibi'" in k["name"]]
    assert names and all(name.startswith("attend:") for name in names)


def test_cuda_on_a_cpu_is_refused(contexts):
    score = score_function("alibi", "cuda")
    message = ("^score function 'alibi' is CUDA C\\+\\+, which a CPU cannot run: write it as a score region in IR, which "
               "runs on every device, or use device cuda or ptxsim$")
    for call in (lambda: make_cache(contexts["cpu"], score),
                 lambda: lowlevel.query_support(contexts["cpu"], "kvq-4", layers=1, q_heads=3, kv_heads=1, dk=64, dv=64,
                                                score=score),
                 lambda: lowlevel.open_kernel(contexts["cpu"], REQUEST.format("vnni", 3), score)):  # fmt: skip
        with pytest.raises(kvq.Unsupported, match=message):
            call()
    with pytest.raises(kvq.Unsupported, match='device "ref" has no score functions'):
        make_cache(contexts["ref"], score_function("alibi", "ir"))


@pytest.mark.parametrize("body, message", [
    ("  return scores;\n}", r"the score function: mine\(2\): error: identifier \"scores\" is undefined"),
    ("  return other(score);\n}", r"mine\(2\): error: identifier \"other\" is undefined"),
])  # fmt: skip
def test_errors_in_cuda_name_the_line(contexts, body, message):
    with pytest.raises(kvq.InvalidArgument, match=message):
        make_cache(contexts[ACCELERATOR], lowlevel.ScoreFunction(CUDA + body, "cuda", "mine"))


ALIBI = FUNCTIONS["alibi"][0]
LOOP = """  %m = scf.for %i = %one to %key step %one iter_args(%a = %r) -> f32 {
    %square = arith.mulf %a, %a : f32
    scf.yield %square : f32
  }
  return %m"""
IR_MISTAKES = [
    (ALIBI.replace("arith.subi", "arith.subj"), "2:15: custom op 'arith.subj' is unknown"),
    (ALIBI.replace("%query: index, ", "").replace("%key, %query", "%key, %key"), "1:1: .*a score function is"),
    (ALIBI + "\n" + ALIBI.replace("@alibi", "@again"), "15:1: .*has no place beside a score function"),
    ("module {}", "1:1: the text holds no score function"),
    (ALIBI.replace("  return", "  %m = memref.alloc() : memref<4xf32>\n  return"), "13:8: .*memref.alloc"),
    (ALIBI.replace("-> f32 {", "-> f32 {\n  cf.br ^next\n^next:"), "2:3: .*'cf.br'"),
    (ALIBI.replace("  return %r", LOOP), "13:8: 'scf.for' op cannot be in a score region"),
    (ALIBI.replace("%key: index)", "%key: index, %slope2: f32)"), "takes 1 arguments behind score, batch, head"),
]  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", ACCELERATOR])
@pytest.mark.parametrize("text, message", IR_MISTAKES, ids=range(len(IR_MISTAKES)))
def test_mistakes_in_ir_name_the_place(contexts, device, text, message):
    with pytest.raises(kvq.InvalidArgument, match="(?s)^score function 'mine'.*(" + message + ")"):
        make_cache(contexts[device], lowlevel.ScoreFunction(text, name="mine"))


def test_what_is_no_score_function(contexts):
    with pytest.raises(kvq.InvalidArgument, match="score->text is empty"):
        make_cache(contexts["cpu"], lowlevel.ScoreFunction(""))
    with pytest.raises(kvq.InvalidArgument, match='language is \'ptx\': use "ir" or "cuda"'):
        lowlevel.ScoreFunction("x", "ptx")
    merge = REQUEST.format("vnni", 3).replace("attend:", "merge:")
    with pytest.raises(kvq.InvalidArgument, match="a kernel 'merge' has no scores"):
        lowlevel.open_kernel(contexts["cpu"], merge, score_function("alibi", "ir"))


@pytest.mark.parametrize("language", ["ir", "cuda"])
def test_the_store_knows_functions_apart(tmp_path, language):
    """Its key has the function's text and not its name; a frozen context compiles nothing."""
    store = str(tmp_path)
    filling = lowlevel.Context(ACCELERATOR, threads=1, store_dir=store)
    make_cache(filling, score_function("alibi", language)).prepare()
    frozen = lowlevel.Context(ACCELERATOR, threads=1, store_dir=store, frozen=True)
    renamed = lowlevel.ScoreFunction(score_function("alibi", language).text, language, "renamed")
    make_cache(frozen, renamed).prepare()
    assert {k["source"] for k in frozen.kernels()} == {"store"}
    with pytest.raises(kvq.Unsupported, match="with score function 'by sequence' .*is not in the kernel store"):
        make_cache(frozen, score_function("by sequence", language))


def test_kernels_with_captures(contexts):
    """What a region takes behind the key becomes arguments of the kernel, on both kinds of devices."""
    text = ALIBI.replace("%key: index)", "%key: index, %slope: f32, %unused: i64)").replace(
        "  %slope = arith.constant 0.03125 : f32\n", "")  # fmt: skip
    for device, request in (("cpu", REQUEST.format("vnni", 3)), (ACCELERATOR, REQUEST.format("mma", 8))):
        kernel = lowlevel.open_kernel(contexts[device], request, lowlevel.ScoreFunction(text))
        assert kernel.signature.endswith(" ptr<f32> ptr<f32> i64 f32 i64"), device


IR_KERNEL = """
func.func @scale(%in: !kvq_tile.ptr<f32>, %out: !kvq_tile.ptr<f32>, %by: f32) attributes {kvq_tile.kernel} {
  %program = kvq_tile.program_id 0
  %c64 = arith.constant 64 : index
  %at = arith.muli %program, %c64 : index
  %x = kvq_tile.load %in[%at] : !kvq_tile.ptr<f32>, index -> tensor<64xf32>
  %factor = tensor.splat %by : tensor<64xf32>
  %y = arith.mulf %x, %factor : tensor<64xf32>
  kvq_tile.store %y, %out[%at] : tensor<64xf32>, !kvq_tile.ptr<f32>, index
  return
}
"""


@pytest.mark.parametrize("device", ["cpu", ACCELERATOR])
def test_tile_programs_run_on_both(contexts, device):
    """The text of a user's kernel in IR is the same on a CPU and on a device that runs PTX."""
    context, x = contexts[device], np.arange(192, dtype=np.float32)
    kernel = lowlevel.compile(context, IR_KERNEL)
    assert kernel.signature == "ptr<f32> ptr<f32> f32"
    source, target, out = context.buffer(x.nbytes), context.buffer(x.nbytes), np.zeros_like(x)
    source.upload(x)
    kernel.launch([source, target, 2.5], grid=[3, 1, 1])
    target.download(out)
    np.testing.assert_array_equal(out, x * np.float32(2.5))
    with pytest.raises(kvq.InvalidArgument, match="^8:8: custom op 'arith.mulff' is unknown"):
        lowlevel.compile(context, IR_KERNEL.replace("arith.mulf", "arith.mulff"))


def test_a_rejected_function_leaves_the_context_well(contexts):
    context = contexts[ACCELERATOR]
    with pytest.raises(kvq.InvalidArgument):
        make_cache(context, lowlevel.ScoreFunction("nonsense"))
    cache = make_cache(context, score_function("alibi", "ir"))
    k = random_tensor(context, (1, KV_HEADS, 3, D), np.random.default_rng(0), torch.float16)
    sequence = cache.add()
    with cache.plan([sequence], [3]) as step:
        step.append(0, k.array, k.array)
    assert cache.length(sequence) == 3 and Q_HEADS % KV_HEADS == 0
