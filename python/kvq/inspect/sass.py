# SPDX-License-Identifier: Apache-2.0
"""Machine code as nvdisasm prints it (-c -gp): instructions with their PTX lines, and basic blocks of a function."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kvq.errors import InvalidArgument

_FUNCTION = re.compile(r"^\.text\.(?P<name>[^\s:]+):\s*$")
_LABEL = re.compile(r"^(?P<name>[\w.$]+):\s*$")
_LINE = re.compile(r'^\s*//## File "(?P<file>[^"]*)", line (?P<line>\d+)')
_INSTRUCTION = re.compile(
    r"^\s*(?:\{\s*)?/\*(?P<offset>[0-9a-f]+)\*/\s+(?:\{\s*)?(?:(?P<predicate>@!?U?P[T0-9]+)\s+)?"
    r"(?P<opcode>[A-Z][\w.]*)\s*(?P<operands>[^;]*?)\s*;?\s*(?:\}\s*)?$"
)
_TARGET = re.compile(r"`\((?P<label>[\w.$]+)\)|(?P<listed>\.L_x_\w+)")
PTX_FILE = ".nv_debug_ptx_txt"  # as nvdisasm calls the PTX text itself

# Where control goes after an instruction. A call comes back, so that what follows is reached as well; ptxas also writes
# a jump out of a loop as a predicated call that never returns. The slow path of a division is a function in the same
# text: its return goes nowhere here, so that it lies in no loop.
ENDS = ("EXIT", "RET", "KILL", "BPT")
JUMPS = ("BRA", "JMP", "CALL", "BRX", "JMX", "BRXU", "JMXU")
INDIRECT = ("BRX", "JMX", "BRXU", "JMXU")
ALWAYS = ("@PT", "@UPT", "")


@dataclass(frozen=True)
class Instruction:
    offset: int
    opcode: str  # with modifiers: "IMAD.MOV.U32"
    operands: str
    predicate: str  # "@!P0"; empty: none
    line: int | None  # of the PTX; None: nothing is known

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def modifiers(self) -> list[str]:
        return self.opcode.split(".")[1:]

    @property
    def targets(self) -> list[str]:
        """Labels to which it may go."""
        if self.name not in JUMPS:
            return []
        return [match["label"] or match["listed"] for match in _TARGET.finditer(self.operands)]

    @property
    def unconditional(self) -> bool:
        """Without a predicate, of the instruction or among its operands (BRA.U UP0, ...)."""
        return self.predicate in ALWAYS and not re.match(r"!?U?P\d", self.operands)


@dataclass(frozen=True)
class Function:
    name: str
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]  # index of the instruction behind the label


@dataclass(frozen=True)
class Block:
    begin: int  # indices of instructions
    end: int


@dataclass(frozen=True)
class Flow:
    """The basic blocks of a function in the order of the text, and where each may go."""

    function: Function
    blocks: tuple[Block, ...]
    successors: tuple[tuple[int, ...], ...]

    def instructions(self, block: int) -> Sequence[Instruction]:
        return self.function.instructions[self.blocks[block].begin : self.blocks[block].end]


def parse(text: str) -> dict[str, Function]:
    """Every function of the text by name."""
    result: dict[str, Function] = {}
    name, line = None, None
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for row in text.splitlines():
        if row.lstrip().startswith(".section"):
            name = None
        elif match := _FUNCTION.match(row):
            name, line, instructions, labels = match["name"], None, [], {}
            result[name] = Function(name, (), labels)
        elif name is None:
            continue
        elif match := _LABEL.match(row):
            labels[match["name"]] = len(instructions)
        elif match := _LINE.match(row):
            line = int(match["line"]) if match["file"] == PTX_FILE else None
        elif match := _INSTRUCTION.match(row):
            offset, predicate = int(match["offset"], 16), match["predicate"] or ""
            instructions.append(Instruction(offset, match["opcode"], match["operands"], predicate, line))
            result[name] = Function(name, tuple(instructions), labels)
    if not any(function.instructions for function in result.values()):
        raise InvalidArgument("there is no instruction in the disassembly: give the output of nvdisasm -c")
    return result


def flow_of(function: Function) -> Flow:
    """Blocks that are never reached, as the endless branch behind a kernel's end, stay in it without predecessors."""
    count = len(function.instructions)
    follow = [_followers(function, index) for index in range(count)]
    begins = {0} | {index for index in function.labels.values() if index < count}
    for index, targets in enumerate(follow):
        if targets != (index + 1,):
            begins |= {index + 1, *targets} - {count}
    starts = sorted(begins)
    blocks = tuple(Block(begin, end) for begin, end in zip(starts, [*starts[1:], count], strict=True))
    number = {block.begin: index for index, block in enumerate(blocks)}
    return Flow(function, blocks, tuple(tuple(number[t] for t in follow[b.end - 1] if t < count) for b in blocks))


def _place(function: Function, instruction: Instruction) -> str:
    return f"{function.name}, offset 0x{instruction.offset:x}: {instruction.opcode}"


def _followers(function: Function, index: int) -> tuple[int, ...]:
    """Indices of the instructions that may come next; one past the last is the end of the text."""
    instruction = function.instructions[index]
    if instruction.name in ENDS:
        return () if instruction.unconditional else (index + 1,)
    targets = []
    for label in instruction.targets:
        if label not in function.labels:
            if instruction.name == "CALL":  # of a function with a text of its own
                continue
            raise InvalidArgument(
                f"{_place(function, instruction)} goes to {label}, which is not in the function: link the kernel "
                "before it is inspected"
            )
        targets.append(function.labels[label])
    if instruction.name in INDIRECT and not targets:
        raise InvalidArgument(
            f"{_place(function, instruction)} goes where the disassembly does not say, so that there is no control "
            "flow to inspect"
        )
    leaves = instruction.name in JUMPS and instruction.name != "CALL" and instruction.unconditional
    if not leaves:
        targets.append(index + 1)
    return tuple(dict.fromkeys(targets))
