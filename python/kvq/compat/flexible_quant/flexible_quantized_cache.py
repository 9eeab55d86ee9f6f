# SPDX-License-Identifier: Apache-2.0
"""KVTuner's module name for kvq.compat.kvtuner."""

from __future__ import annotations

from kvq.compat.kvtuner import (
    FlexibleHQQQuantizedCache,
    FlexibleQuantizedCache,
    FlexibleQuantizedCacheConfig,
    FlexibleQuantoQuantizedCache,
    FlexibleVanillaQuantizedCache,
)

__all__ = [
    "FlexibleHQQQuantizedCache",
    "FlexibleQuantizedCache",
    "FlexibleQuantizedCacheConfig",
    "FlexibleQuantoQuantizedCache",
    "FlexibleVanillaQuantizedCache",
]
