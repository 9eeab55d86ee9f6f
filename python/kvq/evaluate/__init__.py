# SPDX-License-Identifier: Apache-2.0
"""Measuring caches on a model: quality (perplexity, KL, top-1), passkey retrieval, bytes, speed; chats on one cache.

torch is imported with the first name that is used: `kvq --help` and `kvq env` do without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvq.evaluate.caches import CacheKind, parse_cache
    from kvq.evaluate.chat import Answer, answers
    from kvq.evaluate.conversation import Conversation
    from kvq.evaluate.model import Subject, open_model, smollm2, tiny, torch_threads
    from kvq.evaluate.prose import handbook
    from kvq.evaluate.quality import Quality, compare, windows
    from kvq.evaluate.speed import Measured, dynamic, held_bytes, measure, packed, prompt_states, quanto

_HOME = {
    "CacheKind": "caches",
    "parse_cache": "caches",
    "Answer": "chat",
    "answers": "chat",
    "Conversation": "conversation",
    "Subject": "model",
    "open_model": "model",
    "smollm2": "model",
    "tiny": "model",
    "torch_threads": "model",
    "handbook": "prose",
    "Quality": "quality",
    "compare": "quality",
    "windows": "quality",
    "Measured": "speed",
    "dynamic": "speed",
    "held_bytes": "speed",
    "measure": "speed",
    "packed": "speed",
    "prompt_states": "speed",
    "quanto": "speed",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"kvq.evaluate.{_HOME[name]}"), name)
    raise AttributeError(f"module 'kvq.evaluate' has no attribute {name!r}")
