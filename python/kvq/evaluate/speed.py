# SPDX-License-Identifier: Apache-2.0
"""How fast a model decodes at a context length, and how many bytes its cache holds there.

The prompt runs through the model once, with an ordinary cache; its K and V are then loaded into each cache under test,
so all caches decode from the same state. Times are medians of single steps of one token, one row, taken in turn.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, QuantizedCache
from transformers.cache_utils import Cache

from kvq.evaluate.model import Subject
from kvq.hf import KVQCache
from kvq.lowlevel import Context

States = list[tuple[torch.Tensor, torch.Tensor]]  # K, V [1, kv_heads, tokens, d] of each layer

Fill = Callable[[Subject, States], Cache]
Progress = Callable[[str], None]

WARM_UP = 2  # steps that are not counted


@dataclass(frozen=True)
class Measured:
    """One cache: decode speed by context length, and its bytes at the longest, all that it has reserved included."""

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
        subject.model.model(input_ids=ids[:, start : start + chunk], past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def dynamic(subject: Subject, states: States) -> Cache:
    """transformers' DynamicCache, filled."""
    cache = DynamicCache(config=subject.model.config)
    for index, (k, v) in enumerate(states):
        cache.update(k, v, index)
    return cache


def quanto(subject: Subject, states: States) -> Cache:
    """transformers' QuantizedCache with optimum-quanto, 4 bits, filled."""
    cache = QuantizedCache("quanto", subject.model.config, nbits=4)
    for index, (k, v) in enumerate(states):
        cache.update(k.contiguous(), v.contiguous(), index)
    return cache


def packed(text: str, context: Context) -> Fill:
    """A KVQCache of a format, filled."""

    def fill(subject: Subject, states: States) -> Cache:
        cache = KVQCache(subject.model.config, text, context=context)
        cache.load(states)
        return cache

    return fill


@torch.inference_mode()
def measure(
    subject: Subject,
    states: States,
    fills: Mapping[str, Fill],
    lengths: Sequence[int],
    steps: int,
    progress: Progress = lambda message: None,
) -> dict[str, Measured]:
    """Decodes `steps` tokens at each context length with every cache, in turn: one step of each, then the next round,
    so that a machine whose speed drifts is unfair to none."""
    speeds: dict[str, dict[int, float]] = {name: {} for name in fills}
    held: dict[str, tuple[int, int]] = {}
    for length in lengths:
        progress(f"{length} tokens: filling {len(fills)} caches")
        cut = [(k[:, :, :length], v[:, :, :length]) for k, v in states]
        runs = {name: _Run(subject, fill(subject, cut), length) for name, fill in fills.items()}
        held = {name: held_bytes(run.cache) for name, run in runs.items()}
        for step in range(WARM_UP + steps):
            progress(f"{length} tokens: step {step + 1} of {WARM_UP + steps}")
            for run in runs.values():
                run.step()
        for name, run in runs.items():
            speeds[name][length] = 1.0 / statistics.median(run.times[WARM_UP:])
        del runs
        gc.collect()
    elements = sum(k.shape[1] * (k.shape[3] + v.shape[3]) for k, v in states)
    last = lengths[-1]
    return {
        name: Measured(speeds[name], total, used, total / last, 8 * total / (last * elements))
        for name, (total, used) in held.items()
    }


class _Run:
    """One cache that decodes greedily, and the seconds of each of its steps."""

    def __init__(self, subject: Subject, cache: Cache, length: int) -> None:
        self.subject, self.cache, self.position = subject, cache, length
        self.token = torch.ones(1, 1, dtype=torch.long)
        self.times: list[float] = []

    def step(self) -> None:
        position = torch.tensor([[self.position]])
        start = time.perf_counter()
        output = self.subject.model(
            input_ids=self.token, position_ids=position, past_key_values=self.cache, use_cache=True
        )
        self.token = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        self.times.append(time.perf_counter() - start)
        self.position += 1


def held_bytes(cache: Cache) -> tuple[int, int]:
    """Bytes that a cache holds: all that it has reserved, and what is in use."""
    if isinstance(cache, KVQCache):
        report = cache.report()
        return int(report["bytes_reserved"]), int(report["bytes_used"])
    total = sum(_tensor_bytes(value) for layer in cache.layers for value in vars(layer).values())
    return total, total


def _tensor_bytes(value: Any) -> int:
    """Bytes of a tensor, or of the plain tensors inside one of quanto's."""
    if not isinstance(value, torch.Tensor):
        return 0
    if hasattr(value, "__tensor_flatten__") and type(value) is not torch.Tensor:
        return sum(_tensor_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
    return value.numel() * value.element_size()
