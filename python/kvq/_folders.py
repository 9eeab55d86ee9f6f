# SPDX-License-Identifier: Apache-2.0
"""Where kvq keeps files of its own."""

from __future__ import annotations

import os
from pathlib import Path


def store_folder() -> Path | None:
    """The folder of compiled kernels that a context takes by default: runtime/jit/kernel_store.cpp."""
    for name, below in (("KVQ_STORE", ""), ("XDG_CACHE_HOME", "kvq"), ("HOME", ".cache/kvq")):
        value = os.environ.get(name)
        if value and (name != "XDG_CACHE_HOME" or value.startswith("/")):
            return Path(value) / below
    return None
