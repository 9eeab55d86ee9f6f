# SPDX-License-Identifier: Apache-2.0
"""Memory of the process, measured: what a batch of chats takes at its peak, that decoding takes no more than its tokens,
and that a long context is never dense. Each runs in a process of its own, so that the library's memory counts and that
of other tests does not."""

import os
import subprocess
import sys

PRELUDE = """
import os, sys, torch, kvq
from types import SimpleNamespace
from transformers import LlamaConfig
from kvq.hf import KVQCache, attention_forward

torch.set_num_threads(1)
torch.manual_seed(0)

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

def config(layers, heads, d, positions):
    return LlamaConfig(num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads, head_dim=d,
                       hidden_size=heads * d, max_position_embeddings=positions, attn_implementation="kvq")

def forward(cache, rows, tokens):
    config = cache.config
    module = SimpleNamespace(training=False, is_causal=True, config=config)
    for layer in range(config.num_hidden_layers):
        q, k, v = (torch.randn(rows, config.num_attention_heads, tokens, config.head_dim) for _ in range(3))
        k, v = cache.update(k, v, layer)
        attention_forward(module, q, k, v, None)

context = kvq.lowlevel.Context(sys.argv[1], store_dir=sys.argv[2], threads=1)
"""

CHAT = PRELUDE + """
layers, heads, d, rows, tokens, piece = 4, 8, 64, 8, 8192, 32

def chat(cache, tokens):
    '''Turns of a long piece of text that is put in, a question and an answer.'''
    while cache.get_seq_length() < tokens:
        for _ in range(30):
            cache.load([tuple(torch.randn(rows, heads, piece, d) for _ in range(2)) for _ in range(layers)])
        forward(cache, rows, 8)
        for _ in range(4):
            forward(cache, rows, 1)
        cache.crop(-1)

warm = KVQCache(config(layers, heads, d, tokens), "kvq-4", context=context)
chat(warm, 64)
del warm
resting = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
cache = KVQCache(config(layers, heads, d, tokens + 1024), "kvq-4", context=context)
chat(cache, tokens)
report = cache.report()
print(status("VmHWM") - resting, report["bytes_used"], report["bytes_touched"], cache.get_seq_length())
"""

LONG = PRELUDE + """
layers, heads, d, tokens, piece = 1, 4, 64, 16384, 1024
cache = KVQCache(config(layers, heads, d, 2 * tokens), "kvq-4", context=context)

def load():
    cache.load([tuple(torch.randn(1, heads, piece, d) for _ in range(2))])

load()
forward(cache, 1, 1)
before = status("VmRSS")
for _ in range(tokens // piece):
    load()
held = status("VmRSS") - before
open("/proc/self/clear_refs", "w").write("5")
resting = status("VmRSS")
for _ in range(3):
    forward(cache, 1, 1)
print(cache.report()["bytes_touched"], held, status("VmHWM") - resting, tokens * heads * 2 * d * 4)
"""

STEPS = PRELUDE + """
import gc
cache = KVQCache(config(1, 1, 16, 16384), "k4c32-v4t16/w32", context=context)
forward(cache, 1, 64)

def after(steps):
    for _ in range(steps):
        forward(cache, 1, 1)
    gc.collect()
    return status("VmRSS"), cache.report()["bytes_used"], len(gc.get_objects())

after(500)  # the first measurement itself takes memory
marks = [after(500)] + [after(2000) for _ in range(5)]
growth = [tuple(b - a for a, b in zip(first, last)) for first, last in zip(marks, marks[1:])]
held = sorted(held - used for held, used, _ in growth)
print(held[2], sum(used for _, used, _ in growth), sum(objects for _, _, objects in growth), cache.get_seq_length())
"""


# glibc gives freed tensors back to the system or keeps them, as it comes, and a peak above what rested then differs by
# up to 10 MB. Kept, they serve the next tensors, and the peak is what grew.
KEEPS_FREED = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": "100000000000"}


def run(program, device, folder, **environment):
    command = [sys.executable, "-c", program, device, str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment}).stdout
    return [int(word) for word in output.split()]


def test_peak_of_a_batch_of_chats_is_the_formula(device, tmp_path):
    """Eight rows of 8k tokens: at its peak the process holds the bytes of tail_c2 and at most 5 % more. Nothing is
    copied while the cache grows, and what crop takes back is used again."""
    peak, used, touched, tokens = run(CHAT, device, tmp_path, **KEEPS_FREED)
    assert tokens >= 8192
    assert touched <= 1.01 * used
    assert peak <= 1.05 * used


def test_ten_thousand_steps_take_what_their_tokens_take(device, tmp_path):
    """Of five times 2000 steps, the median takes no more than its tokens and thirty bytes a step: the allocator's arenas
    move once in a while (2 MB were seen, early and under load), what is lost at every step shows in all five."""
    excess, used, objects, tokens = run(STEPS, device, tmp_path)
    assert tokens == 11064
    assert used > 200_000
    assert excess <= 60_000
    assert objects < 100


def test_a_long_context_is_never_dense(device, tmp_path):
    """Neither while it is filled nor while a step reads it."""
    touched, held, peak, dense = run(LONG, device, tmp_path)
    assert touched < dense / 5
    # What stays is the pages, and a piece's tensors.
    assert held < touched + 8e6 < dense
    assert peak < dense / 8
