#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One attention step of one layer: one new token against a long cache, one thread, kvq beside what a user has today.

32 query heads, 8 KV heads, D 128, 4 bits in groups of 128. Every contender owns as many copies of the cache as exceed
the last-level cache and works through them in turn, as a model does with its layers. What is timed is the whole call:
for kvq plan, append, attend, commit; for the quantized cache of transformers its update (which dequantizes
everything) and the attention after it, without the requantization that it does every 128 tokens.
"""
import argparse

import common

HQ, HKV, D = 32, 8, 128
SCALE = D**-0.5
FORMAT = "k4c128-v4t128"
KVQ32, KVQ16 = f"kvq {FORMAT} fp32", f"kvq {FORMAT} bf16"
QUANTO = "transformers QuantizedCache quanto int4"
SDPA32, SDPA16, MATMUL16 = "PyTorch SDPA fp32", "PyTorch SDPA bf16", "PyTorch matmul+softmax bf16"


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 32768], metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--device", default="cpu", help="kvq's device: cpu, or ref for a trial run")
    parser.add_argument("--rotate-mib", type=int, help="bytes to rotate over (default: twice the last-level cache, at "
                        "most 1024)")
    parser.add_argument("--json", metavar="FILE", help="append the records to FILE")
    return parser.parse_args(arguments)


def random_kv(tokens, seed):
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, HKV, tokens, D, generator=generator) for _ in range(2)]


def copies_for(rotate_bytes, copy_bytes):
    return max(1, min(256, -(-rotate_bytes // copy_bytes)))


def grouped(q):
    """Query heads of one KV head as rows of one matrix: the way that reads K and V once."""
    return q.view(1, HKV, HQ // HKV, D)


def make_kvq(context, k, v, dtype, rotate_bytes, rounds):
    import torch
    from kvq import lowlevel

    tokens = k.shape[2]
    copies = copies_for(rotate_bytes, tokens * HKV * D)
    page = lowlevel.format_page_tokens(FORMAT)[0]
    cache = lowlevel.Cache(context, FORMAT, layers=copies, q_heads=HQ, kv_heads=HKV, dk=D, dv=D,
                           dtype=str(dtype).removeprefix("torch."), blocks=tokens // page + 8 + rounds, sequences=1,
                           page_tokens=page)
    sequence = cache.add()
    k, v = k.to(dtype), v.to(dtype)
    with cache.plan([sequence], [tokens]) as step:
        for layer in range(copies):
            step.append(layer, k, v)
    q, out = (torch.randn(1, HQ, 1, D).to(dtype) for _ in range(2))
    new_k, new_v = k[:, :, :1].contiguous(), v[:, :, :1].contiguous()

    def work():
        with cache.plan([sequence], [1]) as step:
            for layer in range(copies):
                step.forward(layer, q, new_k, new_v, SCALE, out)
        return copies

    return work


def make_quanto(k, v, rotate_bytes):
    import torch
    from transformers.cache_utils import QuantoQuantizedLayer

    def filled():
        layer = QuantoQuantizedLayer(nbits=4, axis_key=0, axis_value=0, q_group_size=128, residual_length=128)
        layer.update(k, v)
        return layer

    # A step of this cache also writes and reads dense K and V in f32: they are part of what must exceed the cache.
    layers = [filled() for _ in range(copies_for(rotate_bytes, k.shape[2] * HKV * D + 8 * k.numel()))]
    q, new_k, new_v = torch.randn(1, HQ, 1, D), k[:, :, :1], v[:, :, :1]

    def work():
        for layer in layers:
            keys, values = layer.update(new_k, new_v)
            torch.nn.functional.scaled_dot_product_attention(grouped(q), keys, values, scale=SCALE)
        return len(layers)

    return work


def make_dense(k, v, dtype, rotate_bytes, attend):
    import torch

    copies = copies_for(rotate_bytes, 2 * k.numel() * dtype.itemsize)
    pairs = [(k.to(dtype, copy=True), v.to(dtype, copy=True)) for _ in range(copies)]
    q = grouped(torch.randn(1, HQ, 1, D).to(dtype))

    def work():
        for keys, values in pairs:
            attend(q, keys, values)
        return copies

    return work


def sdpa(q, k, v):
    import torch

    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=SCALE)


def matmul_softmax(q, k, v):
    return (q @ k.transpose(-1, -2) * SCALE).softmax(-1) @ v


def baselines_of(name, medians):
    """kvq stands beside the quantized cache and beside the fastest dense bf16 route of this very run."""
    if not name.startswith("kvq"):
        return []
    return [QUANTO, min((SDPA16, MATMUL16), key=medians.__getitem__)]


def main(arguments=None):
    options = parse(arguments)
    common.tune_allocator()
    import torch
    from kvq import lowlevel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rotate = options.rotate_mib * 2**20 if options.rotate_mib else min(2 * common.last_level_cache_bytes(), 2**30)
    context = lowlevel.Context(options.device, threads=1)
    print(f"attention: {common.machine()}; kvq level {context.level}; rotating over {rotate >> 20} MiB; one thread; "
          f"allocator tuned")
    records = common.Records("attention")
    for tokens in options.lengths:
        k, v = random_kv(tokens, seed=tokens)
        with torch.inference_mode():
            contenders = {
                KVQ32: make_kvq(context, k, v, torch.float32, rotate, options.rounds),
                KVQ16: make_kvq(context, k, v, torch.bfloat16, rotate, options.rounds),
                QUANTO: make_quanto(k, v, rotate),
                SDPA32: make_dense(k, v, torch.float32, rotate, sdpa),
                SDPA16: make_dense(k, v, torch.bfloat16, rotate, sdpa),
                MATMUL16: make_dense(k, v, torch.bfloat16, rotate, matmul_softmax),
            }
            times = common.interleave(contenders, options.rounds)
        records.add_times(f"{tokens // 1024}k", times, baselines_of)
    if options.json:
        records.write(options.json)


if __name__ == "__main__":
    main()
