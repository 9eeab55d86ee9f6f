#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokens per second of SmolLM2-135M decoding a ragged batch, whole model, with caches in turns.

Rows of different lengths are padded in front, as generate() has them, and run through the model once; their K and V are
loaded into every cache. DynamicCache keeps the padding and masks it, kvq strips it. Weights are shared.
"""
import argparse

import common
from smollm2_decode import with_sdpa

DYNAMIC = "DynamicCache"


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096, help="of the longest row; the shortest has half (default 4096)")
    parser.add_argument("--formats", nargs="+", default=["kvq-4", "kivi-4", "kivi-2"], metavar="TEXT")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--steps", type=int, default=4, help="steps a round and cache (default 4)")
    parser.add_argument("--device", default="cpu", help="kvq's device: cpu, or ref for a trial run")
    parser.add_argument("--tiny", action="store_true", help="a tiny random model with D 16, for a trial run")
    parser.add_argument("--json", metavar="FILE", help="append the records to FILE")
    return parser.parse_args(arguments)


def prompts(subject, options):
    """Ids and mask of rows whose lengths fall evenly from all tokens to half of them; prose from different places."""
    import torch
    from kvq.evaluate import prose

    text = subject.encode(prose.handbook())[0]
    lengths = [options.tokens - row * (options.tokens // 2) // max(1, options.rows - 1) for row in range(options.rows)]
    ids = torch.ones(options.rows, options.tokens, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        start = row * len(text) // (2 * options.rows) % max(1, len(text) - length)
        ids[row, -length:] = text[start : start + length]
        mask[row, -length:] = 1
    return ids, mask


def prefill(model, ids, mask):
    """K and V of every layer, a row at a time: what they need beside it would not fit for all rows."""
    import torch
    from transformers import DynamicCache

    found = None
    for row in range(ids.shape[0]):
        length = int(mask[row].sum())
        cache = DynamicCache(config=model.config)
        model(ids[row : row + 1, -length:], past_key_values=cache, logits_to_keep=1)
        if found is None:
            shape = (ids.shape[0], cache.layers[0].keys.shape[1], ids.shape[1], cache.layers[0].keys.shape[3])
            found = [tuple(torch.zeros(shape) for _ in range(2)) for _ in cache.layers]
        for (k, v), layer in zip(found, cache.layers):
            k[row, :, -length:], v[row, :, -length:] = layer.keys[0], layer.values[0]
    return found


def decoder(model, cache, mask, steps):
    """A callable that decodes `steps` more tokens of every row greedily and gives their number."""
    import torch

    rows = mask.shape[0]
    state = {"mask": mask, "token": torch.ones(rows, 1, dtype=torch.long)}

    def work():
        for _ in range(steps):
            state["mask"] = torch.cat([state["mask"], torch.ones(rows, 1, dtype=torch.long)], dim=1)
            position = state["mask"].sum(dim=1, keepdim=True) - 1
            output = model(input_ids=state["token"], attention_mask=state["mask"], position_ids=position,
                           past_key_values=cache, use_cache=True)
            state["token"] = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        return rows * steps

    return work


def main(arguments=None):
    options = parse(arguments)
    common.tune_allocator()
    import torch
    from kvq import lowlevel
    from kvq.evaluate import model as models
    from kvq.hf import KVQCache
    from transformers import DynamicCache

    subject = models.tiny() if options.tiny else models.smollm2()
    ordinary = with_sdpa(subject.model)
    context = lowlevel.Context(options.device)
    print(f"{common.title('batch', context)}; {subject.name}; torch uses "
          f"{torch.get_num_threads()} threads; {options.rows} rows of {options.tokens // 2} to "
          f"{options.tokens} tokens")
    records = common.Records("batch")
    with torch.inference_mode():
        ids, mask = prompts(subject, options)
        states = prefill(ordinary, ids, mask)
        dense = DynamicCache(config=subject.model.config)
        for layer, (k, v) in enumerate(states):
            dense.update(k, v, layer)
        contenders = {DYNAMIC: decoder(ordinary, dense, mask, options.steps)}
        for text in options.formats:
            cache = KVQCache(subject.model.config, text, context=context)
            cache.load(states, mask)
            contenders[f"kvq {text}"] = decoder(subject.model, cache, mask, options.steps)
        del states
        times = common.interleave(contenders, options.rounds)
        records.add_times(f"{options.rows}x{options.tokens}", times,
                          lambda name, _: [DYNAMIC] if name.startswith("kvq") else [], "ms/token")
    if options.json:
        records.write(options.json, common.facts(context))


if __name__ == "__main__":
    main()
