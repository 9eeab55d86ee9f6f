# SPDX-License-Identifier: Apache-2.0
"""How much a format changes what a model says: perplexity, KL divergence and top-1 agreement on windows of text.

Each window is one forward into an empty KVQCache with attn_implementation="kvq", the product's own path: every query
sees what decoding token by token would have shown it (docs/format-spec.md commit_c4). The reference is the same model
without a cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kvq.evaluate.model import Subject
from kvq.hf import KVQCache
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
class _Sums:
    nll: float = 0.0
    kl: float = 0.0
    same: int = 0
    tokens: int = 0

    def quality(self) -> Quality:
        return Quality(math.exp(self.nll / self.tokens), self.kl / self.tokens, self.same / self.tokens)


def windows(ids: torch.Tensor, count: int, length: int) -> list[torch.Tensor]:
    """`count` windows [1, length] spread evenly over ids [1, tokens]."""
    room = ids.shape[1] - length
    if room < 0:
        raise ValueError(f"the text has {ids.shape[1]} tokens and a window needs {length}: take a longer text")
    starts = [room * i // max(count - 1, 1) for i in range(count)]
    return [ids[:, start : start + length] for start in starts]


@torch.inference_mode()
def compare(
    subject: Subject,
    texts: Sequence[torch.Tensor],
    formats: Sequence[str],
    context: Context,
    progress: Progress = lambda message: None,
) -> dict[str, Quality]:
    """Quality of each format, and of "full precision" itself, over the same windows."""
    sums = {name: _Sums() for name in ("full precision", *formats)}
    for number, ids in enumerate(texts):
        label = f"window {number + 1} of {len(texts)}"
        progress(f"{label}: full precision")
        reference = _log_probs(subject, _hidden(subject, ids, None))
        _add(sums["full precision"], subject, reference, reference, ids)
        for name in formats:
            progress(f"{label}: {name}")
            cache = KVQCache(subject.model.config, name, context=context)
            hidden = _hidden(subject, ids, cache)
            _add(sums[name], subject, reference, hidden, ids)
    return {name: total.quality() for name, total in sums.items()}


def _hidden(subject: Subject, ids: torch.Tensor, cache: KVQCache | None) -> torch.Tensor:
    """The model's last hidden states [tokens, d] over one window."""
    output = subject.model.model(input_ids=ids, past_key_values=cache, use_cache=cache is not None)
    return output.last_hidden_state[0]


def _log_probs(subject: Subject, hidden: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [tokens, words] in f32, filled in chunks so that only one whole copy exists."""
    result = torch.empty(len(hidden), subject.model.config.vocab_size)
    for start in range(0, len(hidden), CHUNK):
        logits = subject.model.lm_head(hidden[start : start + CHUNK]).float()
        torch.log_softmax(logits, dim=-1, out=result[start : start + CHUNK])
    return result


def _add(sums: _Sums, subject: Subject, reference: torch.Tensor, other: torch.Tensor, ids: torch.Tensor) -> None:
    """Adds one window. `other` holds hidden states, or is the reference itself."""
    targets = ids[0, 1:]
    for start in range(0, len(targets), CHUNK):
        part = slice(start, min(start + CHUNK, len(targets)))
        p = reference[part]
        q = p if other is reference else torch.log_softmax(subject.model.lm_head(other[part]).float(), dim=-1)
        sums.nll -= q.gather(1, targets[part, None]).sum().item()
        if q is p:
            sums.same += len(p)
        else:
            # Sum of p (q/p - 1 - ln q/p): the same as sum of p ln p/q, but no term is negative, so that rounding
            # cannot drown a small divergence.
            ratio = q - p
            sums.kl += (p.exp() * (torch.expm1(ratio) - ratio)).sum().item()
            sums.same += int((p.argmax(dim=-1) == q.argmax(dim=-1)).sum())
        sums.tokens += len(p)
