# SPDX-License-Identifier: Apache-2.0
"""Measuring caches on a real model: quality (perplexity, KL, top-1), decode speed and bytes, chat side by side."""

from __future__ import annotations

from kvq.evaluate.chat import Answer, answers
from kvq.evaluate.model import Subject, smollm2, tiny, torch_threads
from kvq.evaluate.prose import handbook
from kvq.evaluate.quality import Quality, compare, windows
from kvq.evaluate.speed import Measured, dynamic, held_bytes, measure, packed, prompt_states, quanto

__all__ = [
    "Answer",
    "Measured",
    "Quality",
    "Subject",
    "answers",
    "compare",
    "dynamic",
    "handbook",
    "held_bytes",
    "measure",
    "packed",
    "prompt_states",
    "quanto",
    "smollm2",
    "tiny",
    "torch_threads",
    "windows",
]
