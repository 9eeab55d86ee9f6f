# SPDX-License-Identifier: Apache-2.0
"""The C API as Python objects, for tests, tools and engines written in Python.

Arrays come from NumPy or torch by DLPack, without a copy. Nothing here needs NumPy, torch or transformers.
"""

from __future__ import annotations

import functools

from kvq._native import (
    Buffer,
    Cache,
    Context,
    Kernel,
    ScoreFunction,
    Step,
    Stream,
    accuracy_classes,
    compile,
    default_accuracy,
    format_canonical,
    format_frontier,
    format_layouts,
    format_page_bytes,
    format_page_tokens,
    open_kernel,
    prepare_targets,
    query_support,
    version,
)
from kvq.errors import InvalidArgument

ACCURACY_CLASSES: tuple[str, ...] = accuracy_classes
"""Accuracy classes that a cache can have (format-spec attention_c4), the most accurate first."""

DEFAULT_ACCURACY: str = default_accuracy
"""The class of a cache for which none is asked."""

__all__ = [
    "ACCURACY_CLASSES",
    "Buffer",
    "Cache",
    "Context",
    "DEFAULT_ACCURACY",
    "Kernel",
    "ScoreFunction",
    "Step",
    "Stream",
    "check_accuracy",
    "compile",
    "format_canonical",
    "format_frontier",
    "format_layouts",
    "format_page_bytes",
    "format_page_tokens",
    "open_kernel",
    "prepare_targets",
    "query_support",
    "shared_context",
    "version",
]


@functools.lru_cache(maxsize=16)
def shared_context(
    device: str = "cpu",
    level: str | None = None,
    threads: int = 0,
    store_dir: str | None = None,
    frozen: bool = False,
) -> Context:
    """The process's one context with these options: its threads and loaded kernels serve all caches made with them."""
    return Context(device, level=level, threads=threads, store_dir=store_dir, frozen=frozen)


def check_accuracy(name: str | None) -> str:
    """The accuracy class of that name, the default one for None; kvq.InvalidArgument where there is no such class."""
    if name is None:
        return DEFAULT_ACCURACY
    if name not in ACCURACY_CLASSES:
        known = ", ".join(f'"{known}"' for known in ACCURACY_CLASSES)
        raise InvalidArgument(f"accuracy is {name!r}: use one of {known}")
    return name
