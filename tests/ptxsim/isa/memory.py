# SPDX-License-Identifier: Apache-2.0
"""Instructions on memory whose rule is easy to misread: cp.async with a source size, atom."""

from .bits import mask, signed


def cp_async(source, cp_size, src_size):
    """PTX ISA, "Data Movement and Conversion Instructions: cp.async".

    `src_size` bytes are copied, the rest of cp_size bytes is filled with zeros.
    """
    return bytes(source[:src_size]) + bytes(cp_size - src_size)


def atom(operation, kind, old, b, c=None):
    """PTX ISA, "Parallel Synchronization and Communication Instructions: atom".

    Returns what the location holds afterwards; the instruction's result is what it held before.
    """
    width = int(kind[1:])
    if kind[0] == "s":
        old, b = signed(old, width), signed(b, width)
    new = {
        "inc": lambda: 0 if old >= b else old + 1,
        "dec": lambda: b if old == 0 or old > b else old - 1,
        "exch": lambda: b,
        "cas": lambda: c if old == b else old,
        "add": lambda: old + b,
        "min": lambda: min(old, b),
        "max": lambda: max(old, b),
        "and": lambda: old & b,
        "or": lambda: old | b,
        "xor": lambda: old ^ b,
    }[operation]()
    return new & mask(width)
