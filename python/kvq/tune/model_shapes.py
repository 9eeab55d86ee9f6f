# SPDX-License-Identifier: Apache-2.0
"""The shapes of a model's layers out of its config.json. kvq.hf.model reads more of it, with transformers; a sweep
needs neither transformers nor the model's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvq.errors import InvalidArgument, Unsupported
from kvq.tune.kernel_requests import DTYPES, Shape

_KINDS = ("full_attention", "sliding_attention")


def from_config_file(path: Path) -> list[Shape]:
    """One shape for each kind of layer that the model has: with a window and without."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read ({error}): name a model's config.json") from error
    try:
        return from_config(config)
    except KeyError as error:
        raise InvalidArgument(f"{path} has no {error}: is it a language model's config.json?") from error
    except Unsupported as error:
        raise Unsupported(f"{path}: {error}") from error


def from_config(config: Mapping[str, Any]) -> list[Shape]:
    text = config.get("text_config") or config
    if text.get("kv_lora_rank") is not None:
        raise Unsupported(
            "the model has latent attention (kv_lora_rank), whose cache is not attended in place: leave it out"
        )
    q_heads = int(text["num_attention_heads"])
    size = int(text.get("head_dim") or text["hidden_size"] // q_heads)
    said = (each.get(name) for each in (text, config) for name in ("dtype", "torch_dtype"))
    dtype = next(filter(None, said), "float32")
    if dtype not in DTYPES:
        raise Unsupported(f"the model's dtype is {dtype}: kvq has kernels for {', '.join(DTYPES)}")
    common = {
        "q_heads": q_heads, "kv_heads": int(text.get("num_key_value_heads") or q_heads), "dk": size, "dv": size,
        "dtype": DTYPES[dtype], "score_cap": bool(text.get("attn_logit_softcapping")),
    }  # fmt: skip
    return [Shape(**common, window=window) for window in _windows(text)]


def _windows(text: Mapping[str, Any]) -> list[int]:
    """Windows of the kinds of layers, 0 for those that see all."""
    window = int(text.get("sliding_window") or 0)
    types = text.get("layer_types")
    if types is None:
        return [window if text.get("use_sliding_window") is not False else 0]
    if foreign := sorted(set(types) - set(_KINDS)):
        raise Unsupported(f"the model has layers of type {foreign[0]}: kvq holds those of {' and '.join(_KINDS)}")
    return [window if kind == "sliding_attention" else 0 for kind in _KINDS if kind in types]
