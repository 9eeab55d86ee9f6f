# SPDX-License-Identifier: Apache-2.0
"""Attention of caches with score functions, on any device, against the definition over what the cache holds.

    python score_life.py DEVICE     every function in every language that the device has
"""

import sys
from pathlib import Path

import numpy as np
import torch
from device_tensor import empty_tensor, random_tensor

from kvq import lowlevel

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tolerances

D, Q_HEADS, KV_HEADS, SCALE = 64, 6, 2, 0.3
FORMAT = "k4c32-v4t32/w32,keep4,block"  # no step of check() commits a group, so that queries see what is read
KEEP = 4
ARGUMENTS = "(%s: f32, %batch: index, %head: index, %query: index, %key: index) -> f32"
CUDA = 'extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k) {\n'

# Per function: what it is, in IR and in CUDA C++, as a function of arrays. Positions count from behind the kept tokens.
FUNCTIONS = {
    "alibi": (
        f"""func.func @alibi{ARGUMENTS} {{
  %distance = arith.subi %key, %query : index
  %number = arith.index_cast %distance : index to i32
  %float = arith.sitofp %number : i32 to f32
  %one = arith.constant 1 : index
  %h = arith.addi %head, %one : index
  %h32 = arith.index_cast %h : index to i32
  %weight = arith.sitofp %h32 : i32 to f32
  %slope = arith.constant 0.03125 : f32
  %s0 = arith.mulf %weight, %slope : f32
  %bias = arith.mulf %float, %s0 : f32
  %r = arith.addf %s, %bias : f32
  return %r : f32
}}""",
        CUDA + "  return score + 0.03125f * (head + 1) * (float)(k - q);\n}",
        lambda s, batch, head, q, k: s + 0.03125 * (head + 1) * (k - q),
    ),
    "every third key": (
        f"""func.func @thirds{ARGUMENTS} {{
  %three = arith.constant 3 : index
  %rest = arith.remsi %key, %three : index
  %zero = arith.constant 0 : index
  %shown = arith.cmpi eq, %rest, %zero : index
  %none = arith.constant 0xFF800000 : f32
  %r = arith.select %shown, %s, %none : f32
  return %r : f32
}}""",
        "#include <math.h>\n" + CUDA + "  if (k % 3 == 0) return score;\n  return -INFINITY;\n}",
        lambda s, batch, head, q, k: np.where(k % 3 == 0, s, -np.inf),
    ),
    "by sequence": (
        f"""module {{
  func.func @by_sequence{ARGUMENTS} {{
    %b = arith.index_cast %batch : index to i32
    %f = arith.sitofp %b : i32 to f32
    %t = math.tanh %s : f32
    %r = arith.mulf %t, %f : f32
    return %r : f32
  }}
}}""",
        CUDA + "  return tanhf(score) * batch;\n}",
        lambda s, batch, head, q, k: np.tanh(s) * batch,
    ),
}


def score_function(name, language):
    return lowlevel.ScoreFunction(FUNCTIONS[name][0 if language == "ir" else 1], language, name)


def make_cache(context, score, format=FORMAT):
    return lowlevel.Cache(context, format, layers=1, q_heads=Q_HEADS, kv_heads=KV_HEADS, dk=D, dv=D, dtype="float16",
                          blocks=32, sequences=3, score=score)  # fmt: skip


def stored(context, cache, sequence):
    k, v = (empty_tensor(context, (KV_HEADS, cache.length(sequence), D), torch.float16) for _ in "kv")
    cache.read(sequence, 0, k.array, v.array)
    return k.fetch().astype(np.float64), v.fetch().astype(np.float64)


def defined(q, k, v, sequence, function):
    """[heads, D], [heads]: of a query at the end of the sequence."""
    tokens = k.shape[1]
    k, v = (np.repeat(x, Q_HEADS // KV_HEADS, axis=0) for x in (k, v))
    scores = SCALE * np.einsum("hd,htd->ht", q, k)
    head, key = np.arange(Q_HEADS)[:, None], np.arange(tokens)[None] - KEEP
    scores = function(scores, sequence, head, tokens - 1 - KEEP, key)
    lse = np.logaddexp.reduce(scores, axis=1)
    return np.einsum("ht,htd->hd", np.exp(scores - lse[:, None]), v), lse


def check(context, name, language):
    rng, counts = np.random.default_rng(5), (230, 71)
    cache = make_cache(context, score_function(name, language))
    sequences = [cache.add(), cache.add()]
    for news in (counts, (1, 1), (1, 1)):
        q, k, v = (random_tensor(context, (2, heads, max(news), D), rng, torch.float16)
                   for heads in (Q_HEADS, KV_HEADS, KV_HEADS))  # fmt: skip
        out = empty_tensor(context, q.host.shape, torch.float16)
        lse = empty_tensor(context, q.host.shape[:3], torch.float32)
        with cache.plan(sequences, list(news)) as step:
            step.forward(0, q.array, k.array, v.array, SCALE, out.array, lse.array)
        found, found_lse = out.fetch()[:, :, -1], lse.fetch()[:, :, -1]
        for row, sequence in enumerate(sequences):
            query = q.host[row, :, -1].double().numpy()
            expected, expected_lse = defined(query, *stored(context, cache, sequence), sequence, FUNCTIONS[name][2])
            assert tolerances.relative_rms(found[row], expected) <= tolerances.attention_rms("f16"), (name, language)
            # Biases are much larger than scores, whose rounding they are added to.
            room = tolerances.lse_tolerance(expected_lse) + 1e-3
            assert (np.abs(found_lse[row] - expected_lse) <= room).all(), (name, language, found_lse, expected_lse)
    return cache


def main(device):
    context = lowlevel.Context(device, threads=1)
    for name in FUNCTIONS:
        for language in ("ir", "cuda"):
            check(context, name, language)
            print(f"{name}, {language}")


if __name__ == "__main__":
    main(*sys.argv[1:])
