# SPDX-License-Identifier: Apache-2.0
"""A KVQCache that is made from a method's options instead of a text, and knows no model when it is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedConfig

from kvq.compat.options import Recipe
from kvq.errors import InvalidArgument, Unsupported
from kvq.hf import KVQCache


class RecipeCache(KVQCache):
    """The cache that a recipe describes. Head sizes and the number of layers are checked in the first forward, which is
    the first time that they are known."""

    def __init__(self, recipe: Recipe, prefill: str, accuracy: str | None = None) -> None:
        self.recipe = recipe
        super().__init__(None, _format(recipe), prefill=prefill, accuracy=accuracy)

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: PreTrainedConfig, **options: Any) -> KVQCache:
        """The cache that save() wrote, as a plain KVQCache: a snapshot holds texts, not options."""
        return KVQCache.open(path, config, **options)

    @torch.compiler.disable
    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.recipe.check_sizes(key_states.shape[-1], value_states.shape[-1])
        if layer_idx > 0 or self.get_seq_length() > 0:
            self._check_model(key_states.shape[-2])
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def _check_model(self, tokens: int) -> None:
        """Checks what the first attention, or the end of the first forward, has shown of the model."""
        if self.prefill == "stored" and tokens > 1 and not self.is_in_place:
            self.reset()
            raise Unsupported(
                'force_quant is True, and only attn_implementation="kvq" shows the tokens of a prompt to each other '
                'quantized: call model.set_attn_implementation("kvq")'
            )
        layers, entries = len(self.layers), len(self.recipe.widths)
        if self.recipe.per_layer and layers != entries and (self.layout is not None or self.packed is not None):
            self.reset()
            raise _wrong_layers(entries, layers)


def _wrong_layers(entries: int, layers: int) -> InvalidArgument:
    return InvalidArgument(
        f"per_layer_config has {entries} layers where the model has {layers}: give one entry for each layer"
    )


def _format(recipe: Recipe) -> str | list[str] | Callable[[int, int, int], str]:
    """What KVQCache takes: texts where they are known already, else a function of layer and head sizes."""

    def text(layer: int, dk: int, dv: int) -> str:
        if recipe.per_layer and layer >= len(recipe.widths):
            raise _wrong_layers(len(recipe.widths), layer + 1)
        return recipe.texts(dk, dv)[layer if recipe.per_layer else 0]

    if recipe.needs_head_size:
        return text
    texts = recipe.texts(recipe.group, recipe.group)
    return texts if recipe.per_layer else texts[0]
