# SPDX-License-Identifier: Apache-2.0
"""kvq inside Hugging Face transformers: the cache and the attention function named "kvq"."""

from __future__ import annotations

from kvq.hf.attention import attention_forward
from kvq.hf.cache import KVQCache
from kvq.hf.layer import KVQLayer

__all__ = ["KVQCache", "KVQLayer", "attention_forward", "register"]


def register() -> None:
    """Makes attn_implementation="kvq" known. `import kvq` does this by itself."""
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register("kvq", attention_forward)
    # Without an entry here transformers passes no mask at all and left padding is silently lost.
    AttentionMaskInterface.register("kvq", sdpa_mask)
