# SPDX-License-Identifier: Apache-2.0
"""KVQCache: a transformers Cache whose K and V live packed in pages.

With attn_implementation="kvq" nothing dense is ever rebuilt: `update` only marks the new K and V with the layer they
belong to, and the attention function (kvq.hf.attention) stores and attends them in one call. With any other attention
implementation the cache still works by handing dense tensors back, and says so once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from kvq import lowlevel
from kvq.errors import FailedPrecondition, InvalidArgument
from kvq.hf.batch import PackedBatch, check_tensors
from kvq.hf.formats import Formats, FormatSpec
from kvq.hf.layer import KVQLayer
from kvq.hf.maker import PoolMaker, check_page_tokens
from kvq.hf.model import ModelLayout
from kvq.hf.padding import KeptTokens, leading_pads
from kvq.hf.raw import attend_new, merge

HANDLE = "_kvq_handle"  # attribute of the tensors that `update` returns
PREFILLS = ("stored", "raw")
LONGEST_HEAD = 256  # channels (format-spec text_c2, page_c1)


@dataclass(frozen=True)
class Handle:
    """Says to the attention function where K and V belong."""

    cache: KVQCache
    layer: int
    gradient: bool = False  # whether K or V, which the cache detaches, had a gradient


class KVQCache(Cache):
    """A quantized KV cache for `generate(past_key_values=...)`.

    A cache serves one generate() after another (several turns of a chat), not two at once; `fork()` shares what is
    stored with another cache. All methods raise kvq.Error classes, and leave the cache as it was when they do.

    Args:
        config: the model's config. None: layers and sizes are learned in the first forward.
        format: a preset such as "kivi-2", a text such as "k4c32-v2t32/w128,block" (docs/format-spec.md section 1), a
            list with one for each layer, a file of such a list (.json, .txt), or a function (layer, dk, dv) -> text.
        prefill: "stored": each query sees what decoding would have shown it, however a prompt is cut into calls.
            "raw": tokens of one call see each other in full precision, as in the methods' papers (format-spec section 9).
        accuracy: how exact the arithmetic of attention is, "full", "exact", "normal" or "fast" (format-spec attention_c4); None:
            the default class. What is stored does not depend on it.
        keep_first: tokens at the begin that stay in full precision; None leaves it to the format's `keepS`.
        device: "cpu" (kernels generated for this CPU) or "ref" (the scalar reference: slow, for debugging).
        level: CPU level to generate for; None: the best of this machine.
        threads: of kvq's kernels; 0 for all that the process may use.
        page_tokens: tokens of a page; 0 for the default of the format.
        store_dir: folder of compiled kernels; None: the user's cache folder.
        frozen: never compile; a kernel that is not in the store is an error.
        context: an existing lowlevel.Context in place of device, level, threads, store_dir and frozen.
    """

    def __init__(
        self,
        config: PreTrainedConfig | None = None,
        format: FormatSpec = "kivi-2",
        *,
        prefill: str = "stored",
        accuracy: str | None = None,
        keep_first: int | None = None,
        device: str = "cpu",
        level: str | None = None,
        threads: int = 0,
        page_tokens: int = 0,
        store_dir: str | None = None,
        frozen: bool = False,
        context: lowlevel.Context | None = None,
    ) -> None:
        if prefill not in PREFILLS:
            raise InvalidArgument(f"prefill is {prefill!r}: use \"stored\" or \"raw\"")
        self.prefill = prefill
        self.accuracy = lowlevel.check_accuracy(accuracy)
        self.formats = Formats(format, keep_first)
        self.context = context or lowlevel.shared_context(device, level, threads, store_dir, frozen)
        self.page_tokens = page_tokens
        self.layout: ModelLayout | None = None
        self.packed: PackedBatch | None = None
        self._kept: KeptTokens | None = None  # which tokens were stored, of all that came
        self._new: int | None = None  # tokens of the step that is open, padding included
        self._pads: list[int] = []  # padding of each row in that step
        self._waiting: int | None = None  # layer whose K and V were handed out and not yet attended
        self._dense: list[tuple[torch.Tensor, torch.Tensor]] = []  # new K and V while a dense forward runs
        self._obstacle: str | None = None  # why the model cannot attend in place though its attention is "kvq"
        self._warned = False
        super().__init__(layers=[])
        if config is not None:
            self._bind(config)

    def _bind(self, config: PreTrainedConfig) -> None:
        """Learns the model."""
        layout = ModelLayout(config)
        self.formats.check_layers(len(layout.layers))
        check_page_tokens(self.formats.text, self.page_tokens)
        self.layout = layout
        self.layers = [KVQLayer(self, index, layer.window) for index, layer in enumerate(layout.layers)]

    # -- what a user asks --------------------------------------------------------------------------------------------

    @property
    def config(self) -> PreTrainedConfig | None:
        """The decoder's part of the model's config, once it is known."""
        return self.layout.config if self.layout else None

    @property
    def format(self) -> str | list[str]:
        """Canonical text of the format; a list where layers differ, once the head sizes are known."""
        if self.formats.text is not None:
            return self.formats.text
        texts = [group.pool.kind.format for group in map(self._settled().group, range(len(self.layers)))]
        return texts[0] if len(set(texts)) == 1 else texts

    @property
    def padded_length(self) -> int:
        """Tokens that transformers has passed in, padding included."""
        self._settle()
        return 0 if self._kept is None else self._kept.tokens

    @property
    def lengths(self) -> list[int]:
        """Tokens stored for each row, without padding."""
        self._settle()
        return list(self.packed.lengths) if self.packed is not None and self.padded_length else []

    @property
    def is_in_place(self) -> bool:
        """Whether attention reads the packed pages: attn_implementation is "kvq", and the model hands K and V on as
        the cache gave them."""
        return self.layout is not None and self.layout.is_in_place and self._obstacle is None

    def report(self) -> dict[str, float]:
        """Measured bytes of all layers: lowlevel.Cache.report summed over the groups of layers that are alike, and
        `thawed_tokens`, what cropping has dequantized so far. Rows of forks that share the pools are in it."""
        return sum_reports([group.cache.report() for group in self._settled().groups], self._settled())

    def kernels(self) -> list[dict[str, Any]]:
        """The kernels of the context: name, source, key, compile_ms, object_bytes."""
        return self.context.kernels()

    def prepare(
        self,
        dtype: torch.dtype | None = None,
        rows: int = 1,
        progress: Callable[[dict[str, Any]], None] | None = None,
        targets: Sequence[str] | None = None,
    ) -> None:
        """Compiles or loads all kernels that a model of this config and dtype needs; progress is called for each.
        dtype None is the config's, or float32 where that has none. targets: those of other machines, such as
        ["nvptx:sm_90", "x86-64-v4"], for which kernels go into the kernel store and are not loaded."""
        layout = self._layout()
        dtype = dtype or layout.dtype
        if self.packed is not None and self.padded_length and dtype != self.packed.dtype:
            raise InvalidArgument(f"dtype is {dtype} where the cache holds {self.packed.dtype}: call reset() first")
        k, v = _empty(layout, dtype, rows)
        check_tensors(k, v)
        for part in self._maker.partition(len(self.layers), k, v):
            self._maker.make(part, part[0], layout.q_heads, k, v).cache.prepare(progress, targets)

    def caches(self) -> list[lowlevel.Cache]:
        """The caches of layers that are alike, once the first forward has made them."""
        return [group.cache for group in self._settled().groups] if self.packed is not None else []

    def refresh_kernels(self) -> None:
        """Takes the schedules that were chosen since the kernels were opened (docs/tuning.md). Between forwards."""
        if self.packed is None:
            return
        for group in self._settled().groups:
            with group.pool.lock:
                group.cache.refresh_kernels()

    def load(self, states: list[tuple[torch.Tensor, torch.Tensor]], mask: torch.Tensor | None = None) -> None:
        """Appends K and V [rows, kv_heads, tokens, d] of every layer, which another cache of this model computed.
        mask [rows, tokens] is 0 at padding, which stands in front; None: there is none."""
        _check_states(states, len(self.layers))
        self._begin(states[0][0], states[0][1])
        first = states[0][0]
        new = torch.ones(first.shape[0], first.shape[2], dtype=torch.bool) if mask is None else mask.bool()
        _check_load_mask(new, first)
        counts = new.sum(dim=1).tolist()
        self._packed().append_all([(k.detach(), v.detach()) for k, v in states], self._q_heads(first), counts)
        self._extend(first.shape[2], [first.shape[2] - count for count in counts])

    def reset(self) -> None:
        """Removes all rows and their memory."""
        if self.packed is not None:
            self.packed.abort()
        self.packed = self._kept = self._new = self._waiting = None
        self._dense = []

    # -- rows and tokens ---------------------------------------------------------------------------------------------

    def crop(self, tokens_to_remove: int) -> int:
        """Takes back the last -tokens_to_remove tokens of every row, padding counted; 0 changes nothing. Up to 32 come
        off without loss; further back what is left only as codes is dequantized into the window once (format-spec
        section 8). Returns the number of such tokens."""
        if tokens_to_remove > 0:
            raise InvalidArgument(f"crop takes minus the number of tokens to remove, not {tokens_to_remove}")
        length = self.padded_length
        if tokens_to_remove == 0 or length == 0:
            return 0
        if -tokens_to_remove > length:
            raise InvalidArgument(f"crop({tokens_to_remove}) removes more than the {length} tokens of the cache")
        assert self._kept is not None
        left = length + tokens_to_remove
        thawed = self._packed().crop([left - padding for padding in self._kept.cropped_padding(left)])
        self._kept.crop(left)
        return thawed

    def select(self, indices: Sequence[int] | torch.Tensor) -> None:
        """Row i becomes what row indices[i] was: reordering, repeating and leaving out of rows. Rows that come twice
        share what is stored until one of them writes to it."""
        rows = len(self.lengths)
        chosen = [int(index) for index in indices]
        if not rows:
            return
        if not chosen or not all(-rows <= index < rows for index in chosen):
            raise InvalidArgument(f"rows {chosen} do not exist: the cache has rows 0 to {rows - 1}")
        chosen = [index % rows for index in chosen]
        assert self._kept is not None
        if chosen != list(range(rows)):
            self._packed().select(chosen)
            self._kept.select(chosen)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Beam search: select(beam_idx)."""
        self.select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.select([row for row in range(len(self.lengths)) for _ in range(repeats)])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if indices.dtype == torch.bool:
            indices = indices.nonzero().flatten()
        self.select(indices)

    def fork(self) -> KVQCache:
        """A cache in the same state, for another continuation. Pages are shared until one of the two writes to them;
        the window is copied. The two may not run forwards at the same time in different threads."""
        self._settle()
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.layers = [KVQLayer(other, layer.index, layer.window) for layer in self.layers]
        other.packed = self.packed.fork() if self.packed is not None else None
        other._kept = self._kept.copy() if self._kept is not None else None
        other._new = other._waiting = None
        other._dense = []
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> KVQCache:
        return self.fork()

    def save(self, path: str | os.PathLike) -> int:
        """Writes the cache to a file, whole or not at all; returns its bytes. See open()."""
        from kvq.hf.snapshot import save

        return save(self, path)

    def restore_rows(self, dtype: torch.dtype, kept: torch.Tensor, lengths: list[int]) -> None:
        """What kvq.hf.snapshot needs: rows of these lengths, whose groups it opens and fills itself."""
        layers = self._maker.partition(len(self.layers), *_empty(self._layout(), dtype))
        self.packed = PackedBatch(layers, self._maker, dtype, len(lengths))
        self.packed.lengths = list(lengths)
        self._kept = KeptTokens(kept)

    @classmethod
    def open(cls, path: str | os.PathLike, config: PreTrainedConfig, **options: Any) -> KVQCache:
        """The cache that save() wrote, for the same model (its config), in the same state. `options` are accuracy,
        device, level, threads, store_dir, frozen and context. kvq.Corrupt: damaged, or of another version."""
        from kvq.hf.snapshot import load

        return load(cls, path, config, options)

    # -- what transformers and the attention function call -----------------------------------------------------------

    @torch.compiler.disable
    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.layout is None and self.packed is None and layer_idx == len(self.layers):
            self.layers.append(KVQLayer(self, layer_idx))
        if not 0 <= layer_idx < len(self.layers):
            raise InvalidArgument(
                f"layer {layer_idx} does not exist: the cache was made for {len(self.layers)} layers, make it from "
                "this model's config"
            )
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    @torch.compiler.disable
    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.padded_length

    @torch.compiler.disable
    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        if layer_idx >= len(self.layers):
            return query_length, 0
        return self.layers[layer_idx].get_mask_sizes(query_length)

    def update_layer(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if layer == 0:
            self._begin(k, v)
        if self.layout is None and self.packed is None:
            return self._update_unknown(layer, k, v)
        if not self.is_in_place:
            return self._update_dense(layer, k, v)
        if self._waiting is not None:
            self.fall_back("K and V of its layers never reach the attention function \"kvq\" as the cache gave them")
            return self._update_dense(layer, k, v)
        self._waiting = layer
        if not self.padded_length and layer == 0:
            self._dense = [(k.detach(), v.detach())]  # until it is attended
        return self._mark(layer, k, v)

    def fall_back(self, obstacle: str) -> None:
        """The model cannot attend in place, as its first layer shows: K and V of the first forward went out as they
        came, which is all there is, and are still to be stored."""
        waiting, self._waiting = self._waiting, None
        if not self._dense:
            self._packed().abort()
            raise FailedPrecondition(
                f"K and V of layer {waiting} were not attended in place, which those of earlier forwards were: "
                f"{obstacle}; reset() the cache"
            )
        self._obstacle = obstacle

    def _mark(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = k.requires_grad or v.requires_grad
        # Detached: a graph through the cache would keep every step's K and V alive.
        k, v = k.detach(), v.detach()
        handle = Handle(self, layer, gradient)
        setattr(k, HANDLE, handle)
        setattr(v, HANDLE, handle)
        return k, v

    def _begin(self, k: torch.Tensor, v: torch.Tensor) -> None:
        """A forward begins."""
        check_tensors(k, v)
        self._settle()
        if self._waiting is not None and self._dense and len(self.layers) == 1:
            self.fall_back("K and V of its layer never reach the attention function \"kvq\" as the cache gave them")
            self._store_dense()
        if self.packed is not None:
            self.packed.begin_forward()
        self._new = self._waiting = None
        self._dense = []
        if not self.padded_length:  # rows that a first forward that failed has made bind nobody
            self.packed = self._kept = None
        if self.packed is not None:
            self.packed.check(k)
        elif self.layout is not None:
            self.packed = self._new_batch(k, v)
        if self._kept is None:
            self._kept = KeptTokens(torch.empty(k.shape[0], 0, dtype=torch.bool))

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        mask: torch.Tensor | None,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Stores k and v, attends q over the whole cache and returns [B, T, Hq, D]."""
        self._waiting = None
        self._dense = []
        packed = self._packed()
        rows, heads, tokens, _ = q.shape
        if layer == 0:
            self._open_step(mask, tokens)
        # Kernels leave rows of padding as they are; what later layers compute from them must be finite.
        make = torch.zeros if any(self._pads) else torch.empty
        out = make(rows, tokens, heads, v.shape[-1], dtype=q.dtype)
        q, k, v = _rows(q.detach()), _rows(k), _rows(v)
        if sinks is not None:
            group = packed.open(layer, heads, k, v)
            group.pool.set_sinks(group.local[layer], sinks)
        if self.prefill == "raw" and tokens > 1:
            out = self._attend_raw(layer, q, k, v, scale, out)
        else:
            packed.forward(layer, q, k, v, scale, out.transpose(1, 2))
        if not packed.is_open and self._new is not None:
            self._extend(self._new, self._pads)
        return out

    def check_positions(self, positions: torch.Tensor | None) -> None:
        """Tokens whose positions [rows, new tokens] are taken belong to a generate() that does not know of all that is
        in the cache. Models that count positions in another way pass none, or three of them."""
        lengths = self._packed().lengths
        if positions is None or positions.ndim != 2:
            return
        ends = positions[:, -1].expand(len(lengths)).tolist()
        if any(end < length for end, length in zip(ends, lengths, strict=True)):
            self._packed().abort()
            self._waiting = None
            raise FailedPrecondition(
                f"the new tokens end at position {min(ends)} where the cache holds {max(lengths)} tokens already: let "
                "one generate() end before another uses the cache, or fork() it"
            )

    def _attend_raw(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, out: torch.Tensor
    ) -> torch.Tensor:
        """prefill_c2: the past through the packed pages, the new tokens as they came, merged."""
        packed = self._packed()
        lse = torch.full((q.shape[0], q.shape[1], q.shape[2]), -torch.inf)
        packed.forward(layer, q, k, v, scale, out.transpose(1, 2), lse)
        kind = packed.group(layer).pool.kind
        new = attend_new(q, k, v, scale, self._pads, kind.attention_window, kind.score_cap)
        return merge((out.transpose(1, 2).float(), lse), new).transpose(1, 2).to(q.dtype)

    def _open_step(self, mask: torch.Tensor | None, tokens: int) -> None:
        assert self._kept is not None
        self._pads = leading_pads(mask, self._kept, tokens, self.layers[0].window)
        self._new = tokens
        raw = self.prefill == "raw" and tokens > 1
        self._packed().plan([tokens - pad for pad in self._pads], past_only=raw)

    def _extend(self, tokens: int, pads: list[int]) -> None:
        if self._kept is None:
            self._kept = KeptTokens(torch.empty(len(pads), 0, dtype=torch.bool))
        self._kept.append(tokens, pads)
        self._new = None

    # -- dense tensors for other attention functions -----------------------------------------------------------------

    def _update_dense(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Padding is stored as any token, since other functions mask it themselves; tokens of one call see each other
        unquantized."""
        self._warn_dense()
        packed = self._packed()
        lengths = packed.lengths
        if len(set(lengths)) > 1 or lengths[0] != self.padded_length:
            raise FailedPrecondition(
                "the cache holds rows stripped of their padding, which only attn_implementation=\"kvq\" can attend: "
                "set it back, or reset() the cache"
            )
        self._dense.append((k.detach(), v.detach()))
        if lengths[0]:
            window = self.layers[layer].window
            read = packed.read(layer, max(0, lengths[0] - window + 1) if window else 0)
            old_k, old_v = (_joined(old, new.shape[1]) for old, new in zip(read, (k, v), strict=True))
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        if layer == len(self.layers) - 1:
            self._store_dense()
        return k, v

    def _update_unknown(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first forward of a cache that was made without a config. K and V go out as they came, which is all that
        there is; marked, in case that attention is "kvq" and tells the config."""
        if layer:
            self._warn_dense()
        self._dense.append((k.detach(), v.detach()))
        return self._mark(layer, k, v)

    def learn(self, config: PreTrainedConfig) -> None:
        """The attention function "kvq" got K and V of the first layer and says whose they are."""
        (k, v), self._dense = self._dense[0], []
        self._bind(config)
        self._begin(k, v)

    def _settle(self) -> None:
        """Ends the first forward of a cache without a config: only what comes after it shows how many layers it had."""
        if self.layout is None and self.packed is None and self._dense:
            k, v = self._dense[0]
            self.formats.check_layers(len(self._dense))
            self.packed = self._new_batch(k, v)
            self._store_dense()

    def _store_dense(self) -> None:
        states, self._dense = [_split(k, v) for k, v in self._dense], []
        first = states[0][0]
        counts = [first.shape[2]] * first.shape[0]
        self._packed().append_all([(_rows(k), _rows(v)) for k, v in states], self._q_heads(first), counts)
        self._extend(first.shape[2], [0] * first.shape[0])

    def _warn_dense(self) -> None:
        if not self._warned:
            self._warned = True
            cost = (
                "KVQCache rebuilds dense K and V in every layer and step, which is slow and needs memory, and tokens of "
                "one call see each other in full precision"
            )
            implementation = self.config._attn_implementation if self.config is not None else "not kvq"
            if self._obstacle is not None:
                said = f"this model cannot be attended in place: {self._obstacle}; {cost}"
            else:
                said = (
                    f"attn_implementation is \"{implementation}\": {cost}; load the model with "
                    "attn_implementation=\"kvq\", or call model.set_attn_implementation(\"kvq\")"
                )
            warnings.warn(said, stacklevel=2)

    # -- memory ------------------------------------------------------------------------------------------------------

    @property
    def _maker(self) -> PoolMaker:
        return PoolMaker(self.context, self.formats, self.page_tokens, self.layout, self.accuracy)

    def _new_batch(self, k: torch.Tensor, v: torch.Tensor) -> PackedBatch:
        maker = self._maker
        return PackedBatch(maker.partition(len(self.layers), k, v), maker, k.dtype, k.shape[0])

    def _layout(self) -> ModelLayout:
        if self.layout is None:
            raise FailedPrecondition("the model is not known yet: make the cache from model.config, or run it once")
        return self.layout

    def _q_heads(self, k: torch.Tensor) -> int:
        heads = self.layout.q_heads if self.layout else k.shape[1]
        return heads if heads % k.shape[1] == 0 else k.shape[1]

    def _packed(self) -> PackedBatch:
        if self.packed is None:
            raise FailedPrecondition("the cache has no memory before the first forward: run the model first")
        return self.packed

    def _settled(self) -> PackedBatch:
        self._settle()
        packed = self._packed()
        if not packed.groups:
            raise FailedPrecondition("the cache has no memory before the first forward: run the model first")
        return packed


def sum_reports(reports: list[dict[str, float]], packed: PackedBatch) -> dict[str, float]:
    """One report of several pools. Tokens and sequences are those of one layer; bytes and blocks add up."""
    total = {name: sum(report[name] for report in reports) for name in reports[0]}
    total["tokens"], total["sequences"] = reports[0]["tokens"], reports[0]["sequences"]
    kinds = [(group.pool.kind, len(group.layers)) for group in packed.groups]
    elements = sum(reports[0]["tokens"] * layers * kind.kv_heads * (kind.dk + kind.dv) for kind, layers in kinds)
    total["bits_per_element"] = 8.0 * total["bytes_used"] / elements if elements else 0.0
    total["thawed_tokens"] = packed.thawed
    return total


def _empty(layout: ModelLayout, dtype: torch.dtype, rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """K and V of no token, of the sizes that the config says."""
    kv_heads, dk, dv = layout.sizes()
    return tuple(torch.empty(rows, kv_heads, 0, size, dtype=dtype) for size in (dk, dv))


def _split(k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """K and V with heads that are longer than a page takes (latent vectors of MLA models) cut into several."""
    parts = next((n for n in (1, 2, 4, 8) if max(k.shape[-1], v.shape[-1]) <= n * LONGEST_HEAD), 1)
    return tuple(x.unflatten(-1, (parts, -1)).permute(0, 1, 3, 2, 4).flatten(1, 2) if parts > 1 else x for x in (k, v))


def _joined(stored: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows as they were before _split, given how many heads there were."""
    parts = stored.shape[1] // heads
    return stored.unflatten(1, (heads, parts)).permute(0, 1, 3, 2, 4).flatten(3) if parts > 1 else stored


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself where its rows are contiguous, as the kernels want them, else a copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _check_load_mask(mask: torch.Tensor, k: torch.Tensor) -> None:
    rows, tokens = k.shape[0], k.shape[2]
    if mask.shape != (rows, tokens):
        raise InvalidArgument(f"mask has shape {list(mask.shape)}: give [{rows}, {tokens}], one entry for each token")
    if not torch.equal(mask, torch.arange(tokens) >= (~mask).sum(dim=1, keepdim=True)):
        raise InvalidArgument("mask has padding behind or between the tokens of a row: pad in front")


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

