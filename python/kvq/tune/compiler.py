# SPDX-License-Identifier: Apache-2.0
"""Which compiler the kernels are of."""

from __future__ import annotations

from kvq.errors import Unsupported
from kvq.evaluate import machine


def compiler_hash() -> str:
    """Part of every key."""
    facts = machine.compiler_facts()
    if facts["hash"] is None:
        why = facts.get("error", "there is none beside libkvq.so")
        raise Unsupported(f"tuning needs the compiler ({why}): install it, or name it in KVQ_COMPILER")
    return str(facts["hash"])
