# SPDX-License-Identifier: Apache-2.0
"""Drop-in faces of published methods: their class names, options and module names over KVQCache.

| module | method |
|---|---|
| `kvq.compat.kvq_package` | the package kvq: `KVQ`, `KVQCacheConfig`, also as `kvq.KVQ`, `kvq.KVQCacheConfig` |
| `kvq.compat.kvtuner` | KVTuner: `FlexibleQuantizedCacheConfig`, `FlexibleVanillaQuantizedCache` and two more |
| `kvq.compat.kivi` | KIVI: `LlamaForCausalLM_KIVI`, `MistralForCausalLM_KIVI` |

`import kvq.compat.shim`, or `kvq.compat.install()`, makes `flexible_quant` and `models` importable under those names.
docs/drop-in.md says for each option what becomes of it.
"""

from __future__ import annotations

from kvq.compat.foreign import install

__all__ = ["install"]
