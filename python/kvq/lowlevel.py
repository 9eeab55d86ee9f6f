# SPDX-License-Identifier: Apache-2.0
"""The C API as Python objects, for tests, tools and engines written in Python.

Arrays come from NumPy or torch by DLPack, without a copy. Nothing here needs NumPy, torch or transformers.
"""

from __future__ import annotations

import functools

from kvq._native import (
    Cache,
    Context,
    Kernel,
    Step,
    compile,
    format_canonical,
    format_frontier,
    format_page_bytes,
    format_page_tokens,
    open_kernel,
    query_support,
    version,
)

__all__ = [
    "Cache",
    "Context",
    "Kernel",
    "Step",
    "compile",
    "format_canonical",
    "format_frontier",
    "format_page_bytes",
    "format_page_tokens",
    "open_kernel",
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
