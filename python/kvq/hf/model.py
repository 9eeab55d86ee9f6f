# SPDX-License-Identifier: Apache-2.0
"""What a cache reads from a model's config: layers, their windows, which of them are alike, head sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs

from kvq.errors import Unsupported

_SHAPE_FIELDS = ("head_dim", "num_key_value_heads", "num_attention_heads")
# Fields by which a snapshot recognizes the model it was taken with.
_MODEL_FIELDS = ("model_type", "hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "rope_theta")


@dataclass(frozen=True)
class Layer:
    window: int = 0  # of sliding attention; 0: the layer sees all
    shape: tuple[Any, ...] = ()  # what the config says of its heads


class ModelLayout:
    """The decoder layers of a config."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config.get_text_config(decoder=True)
        self.layers = _layers(self.config)
        self.score_cap = float(getattr(self.config, "attn_logit_softcapping", None) or 0.0)
        self.max_tokens = int(getattr(self.config, "max_position_embeddings", None) or 4096)

    @property
    def is_in_place(self) -> bool:
        return self.config._attn_implementation == "kvq"

    @property
    def dtype(self) -> torch.dtype:
        dtype = getattr(self.config, "dtype", None) or torch.float32
        return getattr(torch, dtype) if isinstance(dtype, str) else dtype

    @property
    def q_heads(self) -> int:
        return int(self.config.num_attention_heads)

    def sizes(self) -> tuple[int, int, int]:
        """(KV heads, Dk, Dv) as the config says them. MLA models store a latent vector and a rotary key."""
        config = self.config
        if getattr(config, "kv_lora_rank", None) is not None:
            return 1, config.kv_lora_rank, config.qk_rope_head_dim
        heads = getattr(config, "num_key_value_heads", None) or self.q_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // self.q_heads
        return heads, size, size

    def identity(self) -> dict[str, Any]:
        return {name: getattr(self.config, name, None) for name in _MODEL_FIELDS}


def decoder_layers(config: PreTrainedConfig) -> int:
    """Layers of the decoder; encoder-decoder configs call them one thing or the other."""
    text = config.get_text_config(decoder=True)
    return int(getattr(text, "num_decoder_layers", None) or text.num_hidden_layers)


def _layers(config: PreTrainedConfig) -> list[Layer]:
    if getattr(config, "is_encoder_decoder", False):
        return [Layer()] * decoder_layers(config)
    types, arguments = get_layer_types_and_kwargs(config)
    foreign = sorted(set(types) - {"full_attention", "sliding_attention"})
    if foreign:
        raise Unsupported(
            f"the model has layers of type {foreign}: kvq holds layers of full and of sliding attention, use "
            "transformers.DynamicCache for this model"
        )
    return [
        Layer(int(argument.get("sliding_window") or 0), tuple(getattr(layer, name, None) for name in _SHAPE_FIELDS))
        for argument, layer in zip(arguments, config.per_layer_config, strict=True)
    ]


def partition(keys: Sequence[Any]) -> list[list[int]]:
    """Numbers of the layers that have equal keys, in the order of their first ones."""
    parts: dict[Any, list[int]] = {}
    for layer, key in enumerate(keys):
        parts.setdefault(key, []).append(layer)
    return list(parts.values())
