# SPDX-License-Identifier: Apache-2.0
"""One layer's face of a KVQCache, which holds the state of all layers: what transformers asks of a single layer."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import CacheLayerMixin

from kvq.errors import FailedPrecondition, Unsupported

if TYPE_CHECKING:
    from kvq.hf.cache import KVQCache

_WHOLE = "a single layer of a KVQCache cannot be changed by itself: call the cache's own "


class KVQLayer(CacheLayerMixin):
    # The shapes that attention sees grow with every token, as DynamicCache's do; only caches of fixed size are
    # compiled by generate() on its own.
    is_compileable = False
    is_croppable = True
    is_sliding = False
    supports_early_init = False

    def __init__(self, cache: KVQCache, index: int, window: int = 0) -> None:
        super().__init__()
        self._cache = weakref.ref(cache)  # a cycle would keep the cache's memory until the collector comes round
        self.index = index
        self.window = window
        self.is_sliding = window > 0

    @property
    def cache(self) -> KVQCache:
        cache = self._cache()
        if cache is None:
            raise FailedPrecondition("this layer's KVQCache is gone: keep the cache itself")
        return cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.is_initialized = True  # the first attention makes the memory

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cache.update_layer(self.index, key_states, value_states)

    def get_seq_length(self) -> int:
        return self.cache.padded_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that the mask must cover, and the first of them. In place, the mask is only read for padding, so a
        sliding layer gets the mask of all keys."""
        past = self.cache.padded_length
        first = max(0, past - self.window + 1) if self.window and not self.cache.is_in_place else 0
        return past - first + query_length, first

    def get_max_length(self) -> int:
        return self.window or -1

    @property
    def batch_size(self) -> int:
        rows = len(self.cache.lengths)
        if not rows:
            raise AttributeError("batch_size is known after the first forward")
        return rows

    def reset(self) -> None:
        raise Unsupported(_WHOLE + "reset")

    def crop(self, tokens_to_remove: int) -> None:
        raise Unsupported(_WHOLE + "crop")

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        raise Unsupported(_WHOLE + "reorder_cache")

    def batch_repeat_interleave(self, repeats: int) -> None:
        raise Unsupported(_WHOLE + "batch_repeat_interleave")

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        raise Unsupported(_WHOLE + "batch_select_indices")

    def offload(self) -> None:
        raise Unsupported("a KVQCache lives in the CPU's memory already: leave offloading off")

    def prefetch(self) -> None:
        raise Unsupported("a KVQCache lives in the CPU's memory already: leave offloading off")
