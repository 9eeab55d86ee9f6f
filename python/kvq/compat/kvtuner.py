# SPDX-License-Identifier: Apache-2.0
"""The face of KVTuner (arXiv 2502.04420): `FlexibleQuantizedCacheConfig` and its three caches.

    config = FlexibleQuantizedCacheConfig(nbits_key=4, nbits_value=2, asym=True, q_group_size=-1)
    model.generate(inputs, past_key_values=FlexibleVanillaQuantizedCache(cache_config=config))

The axes mean something else in each of the three classes, as in KVTuner. Option by option: docs/drop-in.md. KVTuner's
own module name, `flexible_quant.flexible_quantized_cache`, comes with `import kvq.compat.shim`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from kvq.compat import options, per_layer
from kvq.compat.cache import RecipeCache
from kvq.compat.options import Options, Recipe
from kvq.errors import InvalidArgument, Unsupported

BACKENDS = ("quanto", "hqq", "vanilla")
DEFAULT_BITS = 4
FROM_LAYERS = -1  # nbits: each layer has its own


@dataclass(init=False)
class FlexibleQuantizedCacheConfig(Options):
    """KVTuner's options, with its defaults.

    Attributes:
        backend: "quanto", "hqq" or "vanilla"; None is that of the cache's class. Another than the class's is refused.
        nbits: bits of K and V where nbits_key, nbits_value are 0; None is 4, -1 leaves them to per_layer_config.
        nbits_key, nbits_value: 2, 3, 4 or 8; 0 is nbits, -1 leaves it to per_layer_config.
        axis_key, axis_value: per token is 0 for Vanilla and Quanto, 1 for HQQ; per channel is 1 for Vanilla, -1 for
            Quanto.
        asym: True. None is what KVTuner's class does, which for Vanilla is symmetric and refused.
        q_group_size: channels of a group per token (-1: all of a head); tokens of a group per channel.
        residual_length: so many newest tokens are kept as they came until the window is full; 0 keeps none.
        compute_dtype: float16, bfloat16 or float32; arithmetic is always float32.
        device: where the cache lives: the CPU.
        force_quant: whether the tokens of a prompt see each other quantized.
        per_layer_quant: bits of each layer from per_layer_config, a dictionary, or per_layer_config_path, a file.
        per_head_quant, per_head_config, per_head_config_path: refused.
    """

    METHOD: ClassVar[str] = "KVTuner"

    backend: str | None = None
    nbits: int | None = None
    nbits_key: int = 0
    nbits_value: int = 0
    axis_key: int = 0
    axis_value: int = 0
    asym: bool | None = None
    q_group_size: int = 64
    residual_length: int = 128
    compute_dtype: Any = torch.float16
    device: Any = "cpu"
    force_quant: bool = False
    per_layer_quant: bool = False
    per_layer_config: Mapping[Any, Any] | None = None
    per_layer_config_path: str | os.PathLike[str] | None = None
    per_head_quant: bool = False
    per_head_config: Mapping[Any, Any] | None = None
    per_head_config_path: str | os.PathLike[str] | None = None

    def check(self) -> None:
        """What is wrong for each of the three classes; axes, group and window wait for the class."""
        if self.backend is not None and self.backend not in BACKENDS:
            raise options.unknown("backend", self.backend, BACKENDS)
        if self.asym is not None and not options.flag("asym", self.asym):
            raise Unsupported("asym is False: kvq's codes have a scale and a minimum for each group, give asym=True")
        options.flag("force_quant", self.force_quant)
        options.compute_dtype("compute_dtype", self.compute_dtype)
        options.cpu_device("device", self.device)
        self._refuse_heads()
        self.widths()

    def _refuse_heads(self) -> None:
        for name in ("per_head_config", "per_head_config_path"):
            if getattr(self, name) is not None:
                raise Unsupported(f"{name} is given: kvq has one format for all heads of a layer, use per_layer_config")
        if options.flag("per_head_quant", self.per_head_quant):
            raise Unsupported(
                "per_head_quant is True: kvq has one format for all heads of a layer, use per_layer_quant"
            )

    def widths(self) -> tuple[tuple[int, int], ...]:
        """Bits of K and V: of every layer in turn, or one pair for all of them."""
        tables = [n for n in ("per_layer_config", "per_layer_config_path") if getattr(self, n) is not None]
        if not options.flag("per_layer_quant", self.per_layer_quant):
            if tables:
                raise InvalidArgument(f"{tables[0]} is given and per_layer_quant is False: set per_layer_quant=True")
            return ((self._bits("nbits_key"), self._bits("nbits_value")),)
        if len(tables) != 1:
            said = "neither" if not tables else "both"
            raise InvalidArgument(
                f"per_layer_quant is True with {said} of per_layer_config and per_layer_config_path: give one"
            )
        for name in ("nbits", "nbits_key", "nbits_value"):
            if getattr(self, name) not in (None, 0, FROM_LAYERS):
                raise InvalidArgument(
                    f"{name} is {getattr(self, name)} beside per_layer_quant=True, which gives every layer its own "
                    "bits: set it to -1"
                )
        if self.per_layer_config_path is None:
            return per_layer.widths("per_layer_config", self.per_layer_config)
        table = per_layer.read("per_layer_config_path", self.per_layer_config_path)
        return per_layer.widths(os.fspath(self.per_layer_config_path), table)

    def _bits(self, name: str) -> int:
        bits = getattr(self, name)
        if bits == 0:
            name, bits = "nbits", DEFAULT_BITS if self.nbits is None else self.nbits
        if bits == FROM_LAYERS:
            raise InvalidArgument(f"{name} is -1, which leaves the bits to the layers: set per_layer_quant=True")
        return options.width(name, bits)


class FlexibleQuantizedCache(RecipeCache):
    """Base of KVTuner's caches: what one of its quantizers calls an axis, and which options it has. `accuracy` is
    KVQCache's."""

    BACKEND: ClassVar[str]
    AXES: ClassVar[dict[int, str]]
    AXIS_REMEDY: ClassVar[str]
    SYMMETRIC_BY_DEFAULT: ClassVar[bool] = False

    def __init__(
        self, cache_config: FlexibleQuantizedCacheConfig | Mapping[str, Any], *, accuracy: str | None = None
    ) -> None:
        if type(self) is FlexibleQuantizedCache:
            raise InvalidArgument(
                "FlexibleQuantizedCache has no quantizer of its own: use FlexibleVanillaQuantizedCache, "
                "FlexibleHQQQuantizedCache or FlexibleQuantoQuantizedCache"
            )
        config = FlexibleQuantizedCacheConfig.of(cache_config)
        config.check()
        prefill = "stored" if config.force_quant else "raw"
        super().__init__(self._recipe(config), prefill=prefill, accuracy=accuracy)

    def _recipe(self, config: FlexibleQuantizedCacheConfig) -> Recipe:
        name = type(self).__name__
        if config.backend not in (None, self.BACKEND):
            raise InvalidArgument(
                f'backend is {config.backend!r} where {name} is "{self.BACKEND}": leave it out, or use the class of '
                "that back end"
            )
        if config.asym is None and self.SYMMETRIC_BY_DEFAULT:
            raise Unsupported(
                f"asym is not given, which means symmetric in KVTuner's {name}: kvq's codes have a scale and a minimum "
                "for each group, give asym=True"
            )
        return Recipe(
            widths=config.widths(),
            axes=(self._axis("axis_key", config.axis_key), self._axis("axis_value", config.axis_value)),
            group=options.integer("q_group_size", config.q_group_size),
            window=options.integer("residual_length", config.residual_length),
            rule="flush",
            per_layer=config.per_layer_quant,
        )

    def _axis(self, name: str, value: object) -> str:
        axis = options.integer(name, value)
        if axis not in self.AXES:
            raise Unsupported(f"{name} is {axis} in {type(self).__name__}: {self.AXIS_REMEDY}")
        return self.AXES[axis]


class FlexibleVanillaQuantizedCache(FlexibleQuantizedCache):
    """KVTuner's own quantizer: axis 0 is per token, axis 1 per channel. Asymmetric only."""

    BACKEND = "vanilla"
    AXES = {0: "t", 1: "c"}
    AXIS_REMEDY = "give 0 (per token) or 1 (per channel)"
    SYMMETRIC_BY_DEFAULT = True


class FlexibleQuantoQuantizedCache(FlexibleQuantizedCache):
    """KVTuner with optimum-quanto's codes, which are ours: axis 0 is per token, axis -1 per channel."""

    BACKEND = "quanto"
    AXES = {0: "t", -1: "c"}
    AXIS_REMEDY = "quanto's axes are 0 (per token) and -1 (per channel)"


class FlexibleHQQQuantizedCache(FlexibleQuantizedCache):
    """KVTuner with HQQ's grouping: axis 1 is per token. Codes come from minimum and maximum, and it says so."""

    BACKEND = "hqq"
    AXES = {1: "t"}
    AXIS_REMEDY = (
        "HQQ's axis 0 groups values of several heads and tokens, give 1 (per token), or use "
        "FlexibleVanillaQuantizedCache, whose axis 1 is per channel"
    )

    def __init__(
        self, cache_config: FlexibleQuantizedCacheConfig | Mapping[str, Any], *, accuracy: str | None = None
    ) -> None:
        super().__init__(cache_config, accuracy=accuracy)
        warnings.warn(
            "FlexibleHQQQuantizedCache quantizes from each group's minimum and maximum: HQQ's half-quadratic search "
            "for a better zero is not done",
            stacklevel=2,
        )
