# SPDX-License-Identifier: Apache-2.0
"""How fast a model decodes and takes in a prompt at a context length, and how many bytes its cache holds there.

For decoding, the prompt runs through the model once, with an ordinary cache; its K and V are then loaded into each
cache under test, so all caches decode from the same state. Caches take turns: one step (or one prompt) of each, then
the next round, which begins with another cache, so that a machine whose speed drifts is unfair to none.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache

from kvq.evaluate.caches import CacheKind, parse_cache
from kvq.evaluate.model import Subject
from kvq.hf import KVQCache
from kvq.lowlevel import Context

States = list[tuple[torch.Tensor, torch.Tensor]]  # K, V [rows, kv_heads, tokens, d] of each layer

Fill = Callable[[Subject, States], Cache]
Progress = Callable[[str], None]

WARM_UP = 2  # steps that are not counted


@dataclass(frozen=True)
class Measured:
    """One cache: decode speed by context length, and its bytes at the longest, all that it has ever written to included."""

    tokens_per_s: dict[int, float]
    bytes_total: int
    bytes_used: int
    bytes_per_token: float
    bits_per_element: float


@torch.inference_mode()
def prompt_states(subject: Subject, ids: torch.Tensor, chunk: int = 1024) -> States:
    """K and V of a prompt [1, tokens], computed in chunks so that no mask of tokens x tokens is built."""
    cache = DynamicCache(config=subject.model.config)
    for start in range(0, ids.shape[1], chunk):
        subject.model.base_model(input_ids=ids[:, start : start + chunk], past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def cut_states(states: States, tokens: int, rows: int = 1) -> States:
    """The first `tokens` tokens of states of one row, for `rows` rows of the same text."""
    return [tuple(side[:, :, :tokens].expand(rows, -1, -1, -1).contiguous() for side in layer) for layer in states]


def filled(kind: CacheKind) -> Fill:
    return lambda subject, states: kind.fill(subject.model.config, states)


def dynamic(subject: Subject, states: States) -> Cache:
    """transformers' DynamicCache, filled."""
    return parse_cache("dynamic").fill(subject.model.config, states)


def quanto(subject: Subject, states: States) -> Cache:
    """transformers' QuantizedCache with optimum-quanto, 4 bits, filled."""
    return parse_cache("quanto-4").fill(subject.model.config, states)


def packed(text: str, context: Context, accuracy: str | None = None) -> Fill:
    """A KVQCache of a format, filled."""
    return filled(parse_cache(text, {"context": context, "accuracy": accuracy}))


@torch.inference_mode()
def measure(
    subject: Subject,
    states: States,
    fills: Mapping[str, Fill],
    lengths: Sequence[int],
    steps: int,
    progress: Progress = lambda message: None,
) -> dict[str, Measured]:
    """Decodes `steps` tokens at each context length with every cache, in turn."""
    speeds: dict[str, dict[int, float]] = {name: {} for name in fills}
    held: dict[str, tuple[int, int]] = {}
    for length in lengths:
        times, held = decode_times(subject, cut_states(states, length), fills, steps, progress)
        for name, seconds in times.items():
            speeds[name][length] = 1.0 / statistics.median(seconds)
    elements, last = elements_per_token(states), lengths[-1]
    return {
        name: Measured(speeds[name], total, used, total / last, 8 * total / (last * elements))
        for name, (total, used) in held.items()
    }


@torch.inference_mode()
def decode_times(
    subject: Subject,
    states: States,
    fills: Mapping[str, Fill],
    steps: int,
    progress: Progress = lambda message: None,
) -> tuple[dict[str, list[float]], dict[str, tuple[int, int]]]:
    """Seconds of each of `steps` steps, which decode one token of every row, and bytes held (`held_bytes`) before the
    first of them, by cache."""
    rows, _, length, _ = states[0][0].shape
    progress(f"{length} tokens: filling {len(fills)} caches")
    runs = {name: _Run(subject, fill(subject, states), length, rows) for name, fill in fills.items()}
    held = {name: held_bytes(run.cache) for name, run in runs.items()}
    for step, order in enumerate(rounds(list(runs), WARM_UP + steps)):
        progress(f"{length} tokens: step {step + 1} of {WARM_UP + steps}")
        for name in order:
            runs[name].step()
    times = {name: run.times[WARM_UP:] for name, run in runs.items()}
    del runs
    gc.collect()
    return times, held


@torch.inference_mode()
def prefill_times(
    subject: Subject,
    ids: torch.Tensor,
    kinds: Mapping[str, CacheKind],
    count: int,
    progress: Progress = lambda message: None,
) -> dict[str, list[float]]:
    """Seconds in which a prompt [rows, tokens] goes into an empty cache in one forward, `count` times with each cache.
    One more prompt, which compiles and loads what there is to load, goes before and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for number, order in enumerate(rounds(list(kinds), 1 + count)):
        for name in order:
            progress(f"{ids.shape[1]} tokens: prompt {number} of {count}, {name}")
            cache = kinds[name].make(subject.model.config)
            start = time.perf_counter()
            subject.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            times[name].append(time.perf_counter() - start)
            del cache
            gc.collect()
    return {name: seconds[1:] for name, seconds in times.items()}


def rounds(names: list[str], count: int) -> list[list[str]]:
    """Who takes turns in which order: each round begins one name later."""
    return [[*names[number % len(names) :], *names[: number % len(names)]] for number in range(count)]


def elements_per_token(states: States) -> int:
    """Numbers that K and V of one token have, in all layers."""
    return sum(k.shape[1] * (k.shape[3] + v.shape[3]) for k, v in states)


class _Run:
    """One cache that decodes greedily, and the seconds of each of its steps."""

    def __init__(self, subject: Subject, cache: Cache, length: int, rows: int) -> None:
        self.subject, self.cache, self.position = subject, cache, length
        self.token = torch.ones(rows, 1, dtype=torch.long)
        self.times: list[float] = []

    def step(self) -> None:
        position = torch.full((len(self.token), 1), self.position)
        start = time.perf_counter()
        output = self.subject.model(
            input_ids=self.token, position_ids=position, past_key_values=self.cache, use_cache=True
        )
        self.token = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        self.times.append(time.perf_counter() - start)
        self.position += 1


def held_bytes(cache: Cache) -> tuple[int, int]:
    """Bytes that a cache holds: all that it has ever written to, which the system still has there, and what is in use."""
    if isinstance(cache, KVQCache):
        report = cache.report()
        return int(report["bytes_touched"]), int(report["bytes_used"])
    total = sum(_tensor_bytes(value) for layer in cache.layers for value in vars(layer).values())
    return total, total


def _tensor_bytes(value: Any) -> int:
    """Bytes of a tensor, of the plain tensors inside one of quanto's, or of the tensors in hqq's pair of tensor and
    dict."""
    if isinstance(value, (tuple, list)):
        return sum(_tensor_bytes(item) for item in value)
    if isinstance(value, dict):
        return sum(_tensor_bytes(item) for item in value.values())
    if not isinstance(value, torch.Tensor):
        return 0
    if hasattr(value, "__tensor_flatten__") and type(value) is not torch.Tensor:
        return sum(_tensor_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
    return value.numel() * value.element_size()
