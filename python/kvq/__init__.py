# SPDX-License-Identifier: Apache-2.0
"""kvq: quantized KV caches for language-model inference.

`kvq.KVQCache(model.config, "kivi-2")` handed to `model.generate(past_key_values=...)`, with the model loaded with
`attn_implementation="kvq"`, decodes from packed pages. `kvq.lowlevel` is the C API, `kvq.compile` takes kernels of
one's own. torch and transformers are imported only where they are used.
"""

from __future__ import annotations

from kvq import _guard

# Before anything else of this folder: another distribution may have put its own files here.
_guard.refuse_other_kvq()
_guard.refuse_other_files()

import importlib
from typing import TYPE_CHECKING, Any

from kvq import lowlevel
from kvq._lazy import after_import
from kvq.errors import (
    BadValue,
    Corrupt,
    Error,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    PermissionDenied,
    PoolFull,
    ResourceExhausted,
    Unsupported,
)

if TYPE_CHECKING:
    from kvq.compat.kvq_package import KVQ, KVQCacheConfig
    from kvq.hf import KVQCache

__version__ = lowlevel.version()

__all__ = [
    "BadValue",
    "Corrupt",
    "Error",
    "FailedPrecondition",
    "InternalError",
    "InvalidArgument",
    "KVQ",
    "KVQCache",
    "KVQCacheConfig",
    "PermissionDenied",
    "PoolFull",
    "ResourceExhausted",
    "Unsupported",
    "compile",
    "lowlevel",
]


def compile(text: str, target: str | None = None) -> lowlevel.Kernel:
    """Compiles the one tile kernel of an IR module for a CPU level (None: the best that this host has).

    A mistake in the text raises InvalidArgument whose message begins with line:column.
    """
    return lowlevel.compile(lowlevel.shared_context(level=target), text)


# Names whose modules import torch and transformers, which takes seconds.
_LAZY = {"KVQ": "kvq.compat.kvq_package", "KVQCache": "kvq.hf", "KVQCacheConfig": "kvq.compat.kvq_package"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'kvq' has no attribute {name!r}")


def _register() -> None:
    from kvq.hf import register

    register()


after_import("transformers.modeling_utils", _register)
