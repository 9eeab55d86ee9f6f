# SPDX-License-Identifier: Apache-2.0
"""A model's kernels for targets that are not here, from its config alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from kvq import lowlevel
from kvq.evaluate.source import Source
from kvq.hf import KVQCache


def config_of_gguf(source: Source) -> dict[str, Any]:
    """What a config.json would say."""
    return _config(source).to_dict()


def _config(source: Source) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(source.folder, **({"gguf_file": source.gguf} if source.gguf else {}))


def prepare_model(
    source: Source,
    cache: str,
    targets: Sequence[str],
    context: lowlevel.Context,
    dtype: str | None,
    accuracy: str,
    progress: Callable[[dict[str, Any]], None],
) -> None:
    """dtype: name of K's and V's type; None: the config's."""
    config = _config(source)
    kind = getattr(torch, dtype) if dtype else None
    KVQCache(config, cache, accuracy=accuracy, context=context).prepare(kind, progress=progress, targets=targets)
