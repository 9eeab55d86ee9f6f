# SPDX-License-Identifier: Apache-2.0
"""How much a cache changes what a model says: perplexity, KL divergence and top-1 agreement on windows of text.

Each window runs into an empty cache in such pieces that every query sees what decoding token by token would have shown
it: a KVQCache promises that for one forward (docs/format-spec.md commit_c4), transformers' quantized caches take their
own pieces (CacheKind.pieces). The reference is the same model without a cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache

from kvq.errors import InvalidArgument
from kvq.evaluate.caches import CacheKind, parse_cache
from kvq.evaluate.model import Subject
from kvq.lowlevel import Context

CHUNK = 256  # tokens whose logits are held at once: 50 MB for 49,152 words

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Quality:
    """Means over all predicted tokens; kl in nats."""

    perplexity: float
    kl: float
    top1: float


@dataclass
class Sums:
    """Totals over the predicted tokens of windows: negative log-likelihood and KL in nats, and tokens whose most
    likely successor is the reference's."""

    nll: float = 0.0
    kl: float = 0.0
    same: int = 0
    tokens: int = 0

    def add(self, other: Sums) -> None:
        self.nll += other.nll
        self.kl += other.kl
        self.same += other.same
        self.tokens += other.tokens

    def quality(self) -> Quality:
        return Quality(math.exp(self.nll / self.tokens), self.kl / self.tokens, self.same / self.tokens)


def window_starts(tokens: int, count: int, length: int) -> list[int]:
    """Where `count` windows of `length` tokens begin that spread evenly over a text of `tokens` tokens."""
    room = tokens - length
    if room < 0:
        raise InvalidArgument(f"the text has {tokens} tokens and a window needs {length}: take a longer text")
    return [room * i // max(count - 1, 1) for i in range(count)]


def windows(ids: torch.Tensor, count: int, length: int) -> list[torch.Tensor]:
    """`count` windows [1, length] spread evenly over ids [1, tokens]."""
    return [ids[:, start : start + length] for start in window_starts(ids.shape[1], count, length)]


@torch.inference_mode()
def compare(
    subject: Subject,
    texts: Sequence[torch.Tensor],
    formats: Sequence[str],
    context: Context,
    progress: Progress = lambda message: None,
    accuracy: str | None = None,
) -> dict[str, Quality]:
    """Quality of each format in an accuracy class, and of "full precision" itself, over the same windows."""
    sums = {name: Sums() for name in ("full precision", *formats)}
    kinds = {name: parse_cache(name, {"context": context, "accuracy": accuracy}) for name in formats}
    for number, ids in enumerate(texts):
        label = f"window {number + 1} of {len(texts)}"
        progress(f"{label}: full precision")
        reference = log_probabilities(subject, ids)
        sums["full precision"].add(reference_sums(reference, ids))
        for name, kind in kinds.items():
            progress(f"{label}: {name}")
            sums[name].add(window_sums(subject, reference, ids, kind))
    return {name: total.quality() for name, total in sums.items()}


@torch.inference_mode()
def log_probabilities(subject: Subject, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [tokens, words] in f32 of a window without a cache, filled in chunks so that only one whole
    copy exists."""
    states = _states(subject, ids, None)
    result = None
    for start in range(0, len(states), CHUNK):
        part = _log_softmax(subject, states[start : start + CHUNK])
        if result is None:
            result = torch.empty(len(states), part.shape[1])
        result[start : start + CHUNK] = part
    assert result is not None
    return result


def reference_sums(reference: torch.Tensor, ids: torch.Tensor) -> Sums:
    """The reference measured by itself."""
    targets = ids[0, 1:]
    nll = -reference[:-1].gather(1, targets[:, None]).sum().item()
    return Sums(nll, 0.0, len(targets), len(targets))


@torch.inference_mode()
def window_sums(subject: Subject, reference: torch.Tensor, ids: torch.Tensor, kind: CacheKind) -> Sums:
    """One window with an empty cache of a kind, against the reference's log-probabilities."""
    states = _states(subject, ids, kind.make(subject.model.config), kind.pieces(ids.shape[1]))
    targets = ids[0, 1:]
    sums = Sums()
    for start in range(0, len(targets), CHUNK):
        part = slice(start, min(start + CHUNK, len(targets)))
        p, q = reference[part], _log_softmax(subject, states[part])
        sums.nll -= q.gather(1, targets[part, None]).sum().item()
        # Sum of p (q/p - 1 - ln q/p): the same as sum of p ln p/q, but no term is negative, so that rounding cannot
        # drown a small divergence.
        ratio = q - p
        sums.kl += (p.exp() * (torch.expm1(ratio) - ratio)).sum().item()
        sums.same += int((p.argmax(dim=-1) == q.argmax(dim=-1)).sum())
        sums.tokens += len(p)
    return sums


def _states(subject: Subject, ids: torch.Tensor, cache: Cache | None, pieces: Sequence[int] = ()) -> torch.Tensor:
    """Over one window, what logits follow from [tokens, ..]: the last hidden states, or logits where the model's head
    is more than a matrix."""
    found, start = [], 0
    for length in pieces or (ids.shape[1],):
        options = {"input_ids": ids[:, start : start + length], "use_cache": cache is not None}
        if subject.head is None:
            found.append(subject.model(past_key_values=cache, **options).logits[0])
        else:
            found.append(subject.model.base_model(past_key_values=cache, **options).last_hidden_state[0])
        start += length
    return found[0] if len(found) == 1 else torch.cat(found)


def _log_softmax(subject: Subject, states: torch.Tensor) -> torch.Tensor:
    logits = states if subject.head is None else subject.head(states)
    return torch.log_softmax(logits.float(), dim=-1)
