#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Milliseconds per decoded token of SmolLM2-135M, whole model, at several context lengths, with caches in turns.

The prompt runs through the model once; its K and V are loaded into every cache. The ordinary caches decode with PyTorch's
SDPA, kvq with its own attention; weights are shared. The requantization that QuantizedCache does every 128 tokens falls
outside the timed steps; what kvq quantizes falls inside. Then, of kvq and DynamicCache, where the time goes: the calls of
each part are timed from outside in rounds of their own.
"""
import argparse
import contextlib
import copy
import itertools
import pathlib
import time

import common

DYNAMIC, QUANTO = "DynamicCache", "QuantizedCache quanto int4"


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 8192], metavar="TOKENS")
    parser.add_argument("--formats", nargs="+", default=["kivi-4", "kivi-2", "kvq-4"], metavar="TEXT")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--tokens", type=int, default=8, help="tokens a round and cache (default 8)")
    parser.add_argument("--device", default="cpu", help="kvq's device: cpu, or ref for a trial run")
    parser.add_argument("--tiny", action="store_true", help="a tiny random model with D 16, for a trial run")
    parser.add_argument("--json", metavar="FILE", help="append the records to FILE")
    return parser.parse_args(arguments)


def with_sdpa(model):
    """The same weights under PyTorch's own attention."""
    shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, shared)
    twin.set_attn_implementation("sdpa")
    return twin


def decoder(model, cache, length, tokens):
    """A callable that decodes `tokens` more tokens greedily."""
    import torch

    state = {"at": length, "token": torch.ones(1, 1, dtype=torch.long)}

    def work():
        for _ in range(tokens):
            output = model(input_ids=state["token"], position_ids=torch.tensor([[state["at"]]]), past_key_values=cache,
                           use_cache=True)
            state["token"] = output.logits[:, -1].argmax(dim=-1, keepdim=True)
            state["at"] += 1
        return tokens

    return work


@contextlib.contextmanager
def timed_calls(parts):
    """Sums into `parts` the seconds spent in calls of each name's functions, [(owner, attribute), ..] in turn."""
    spent, kept = dict.fromkeys(parts, 0.0), []

    def timed(name, function):
        def call(*args, **kwargs):
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - begin

        return call

    for name, places in parts.items():
        for owner, attribute in places:
            function = getattr(owner, attribute)
            kept.append((owner, attribute, function))
            setattr(owner, attribute, timed(name, function))
    try:
        yield spent
    finally:
        for owner, attribute, function in reversed(kept):
            setattr(owner, attribute, function)


def where_time_goes(records, prefix, contenders, options):
    """<length> <cache>: <part>, in ms a token: attention and cache, matrix products of the layers, and the rest, which is
    normalization, rotation, sampling and Python."""
    import torch
    from kvq.hf import batch
    from transformers.cache_utils import DynamicLayer

    parts = {
        "matrix products": [(torch.nn.functional, "linear")],
        "attention and cache": [(batch.PackedBatch, "forward"), (DynamicLayer, "update"),
                                (torch.nn.functional, "scaled_dot_product_attention")],
    }
    for name, work in contenders.items():
        rounds = {part: [] for part in (*parts, "the rest")}
        for _ in range(options.rounds):
            with timed_calls(parts) as spent:
                begin = time.perf_counter()
                tokens = work()
                whole = time.perf_counter() - begin
            for part, seconds in {**spent, "the rest": whole - sum(spent.values())}.items():
                rounds[part].append(1e3 * seconds / tokens)
        for part, values in rounds.items():
            value, spread = common.median_and_spread(values)
            records.add(f"{prefix} {name}: {part}", value, "ms/token", spread)


def main(arguments=None):
    options = parse(arguments)
    common.tune_allocator()
    import torch
    from kvq import lowlevel
    from kvq.evaluate import model as models
    from kvq.evaluate import prose, speed

    build = pathlib.Path(__file__).resolve().parent.parent / "build"
    build.mkdir(exist_ok=True)
    subject = models.tiny() if options.tiny else models.smollm2(build)
    ordinary = with_sdpa(subject.model)
    context = lowlevel.Context(options.device)
    print(f"{common.title('decode', context)}; {subject.name}; torch uses "
          f"{torch.get_num_threads()} threads")
    ids = subject.encode(prose.handbook())[:, :max(options.lengths)]
    states = speed.prompt_states(subject, ids)
    records = common.Records("decode")
    with torch.inference_mode():
        for length in options.lengths:
            cut = [(k[:, :, :length], v[:, :, :length]) for k, v in states]
            contenders = {
                DYNAMIC: decoder(ordinary, speed.dynamic(subject, cut), length, options.tokens),
                QUANTO: decoder(ordinary, speed.quanto(subject, cut), length, options.tokens),
            }
            for text in options.formats:
                cache = speed.packed(text, context)(subject, cut)
                contenders[f"kvq {text}"] = decoder(subject.model, cache, length, options.tokens)
            times = common.interleave(contenders, options.rounds)
            records.add_times(f"{length}", times, lambda name, _: [DYNAMIC, QUANTO] if name.startswith("kvq") else [],
                              "ms/token")
            contenders.pop(QUANTO)
            where_time_goes(records, f"{length}", contenders, options)
    if options.json:
        records.write(options.json, common.facts(context))


if __name__ == "__main__":
    main()
