# SPDX-License-Identifier: Apache-2.0
"""The face of KIVI (arXiv 2402.02750): `LlamaForCausalLM_KIVI`, `MistralForCausalLM_KIVI` and options on the config.

    config.k_bits, config.v_bits, config.group_size, config.residual_length = 2, 2, 32, 128
    model = LlamaForCausalLM_KIVI.from_pretrained(name, config=config)

K is quantized per channel and V per token, always. The models are transformers' own, unchanged, with
attn_implementation="kvq"; `generate` and `forward` use a KVQCache of the config's format where no other cache is given.
Option by option: docs/drop-in.md. KIVI's own module names, `models.llama_kivi` and `models.mistral_kivi`, come with
`import kvq.compat.shim`.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM, MistralForCausalLM, PreTrainedConfig

from kvq.compat import options
from kvq.compat.options import Recipe
from kvq.errors import InvalidArgument, Unsupported
from kvq.hf import KVQCache

FULL_PRECISION = 16  # k_bits and v_bits of KIVI's baseline
PLACED_BY_ACCELERATE = ("auto", "balanced", "balanced_low_0", "sequential")
# Arguments of KIVI's scripts that its code never reads, and the one value of each that is what happens.
FIXED = {"k_quant_dim": "channel", "v_quant_dim": "token", "w_bit": 16}


def cache_text(config: PreTrainedConfig) -> str | None:
    """The cache text that KIVI's options on a model's config ask for; None for its baseline of 16 bits."""
    bits = {name: _option(config, name) for name in ("k_bits", "v_bits")}
    group, window = _option(config, "group_size"), _option(config, "residual_length")
    _check_fixed(config)
    full = [name for name, value in bits.items() if value == FULL_PRECISION]
    if len(full) == 2:
        return None
    if full:
        other = "v_bits" if full[0] == "k_bits" else "k_bits"
        raise Unsupported(
            f"{full[0]} is 16 beside {other} = {bits[other]}: kvq quantizes K and V or neither, the nearest is "
            f"{full[0]} = 8"
        )
    recipe = Recipe(
        widths=((options.width("k_bits", bits["k_bits"]), options.width("v_bits", bits["v_bits"])),),
        axes=("c", "t"),
        group=group,
        window=window,
        rule="sliding",
        group_option="group_size",
    )
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return recipe.texts(size, size)[0]


def _option(config: PreTrainedConfig, name: str) -> int:
    value = getattr(config, name, None)
    if value is None:
        raise InvalidArgument(
            f"config.{name} is not set: KIVI reads k_bits, v_bits, group_size and residual_length from the config"
        )
    return options.integer(name, value)


def _check_fixed(config: PreTrainedConfig) -> None:
    if not options.flag("use_flash", getattr(config, "use_flash", True)):
        raise Unsupported("use_flash is False: KIVI asserts that it is True, set it or leave it out")
    for name, only in FIXED.items():
        value = getattr(config, name, only)
        if value != only:
            raise Unsupported(f"{name} is {value!r}: KIVI never reads it and behaves as with {only!r}, leave it out")


def place(device_map: Any) -> None:
    """Accepts a device_map that means the CPU, as what accelerate would choose does here: said where there is a GPU."""
    if device_map is None:
        return
    if isinstance(device_map, str) and device_map in PLACED_BY_ACCELERATE:
        if torch.cuda.is_available():
            warnings.warn(
                f'device_map is "{device_map}" and there is a GPU: this version of kvq runs on the CPU, where the '
                "model is loaded",
                stacklevel=3,
            )
        return
    for part in device_map.values() if isinstance(device_map, dict) else [device_map]:
        if part in ("disk", "meta") or isinstance(part, int):
            raise Unsupported(
                f"device_map is {device_map!r}: this version of kvq runs on the CPU with the whole model in memory, "
                'give "cpu"'
            )
        options.cpu_device("device_map", part)


def _with_cache(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` that makes the model's own cache where the caller gives none and wants one."""
    signature = inspect.signature(forward)

    @functools.wraps(forward)
    def wrapped(self: KIVIModel, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(self, *args, **kwargs).arguments
        use_cache = given.get("use_cache")
        if given.get("past_key_values") is None and (self.config.use_cache if use_cache is None else use_cache):
            position = list(signature.parameters).index("past_key_values") - 1  # among args, which lack self
            if position < len(args):
                args = (*args[:position], self.new_cache(), *args[position + 1 :])
            else:
                kwargs["past_key_values"] = self.new_cache()
        return forward(self, *args, **kwargs)

    return wrapped


class KIVIModel:
    """What KIVI adds to a causal model of transformers: options on its config, and a cache by default."""

    config: PreTrainedConfig
    generation_config: GenerationConfig

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        cache_text(config)
        if config._attn_implementation is None:
            config._attn_implementation = "kvq"
        super().__init__(config, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """transformers' from_pretrained, on the CPU; device_map="auto" needs no accelerate."""
        place(kwargs.pop("device_map", None))
        kwargs.setdefault("attn_implementation", "kvq")
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)  # type: ignore[misc]

    def new_cache(self) -> KVQCache | None:
        """An empty cache as the config's options say, or None for the baseline of 16 bits."""
        text = cache_text(self.config)
        return None if text is None else KVQCache(self.config, text, prefill="raw")

    def generate(
        self, inputs: Any = None, generation_config: GenerationConfig | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """transformers' generate, with `new_cache()` where no past_key_values are given and use_cache is not False."""
        if kwargs.get("past_key_values") is None and self._wants_cache(generation_config, kwargs):
            kwargs["past_key_values"] = self.new_cache()
        return super().generate(inputs, generation_config, *args, **kwargs)  # type: ignore[misc]

    def _wants_cache(self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> bool:
        if cache_text(self.config) is None:
            return False
        sources = [kwargs, *(vars(s) for s in (generation_config, self.generation_config) if s is not None)]

        def asked(name: str) -> Any:
            return next((source[name] for source in sources if source.get(name) is not None), None)

        if (kind := asked("cache_implementation")) is not None:
            raise InvalidArgument(
                f"cache_implementation is {kind!r} where {type(self).__name__} has a cache of its own: leave it out, "
                "or set k_bits and v_bits to 16"
            )
        return asked("use_cache") is not False


class LlamaForCausalLM_KIVI(KIVIModel, LlamaForCausalLM):  # noqa: N801 (KIVI's name)
    """transformers' Llama with KIVI's cache."""

    forward = _with_cache(LlamaForCausalLM.forward)


class MistralForCausalLM_KIVI(KIVIModel, MistralForCausalLM):  # noqa: N801 (KIVI's name)
    """transformers' Mistral with KIVI's cache."""

    forward = _with_cache(MistralForCausalLM.forward)
