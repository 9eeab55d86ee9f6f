# SPDX-License-Identifier: Apache-2.0
"""The face of the published package `kvq` ("Quantize What Counts", arXiv 2502.15075): `KVQ` and `KVQCacheConfig`.

    config = KVQCacheConfig(nbits_k=4, nbits_v=2, q_group_size=64, residual_length=128, device=model.device)
    model.generate(**inputs, past_key_values=KVQ(config))

Its axes are those of optimum-quanto: 0 is per token, -1 is per channel. Option by option: docs/drop-in.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from kvq.compat import options
from kvq.compat.cache import RecipeCache
from kvq.compat.options import Options, Recipe
from kvq.errors import InvalidArgument, Unsupported

AXES = {0: "t", -1: "c"}


def quanto_axis(name: str, value: object) -> str:
    """Per token or per channel, as optimum-quanto counts axes."""
    axis = options.integer(name, value)
    if axis not in AXES:
        raise InvalidArgument(
            f"{name} is {axis}: quanto's axes are 0 (per token) and -1 (per channel), the nearest is 0"
        )
    return AXES[axis]


@dataclass(init=False)
class KVQCacheConfig(Options):
    """The options of `KVQ`, with the defaults of the package.

    Attributes:
        nbits_k, nbits_v: 2, 3, 4 or 8 bits of K and V.
        axis_key, axis_value: 0 (per token) or -1 (per channel).
        q_group_size: channels of a group per token, which divide the head size; tokens of a group per channel.
        residual_length: so many newest tokens are kept as they came until the window is full, then all are quantized.
        compute_dtype: float16, bfloat16 or float32; arithmetic is always float32.
        backend: "quanto", whose codes (a minimum and a scale for each group) these are.
        device: where the cache lives: the CPU.
    """

    METHOD: ClassVar[str] = "kvq"

    nbits_k: int = 4
    nbits_v: int = 2
    axis_key: int = 0
    axis_value: int = 0
    q_group_size: int = 64
    residual_length: int = 128
    compute_dtype: Any = torch.bfloat16
    backend: str = "quanto"
    device: Any = "cpu"

    def check(self) -> None:
        self.recipe()

    def recipe(self) -> Recipe:
        if self.backend != "quanto":
            raise Unsupported(f'backend is {self.backend!r}: the package kvq has one back end, give "quanto"')
        options.compute_dtype("compute_dtype", self.compute_dtype)
        options.cpu_device("device", self.device)
        return Recipe(
            widths=((options.width("nbits_k", self.nbits_k), options.width("nbits_v", self.nbits_v)),),
            axes=(quanto_axis("axis_key", self.axis_key), quanto_axis("axis_value", self.axis_value)),
            group=options.integer("q_group_size", self.q_group_size),
            window=options.integer("residual_length", self.residual_length),
            rule="flush",
        )


class KVQ(RecipeCache):
    """The cache of the package kvq, for `generate(past_key_values=...)`: made from a `KVQCacheConfig` or a dictionary.

    A prompt attends to its own K and V unquantized, as in the package. `accuracy` is KVQCache's.
    """

    def __init__(self, config: KVQCacheConfig | Mapping[str, Any], *, accuracy: str | None = None) -> None:
        settings = KVQCacheConfig.of(config)
        if settings.nbits_k < settings.nbits_v:
            warnings.warn(
                f"nbits_k is {settings.nbits_k} and nbits_v is {settings.nbits_v}: keys need more bits than values "
                "(arXiv 2502.15075), exchange the two",
                stacklevel=2,
            )
        super().__init__(settings.recipe(), prefill="raw", accuracy=accuracy)
