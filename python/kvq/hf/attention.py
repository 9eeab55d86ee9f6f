# SPDX-License-Identifier: Apache-2.0
"""The attention function that transformers calls under the name "kvq".

K and V that a KVQCache handed out are attended in its packed pages, in place. K and V of any other cache go to
PyTorch's scaled_dot_product_attention, so a model loaded with attn_implementation="kvq" works without a KVQCache too.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from kvq.errors import InvalidArgument, Unsupported
from kvq.hf.cache import HANDLE, Handle
from kvq.hf.model import decoder_layers

# Arguments that change the result, have no kernel here, and are known to PyTorch's attention.
_DENSE_ONLY = {"position_bias": "adds a position bias to its scores"}


class _NoGradient(torch.autograd.Function):
    """Hands attention's result on and refuses the backward pass, which would otherwise miss its share in silence."""

    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise Unsupported("a KVQCache has no gradient: call the model without it, or under torch.no_grad()")


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    handle = _handle(module, key, value, kwargs)
    if handle is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    return _attend_in_place(module, handle, query, key, value, attention_mask, dropout, scaling, kwargs)


# torch.compile leaves it out: what the cache holds is no part of a graph, so that no graph depends on its length.
@torch.compiler.disable
def _attend_in_place(
    module: torch.nn.Module,
    handle: Handle,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
    kwargs: dict[str, Any],
) -> tuple[torch.Tensor, None]:
    _check(module, query, dropout, kwargs)
    if handle.cache.layout is None:
        handle.cache.learn(module.config)
    _check_model(module, handle, kwargs)
    if handle.layer == 0:
        handle.cache.check_positions(kwargs.get("position_ids"))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out = handle.cache.attend(handle.layer, query, key, value, scale, attention_mask, kwargs.get("s_aux"))
    if torch.is_grad_enabled() and (query.requires_grad or handle.gradient):
        # An anchor of its own: query would keep the graph of its layer alive.
        out = _NoGradient.apply(torch.empty(0, requires_grad=True), out)
    return out, None


def _handle(
    module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor, kwargs: dict[str, Any]
) -> Handle | None:
    """The handle of K and V that are to be attended in place, None where K and V are dense."""
    handle: Handle | None = getattr(key, HANDLE, None)
    if handle is None:
        held: Handle | None = getattr(value, HANDLE, None)
        if held is not None:
            held.cache.fall_back(f"{type(module).__name__} changes K between the cache and the attention function")
        return None
    for name, what in _DENSE_ONLY.items():
        if kwargs.get(name) is not None:
            handle.cache.fall_back(f"{type(module).__name__} {what}")
            return None
    return handle


def _check_model(module: torch.nn.Module, handle: Handle, kwargs: dict[str, Any]) -> None:
    """What the module says of itself is what the cache was made for."""
    layout = handle.cache.layout
    assert layout is not None
    config = getattr(module, "config", None)
    layers = decoder_layers(config) if handle.layer == 0 and hasattr(config, "num_hidden_layers") else None
    if layers is not None and layers != len(layout.layers):
        raise InvalidArgument(
            f"the model has {layers} layers where the cache was made for {len(layout.layers)}: make the cache from "
            "this model's config"
        )
    window = layout.layers[handle.layer].window
    # Modules may be told the window of other layers, or not be told theirs; the mask is checked by kvq.hf.padding.
    told = {"softcap": layout.score_cap} | ({"sliding_window": window} if kwargs.get("sliding_window") else {})
    for name, held in told.items():
        given = kwargs.get(name) or 0
        if given != held and not (name == "sliding_window" and held == 0):
            raise InvalidArgument(
                f"layer {handle.layer} of {type(module).__name__} has {name} = {given} where the cache was made for "
                f"{held}: make the cache from this model's config"
            )


def _check(module: torch.nn.Module, query: torch.Tensor, dropout: float, kwargs: dict[str, Any]) -> None:
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise Unsupported(
            f"{type(module).__name__} is not causal: give the decoder of an encoder-decoder model "
            "EncoderDecoderCache(KVQCache(model.config), DynamicCache()), and load other models with "
            "attn_implementation=\"sdpa\""
        )
    if dropout or (module.training and torch.is_grad_enabled() and query.requires_grad):
        raise Unsupported("a KVQCache has no gradient and no dropout: call model.eval() or train without a cache")
