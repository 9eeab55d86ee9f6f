# SPDX-License-Identifier: Apache-2.0
"""Passkey retrieval: a number is said once, somewhere in a long text about nothing, and asked for at its end.

The texts are made here, from a fixed vocabulary and a seed; nothing is downloaded. The same length, depth and trial
give the same text on every machine.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from kvq.errors import InvalidArgument
from kvq.evaluate.caches import CacheKind
from kvq.evaluate.model import Subject
from kvq.evaluate.settings import ANSWER_TOKENS

DIGITS = 5
OPENING = "Somewhere in the notes below a pass key is written down. Remember the pass key.\n\n"
QUESTION = "\n\nThat was all of the notes. What is the pass key? The pass key is"
DAYS = ("On Monday", "On Tuesday", "On Wednesday", "On Thursday", "On Friday", "At noon", "Before dawn", "After supper")
WHO = ("the gardener", "the miller", "a surveyor", "the librarian", "a carpenter", "the pilot", "a baker", "the smith")
DID = ("mended", "counted", "painted", "carried", "measured", "cleaned", "sorted", "weighed")
WHAT = ("the fences", "two lanterns", "the old maps", "a stack of planks", "the kettles", "some ropes", "the windows")
WHERE = ("by the river", "behind the mill", "in the yard", "near the station", "under the bridge", "beside the well")


@dataclass(frozen=True)
class Task:
    """`depth`: where the key stands, in percent of the filler before it. `key`: its digits."""

    prompt: str
    key: str
    depth: int
    length: int


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(" ".join(map(str, parts)).encode()).digest()[:8], "big")


def sentences(count: int, seed: int) -> list[str]:
    """Sentences without any number in them."""
    choose = random.Random(seed).choice
    return [f"{choose(DAYS)} {choose(WHO)} {choose(DID)} {choose(WHAT)} {choose(WHERE)}." for _ in range(count)]


def make_task(count_tokens: Callable[[str], int], length: int, depth: int, trial: int) -> Task:
    """A task whose prompt has at most `length` tokens, and fewer by less than about a sentence's."""
    key = str(random.Random(_seed("key", length, depth, trial)).randrange(10 ** (DIGITS - 1), 10**DIGITS))
    needle = f"The pass key is {key}. Remember it: {key} is the pass key."
    # No sentence has fewer than 8 tokens in a vocabulary of words; one of single characters has more.
    filler = sentences(max(length // 8, 1), _seed("filler", length, trial))

    def prompt(count: int) -> str:
        before = count * depth // 100
        return OPENING + " ".join([*filler[:before], needle, *filler[before:count]]) + QUESTION

    if count_tokens(prompt(0)) > length:
        raise InvalidArgument(
            f"a passkey task takes {count_tokens(prompt(0))} tokens even without filler and the context is {length}: "
            "take a longer one"
        )
    low, high = 0, len(filler)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(prompt(middle)) <= length:
            low = middle
        else:
            high = middle - 1
    return Task(prompt(low), key, depth, length)


def matches(answer: str, key: str) -> bool:
    """Whether an answer begins with the key and the key only."""
    digits = answer.lstrip(" \n\"'*:")
    return digits.startswith(key) and not digits[len(key) : len(key) + 1].isdigit()


@torch.inference_mode()
def ask(subject: Subject, task: Task, kind: CacheKind) -> str:
    """What the model answers greedily, with an empty cache of this kind, as generate() runs."""
    ids = subject.encode(task.prompt)
    output = subject.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=kind.make(subject.model.config),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    return subject.decode(output[0, ids.shape[1] :])
