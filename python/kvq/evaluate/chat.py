# SPDX-License-Identifier: Apache-2.0
"""One question, answered greedily with several caches, and where the answers part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from kvq.evaluate.model import Subject
from kvq.hf import KVQCache
from kvq.lowlevel import Context


@dataclass(frozen=True)
class Answer:
    cache: str
    ids: list[int]
    text: str
    differs_at: int | None  # index of the first token that is not the ordinary cache's; None: the same to the end


@torch.inference_mode()
def answers(
    subject: Subject,
    question: str,
    formats: Sequence[str],
    context: Context,
    max_new_tokens: int,
    accuracy: str | None = None,
) -> list[Answer]:
    """Greedy answers with the ordinary cache, which comes first, and with each format."""
    prompt = subject.chat(question)
    result: list[Answer] = []
    for name in ("full precision", *formats):
        cache = (
            KVQCache(subject.model.config, name, accuracy=accuracy, context=context)
            if result
            else DynamicCache(config=subject.model.config)
        )
        output = subject.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            past_key_values=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        ids = output[0, prompt.shape[1] :]
        reference = result[0].ids if result else ids.tolist()
        result.append(Answer(name, ids.tolist(), subject.decode(ids), _first_difference(reference, ids.tolist())))
    return result


def _first_difference(a: list[int], b: list[int]) -> int | None:
    for index, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return index
    return None if len(a) == len(b) else min(len(a), len(b))
