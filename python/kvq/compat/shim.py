# SPDX-License-Identifier: Apache-2.0
"""`import kvq.compat.shim` makes `flexible_quant` (KVTuner) and `models` (KIVI) importable under those names."""

from __future__ import annotations

from kvq.compat.foreign import install

install()
