# SPDX-License-Identifier: Apache-2.0
"""KIVI's module name for Mistral in kvq.compat.kivi."""

from __future__ import annotations

from kvq.compat.kivi import MistralForCausalLM_KIVI

__all__ = ["MistralForCausalLM_KIVI"]
