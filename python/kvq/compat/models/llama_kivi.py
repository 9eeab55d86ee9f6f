# SPDX-License-Identifier: Apache-2.0
"""KIVI's module name for Llama in kvq.compat.kivi."""

from __future__ import annotations

from kvq.compat.kivi import LlamaForCausalLM_KIVI

__all__ = ["LlamaForCausalLM_KIVI"]
