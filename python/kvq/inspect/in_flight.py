# SPDX-License-Identifier: Apache-2.0
"""How many bytes a warp has asked for while it waits: loads of the loop from their place to the first use of what they
bring, in the order of the machine code; and lines that are on their way to the second level."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kvq.inspect import opcodes, sass
from kvq.inspect.steady import SteadyLoop

WARP = 32
_REGISTER = re.compile(r"(?<![\w.])R(\d+)")
_WORDS = {"128": 4, "64": 2}


def registers_of(instruction: sass.Instruction) -> list[int]:
    """Numbers of all registers that it names. The others of a vector or a fragment follow the one that is named."""
    return [int(number) for number in _REGISTER.findall(instruction.operands)]


def words_of(load: sass.Instruction) -> int:
    return next((words for width, words in _WORDS.items() if width in load.modifiers), 1)


def asked_bytes(loop: SteadyLoop) -> float:
    """Of the loads of one iteration, if all lanes asked for different bytes."""
    return 4.0 * WARP * sum(words_of(i) for i in _own(loop) if opcodes.cost_of(i).group == "LDG")


def prefetched_bytes(loop: SteadyLoop) -> float:
    """What prefetches into the second level ask for in one iteration, a line of 128 bytes a lane."""
    return 128.0 * WARP * sum(opcodes.cost_of(i).group == "cache control" and "PF2" in i.modifiers for i in _own(loop))


def waiting_bytes(loop: SteadyLoop) -> float | None:
    """What a warp has asked for when it comes to the first use of a load, that one included, on average over the bytes;
    all lanes asking for different bytes. None where the loop has no loads to registers, or copies to shared memory too,
    whose waits do not say what they wait for."""
    code = _own(loop)
    groups = [opcodes.cost_of(i).group for i in code]
    if "async copy" in groups or "LDG" not in groups:
        return None
    loads = []  # (begin, first use, bytes), in the time of instructions; an iteration follows the other
    for begin, load in enumerate(code):
        if groups[begin] == "LDG":
            loads.append((begin, _first_use(code, begin), 4.0 * WARP * words_of(load)))
    total = weighted = 0.0
    for _, use, size in loads:
        outstanding = sum(_times(begin, end, use, len(code)) * other for begin, end, other in loads)
        total += size
        weighted += size * outstanding
    return weighted / total


def _own(loop: SteadyLoop) -> list[sass.Instruction]:
    return [i for block in loop.blocks for i in loop.flow.instructions(block)]


def _first_use(code: Sequence[sass.Instruction], begin: int) -> int:
    """Its place, which may lie in the next iteration. What is never used is waited for when it is loaded again."""
    count = len(code)
    first = registers_of(code[begin])[:1]
    target = set(range(first[0], first[0] + words_of(code[begin]))) if first else set()
    for place in range(begin + 1, begin + count):
        if target & set(registers_of(code[place % count])):
            return place
    return begin + count


def _times(begin: int, end: int, at: int, count: int) -> int:
    """How many iterations' copies of a load that is outstanding over (begin, end] are so at `at`."""
    return sum(begin < at + turn * count <= end for turn in (-1, 0, 1))
