# SPDX-License-Identifier: Apache-2.0
"""KVQCache: a transformers Cache whose K and V live packed in pages.

With attn_implementation="kvq" nothing dense is ever rebuilt: `update` only marks the new K and V with the layer they
belong to, and the attention function (kvq.hf.attention) stores and attends them in one call. With any other attention
implementation the cache still works by handing dense tensors back, and says so once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, get_layer_types_and_kwargs

from kvq import lowlevel
from kvq.errors import FailedPrecondition, InvalidArgument, Unsupported
from kvq.hf.batch import PackedBatch, Shape
from kvq.hf.padding import leading_pads

HANDLE = "_kvq_handle"  # attribute of the tensors that `update` returns


@dataclass(frozen=True)
class Handle:
    """Says to the attention function where K and V belong."""

    cache: KVQCache
    layer: int
    gradient: bool = False  # whether K or V, which the cache detaches, had a gradient


def _refuse(operation: str, remedy: str) -> Unsupported:
    return Unsupported(f"{operation} is not supported by KVQCache in this version of kvq: {remedy}")


class KVQLayer(CacheLayerMixin):
    """One layer's face of a KVQCache, which holds the state of all layers."""

    is_compileable = False
    is_croppable = False
    is_sliding = False
    supports_early_init = False

    def __init__(self, cache: KVQCache, index: int) -> None:
        super().__init__()
        self.cache = cache
        self.index = index

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.cache.packed.open(key_states, value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cache.update_layer(self.index, key_states, value_states)

    def get_seq_length(self) -> int:
        return self.cache.padded_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.padded_length + query_length, 0

    def get_max_length(self) -> int:
        return -1

    @property
    def batch_size(self) -> int:
        rows = self.cache.packed.rows
        if not rows:
            raise AttributeError("batch_size is known after the first forward")
        return len(rows)

    def reset(self) -> None:
        self.is_initialized = False
        if self.index == 0:
            self.cache.forget()

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove != 0:
            raise _refuse(
                f"crop({tokens_to_remove}), which assisted generation and prompt lookup need,",
                "use transformers.DynamicCache for them, or reset() and prefill again",
            )

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        raise _refuse("reorder_cache, which beam search needs,", "generate with num_beams=1 or with DynamicCache")

    def batch_repeat_interleave(self, repeats: int) -> None:
        raise _refuse("batch_repeat_interleave", "repeat the rows of input_ids before the first forward")

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        raise _refuse("batch_select_indices", "run the rows that are to stay with a cache of their own")

    def offload(self) -> None:
        raise _refuse("offloading", "the cache lives in the CPU's memory already, leave offloading off")

    def prefetch(self) -> None:
        raise _refuse("offloading", "the cache lives in the CPU's memory already, leave offloading off")


class KVQCache(Cache):
    """A quantized KV cache for `generate(past_key_values=...)`.

    Args:
        config: `model.config` itself; the attention implementation is looked up in it.
        format: a cache text or preset, such as "kivi-2" or "k4c32-v2t32/w128,block".
        device: "cpu" (kernels generated for this CPU) or "ref" (the scalar reference: slow, for debugging).
        threads: of kvq's kernels; 0 for all that the process may use.
        page_tokens: tokens of a page; 0 for the default of the format.
        context: an existing lowlevel.Context in place of the five options before and after.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        format: str = "kivi-2",
        *,
        device: str = "cpu",
        level: str | None = None,
        threads: int = 0,
        page_tokens: int = 0,
        store_dir: str | None = None,
        frozen: bool = False,
        context: lowlevel.Context | None = None,
    ) -> None:
        text_config = config.get_text_config(decoder=True)
        types = set(get_layer_types_and_kwargs(text_config)[0])
        if types != {"full_attention"}:
            raise Unsupported(
                f"the model has layers of type {sorted(types - {'full_attention'})}: this version of kvq holds layers "
                "of full attention only, use transformers.DynamicCache for this model"
            )
        context = context or lowlevel.shared_context(device, level, threads, store_dir, frozen)
        shape = Shape(layers=text_config.num_hidden_layers, q_heads=text_config.num_attention_heads)
        self.config = text_config
        self.packed = PackedBatch(context, format, shape, page_tokens)
        self._kept: torch.Tensor | None = None  # [rows, padded length]: which tokens were stored
        self._new: torch.Tensor | None = None  # the same for the step that is open
        self._padded = False  # whether that step has padding
        self._waiting: int | None = None  # layer whose K and V were handed out and not yet attended
        self._dense: list[tuple[torch.Tensor, torch.Tensor]] = []  # new K and V while a dense forward runs
        self._warned = False
        super().__init__(layers=[KVQLayer(self, index) for index in range(shape.layers)])

    def __deepcopy__(self, memo: dict[int, Any]) -> KVQCache:
        raise _refuse("copying", "make a new KVQCache and prefill it")

    # -- what a user asks --------------------------------------------------------------------------------------------

    @property
    def format(self) -> str:
        """Canonical text of the format."""
        return self.packed.format

    @property
    def padded_length(self) -> int:
        """Tokens that transformers has passed in, padding included."""
        return 0 if self._kept is None else self._kept.shape[1]

    @property
    def lengths(self) -> list[int]:
        """Tokens stored for each row, without padding."""
        return self.packed.lengths if self.packed.rows else []

    def report(self) -> dict[str, float]:
        """Measured bytes, in use and reserved (lowlevel.Cache.report)."""
        if self.packed.cache is None:
            raise FailedPrecondition("the cache has no memory before the first forward: run the model first")
        return self.packed.cache.report()

    def kernels(self) -> list[dict[str, Any]]:
        """The kernels of the context: name, source, key, compile_ms, object_bytes."""
        return self.packed.context.kernels()

    def prepare(
        self,
        dtype: torch.dtype | None = None,
        rows: int = 1,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Compiles or loads all kernels that a model of this config and dtype needs; progress is called for each.
        dtype None is the config's, or float32 where that has none."""
        if self.padded_length == 0:
            self._open_empty(dtype or _config_dtype(self.config), rows)
        elif dtype not in (None, self.packed.dtype):
            raise InvalidArgument(f"dtype is {dtype} where the cache holds {self.packed.dtype}: call reset() first")
        self.packed.cache.prepare(progress)

    def _open_empty(self, dtype: torch.dtype, rows: int) -> None:
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        size = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        empty = torch.empty(rows, heads, 0, size, dtype=dtype)
        self._open(empty, empty)

    def load(self, states: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Appends K and V [rows, kv_heads, tokens, d] of every layer, which another cache of this model computed."""
        _check_states(states, len(self.layers))
        self.packed.abort()
        self._open(*states[0])
        self.packed.append_all([(k.detach(), v.detach()) for k, v in states])
        self._extend(torch.ones(states[0][0].shape[0], states[0][0].shape[2], dtype=torch.bool))

    def forget(self) -> None:
        """Removes all rows; memory is kept."""
        self.packed.reset()
        self._kept = self._new = self._waiting = None
        self._dense = []

    # -- what transformers and the attention function call -----------------------------------------------------------

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= layer_idx < len(self.layers):
            raise InvalidArgument(
                f"layer {layer_idx} does not exist: the cache was made for {len(self.layers)} layers, make it from "
                "this model's config"
            )
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def update_layer(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if layer == 0:
            self._begin(k, v)
        if self.config._attn_implementation != "kvq":
            return self._update_dense(layer, k, v)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.packed.abort()
            raise FailedPrecondition(
                f"K and V of layer {waiting} were never attended: the attention function of the model is not \"kvq\" "
                "though its config says so; make the cache from model.config itself"
            )
        self._waiting = layer
        gradient = k.requires_grad or v.requires_grad
        # Detached: a graph through the cache would keep every step's K and V alive.
        k, v = k.detach(), v.detach()
        handle = Handle(self, layer, gradient)
        setattr(k, HANDLE, handle)
        setattr(v, HANDLE, handle)
        return k, v

    def _begin(self, k: torch.Tensor, v: torch.Tensor) -> None:
        self.packed.begin_forward()
        self._new = self._waiting = None
        self._dense = []
        self._open(k, v)
        if self._kept is None:
            self._kept = torch.empty(k.shape[0], 0, dtype=torch.bool)

    def _open(self, k: torch.Tensor, v: torch.Tensor) -> None:
        if self.padded_length == 0:  # rows that `prepare` or a first forward that failed has made bind nobody
            self.packed.reset()
            self._kept = None
        self.packed.open(k, v)

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Stores k and v, attends q over the whole cache and returns [B, T, Hq, D]."""
        self._waiting = None
        rows, heads, tokens, _ = q.shape
        if layer == 0:
            self._open_step(mask, tokens)
        # Kernels leave rows of padding as they are; what later layers compute from them must be finite.
        make = torch.zeros if self._padded else torch.empty
        out = make(rows, tokens, heads, v.shape[-1], dtype=q.dtype)
        self.packed.forward(layer, _rows(q.detach()), _rows(k), _rows(v), scale, out.transpose(1, 2))
        if self.packed.step is None and self._new is not None:
            self._extend(self._new)
        return out

    def _open_step(self, mask: torch.Tensor | None, tokens: int) -> None:
        assert self._kept is not None
        pads = leading_pads(mask, self._kept, tokens)
        self._new = torch.arange(tokens) >= torch.tensor(pads)[:, None]
        self._padded = any(pads)
        self.packed.plan([tokens - pad for pad in pads])

    def _extend(self, new: torch.Tensor) -> None:
        self._kept = new if self._kept is None else torch.cat([self._kept, new], dim=1)
        self._new = None

    def _update_dense(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The way of other attention functions. Padding is stored as any token, since they mask it themselves; tokens
        of one call see each other unquantized."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"attn_implementation is \"{self.config._attn_implementation}\": KVQCache rebuilds dense K and V in "
                "every layer and step, which is slow and needs memory; load the model with attn_implementation=\"kvq\"",
                stacklevel=2,
            )
        lengths = self.packed.lengths
        if len(set(lengths)) > 1 or lengths[0] != self.padded_length:
            raise FailedPrecondition(
                "the cache holds rows stripped of their padding, which only attn_implementation=\"kvq\" can attend: "
                "set it back, or reset() the cache"
            )
        self._dense.append((k.detach(), v.detach()))
        if lengths[0]:
            old_k, old_v = self.packed.read(layer)
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        if layer == len(self.layers) - 1:
            states, self._dense = self._dense, []
            self.packed.append_all([(_rows(k), _rows(v)) for k, v in states])
            self._extend(torch.ones(k.shape[0], states[0][0].shape[2], dtype=torch.bool))
        return k, v


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself where its rows are contiguous, as the kernels want them, else a copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _config_dtype(config: PreTrainedConfig) -> torch.dtype:
    dtype = getattr(config, "dtype", None) or torch.float32
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def _check_states(states: list[tuple[torch.Tensor, torch.Tensor]], layers: int) -> None:
    if len(states) != layers:
        raise InvalidArgument(f"states has {len(states)} layers where the model has {layers}: give all")
    first = states[0]
    for layer, (k, v) in enumerate(states):
        if k.ndim != 4 or v.ndim != 4 or k.shape[:3] != v.shape[:3]:
            raise InvalidArgument(
                f"layer {layer} of states has K {list(k.shape)} and V {list(v.shape)}: give both as "
                "[rows, kv_heads, tokens, d] with the same rows, heads and tokens"
            )
        if k.shape != first[0].shape or v.shape != first[1].shape:
            raise InvalidArgument(
                f"layer {layer} of states has K {list(k.shape)} and V {list(v.shape)} where layer 0 has "
                f"{list(first[0].shape)} and {list(first[1].shape)}: give every layer the same rows and tokens"
            )
