# SPDX-License-Identifier: Apache-2.0
"""What a user runs after `pip install kvq-jit`: compiles kernels, attends, and a model generates.

    attend.py FOLDER_OF_PACKAGES FOLDER_OF_A_STORE

The first folder has NumPy, torch and transformers; it comes after the interpreter's own, so that kvq is the installed
one. Writes a line of JSON.
"""

import json
import os
import sys

import kvq

assert not {"numpy", "torch", "transformers"} & set(sys.modules), "import kvq needs nothing else"
sys.path.append(sys.argv[1])

import numpy as np

FORMAT = "k4c32-v4t16/w32,block"


def attend(device):
    """Attention of 3 new tokens after a prompt of 200, over a cache of 4 bits."""
    context = kvq.lowlevel.Context(device, store_dir=sys.argv[2])
    cache = kvq.lowlevel.Cache(context, FORMAT, layers=1, q_heads=4, kv_heads=2, dk=16, dv=16, blocks=8)
    rng = np.random.default_rng(1)
    sequence = cache.add()
    for tokens in (200, 3):
        q = rng.standard_normal((1, 4, tokens, 16)).astype(np.float32)
        k, v = (rng.standard_normal((1, 2, tokens, 16)).astype(np.float32) for _ in range(2))
        out = np.full_like(q, np.nan)
        with cache.plan([sequence], [tokens]) as step:
            step.forward(0, q, k, v, 0.25, out)
    return out, [kernel["source"] for kernel in context.kernels()]


def generate():
    from kvq import evaluate
    import torch

    model = evaluate.tiny().model
    prompt = torch.arange(60).reshape(1, 60)
    cache = kvq.KVQCache(model.config, FORMAT)
    tokens = model.generate(prompt, past_key_values=cache, max_new_tokens=5, do_sample=False)
    return tokens.shape[1] - 60


def mapped():
    """Names of the files of this process's memory that belong to LLVM or MLIR."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        files = {os.path.basename(line.split(maxsplit=5)[5].strip()) for line in maps if line.count("/")}
    return sorted(f for f in files if f.startswith(("libLLVM", "libMLIR")))


got, sources = attend("cpu")
expected, _ = attend("ref")
print(json.dumps({
    "file": kvq.__file__,
    "version": kvq.__version__,
    "sources": sources,
    "difference": float(np.abs(got - expected).max()),
    "generated": generate(),
    "llvm": mapped(),
}))
