# SPDX-License-Identifier: Apache-2.0
"""The model of a cache inside transformers: every way of generate() over CacheModel, one layer of a model at a time.

    hf_cache.register()
    model.set_attn_implementation(hf_cache.NAME)
    model.generate(ids, past_key_values=OracleCache(model.config, "kivi-4"), ...)

A layer's window, score cap and sink logits are what the model hands to its attention; padding is read off the mask.
"""

import numpy as np
import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from .cache import CacheModel
from .text import Cache as Format

NAME = "kvq_oracle_cache"
DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


class OracleLayer(CacheLayerMixin):
    """K and V of one layer. A row of the batch is a sequence of `model`; a column is a position of the padded batch."""

    is_sliding = False  # columns are never dropped from the mask, whatever the cache drops
    is_croppable = True

    def __init__(self, format, raw, page_tokens):
        super().__init__()
        self.format, self.raw, self.page_tokens = format, raw, page_tokens
        self.thawed = 0
        self.reset()

    def reset(self):
        self.model, self.rows = None, []
        self.real = np.zeros((0, 0), bool)  # [rows, columns]: no padding
        self.pending = None

    def lazy_initialization(self, key_states, value_states):
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if self.pending is not None:
            raise RuntimeError(f"The last update was never attended to; call set_attn_implementation('{NAME}').")
        self.is_initialized = True
        key, value = key_states.detach().clone(), value_states.detach().clone()
        key.kvq_oracle, self.pending = self, value
        return key, value

    def get_seq_length(self):
        return self.real.shape[1]

    def get_mask_sizes(self, query_length):
        return self.get_seq_length() + query_length, 0

    def get_max_length(self):
        return -1

    @property
    def batch_size(self):
        return len(self.rows)

    @property
    def lengths(self):
        return [self.model.length(row) for row in self.rows]

    def crop(self, tokens_to_remove):
        if tokens_to_remove > 0:
            raise ValueError(f"crop removes -{tokens_to_remove} tokens; give a negative number.")
        if tokens_to_remove == 0 or self.model is None:
            return
        self.real = self.real[:, :tokens_to_remove]
        for row, real in zip(self.rows, self.real):
            self.thawed += self.model.crop(row, int(real.sum()))

    def _select(self, rows):
        """The rows with these numbers, in this order, as often as they are named."""
        if self.model is None:
            return
        forks = [self.model.fork(self.rows[row]) for row in rows]
        for row in self.rows:
            self.model.remove(row)
        self.rows, self.real = forks, self.real[rows]

    def reorder_cache(self, beam_idx):
        self._select(beam_idx.tolist())

    def batch_select_indices(self, indices):
        self._select(np.arange(len(self.rows))[np.asarray(indices)].tolist())

    def batch_repeat_interleave(self, repeats):
        self._select([row for row in range(len(self.rows)) for _ in range(repeats)])

    def attend(self, query, key, value, mask, scale, **options):
        """[B, Lq, Hq, Dv]: appends the columns and answers them; padding's rows are zero."""
        batch, q_heads, queries, dk = query.shape
        if self.model is None:
            shape = 1, q_heads, key.shape[1], dk, value.shape[-1]
            self.model = CacheModel(self.format, *shape, DTYPES[key.dtype], self.page_tokens, **options)
            self.rows = [self.model.add() for _ in range(batch)]
            self.real = np.zeros((batch, 0), bool)
        new = self._new_columns(mask, batch, queries)
        parts = ([x[row].detach().float().numpy()[:, new[row]] for row in range(batch)] for x in (query, key, value))
        (answers,) = self.model.step(self.rows, [tuple(parts)], scale, self.raw)
        self.real, self.pending = np.concatenate([self.real, new], axis=1), None
        out = np.zeros((batch, queries, q_heads, value.shape[-1]))
        for row, (o, _) in enumerate(answers):
            out[row, new[row]] = o.transpose(1, 0, 2)
        return torch.from_numpy(out).to(query.dtype)

    def _new_columns(self, mask, batch, queries):
        """Which of the new columns are tokens: those that see themselves. The mask must hide nothing else."""
        if batch != len(self.rows):
            raise ValueError(f"The batch has {batch} rows; the cache holds {len(self.rows)}.")
        columns = self.get_seq_length()
        total = columns + queries
        if mask is None:
            return np.ones((batch, queries), bool)
        mask = mask.expand(batch, 1, queries, total)[:, 0].numpy()
        new = mask[:, np.arange(queries), columns + np.arange(queries)]
        real = np.concatenate([self.real, new], axis=1)
        distance = np.arange(columns, total)[:, None] - np.arange(total)
        window = self.model.rules.attention_window or total
        expected = (distance >= 0) & (distance < window) & real[:, None]
        if not (mask == expected)[new].all():
            raise ValueError("The attention mask is not that of padding and the model's window.")
        return new


class OracleCache(Cache):
    """formats: a cache text for all layers or one for each. prefill: "stored" or "raw" (spec section 9)."""

    def __init__(self, config, formats, prefill="stored", page_tokens=0):
        layers = config.get_text_config(decoder=True).num_hidden_layers
        formats = [formats] * layers if isinstance(formats, (str, Format)) else list(formats)
        if len(formats) != layers:
            raise ValueError(f"{len(formats)} formats are given for {layers} layers.")
        raw = {"stored": False, "raw": True}[prefill]
        super().__init__(layers=[OracleLayer(format, raw, page_tokens) for format in formats])

    @property
    def lengths(self):
        """Tokens of each row, without padding."""
        return self.layers[0].lengths

    @property
    def thawed(self):
        """Tokens that crops have thawed, summed over rows, of the layer with most."""
        return max(layer.thawed for layer in self.layers)

    def reports(self):
        """Per layer what CacheModel.report says."""
        return [layer.model.report() for layer in self.layers]


def _dense(query, key, value, mask, scale, score_cap, sinks):
    """Ordinary attention, for models that attend without this cache (cross attention, use_cache=False)."""
    ratio = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(ratio, dim=1).double() for x in (key, value))
    scores = scale * (query.double() @ key.transpose(-1, -2))
    if score_cap:
        scores = score_cap * torch.tanh(scores / score_cap)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    keys = scores.shape[-1]
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(*scores.shape[:-1], 1)], dim=-1)
    return (torch.softmax(scores, dim=-1)[..., :keys] @ value).transpose(1, 2).to(query.dtype)


def attention_forward(
    module, query, key, value, attention_mask, scaling=None, sliding_window=None, softcap=None, s_aux=None, **kwargs
):
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = getattr(key, "kvq_oracle", None)
    if layer is None:
        return _dense(query, key, value, attention_mask, scale, softcap, s_aux), None
    sinks = None if s_aux is None else s_aux.detach().float().numpy()[None]
    options = dict(attention_window=sliding_window or 0, score_cap=softcap or 0.0, sinks=sinks)
    return layer.attend(query, key, value, attention_mask, scale, **options), None


def register():
    """Makes NAME known to transformers as an attention implementation."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def always_a_mask(*args, **kwargs):
        return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})

    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, always_a_mask)
