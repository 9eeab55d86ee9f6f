# SPDX-License-Identifier: Apache-2.0
"""Mutants of a kernel at the level of PTX text: one line changed so that it still assembles, by a table of operators.

Which sites are changed is fixed: all of an operator that removes an ordering (barriers, waits, commits), of every other
one an even choice of few.
"""

import re
from dataclasses import dataclass

SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}


@dataclass(frozen=True)
class Mutant:
    """key is unique in a kernel and stays the same while its PTX does."""

    operator: str
    line: int  # from 1, of the whole module
    before: str
    after: str
    key: str

    def of(self, ptx):
        lines = ptx.splitlines()
        lines[self.line - 1] = self.after
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Operator:
    """replace: what re.sub takes; a function of (match, values) where values are those of the kernel's constant
    registers, which returns None where it does not apply."""

    name: str
    pattern: str
    replace: object
    sites: int = 2
    ordering: bool = False

    def changed(self, line, values):
        match = re.search(self.pattern, line)
        if not match:
            return None
        new = self.replace(match, values) if callable(self.replace) else match.expand(self.replace)
        return None if new is None else line[: match.start()] + new + line[match.end() :]


def _swap(first, second):
    """Exchanges two groups of the match, which cover the text between them."""
    def replace(match, values):
        if match[first] == match[second]:
            return None
        whole, start = match[0], match.start()
        low, high = sorted((first, second), key=match.start)
        between = whole[match.end(low) - start : match.start(high) - start]
        return whole[: match.start(low) - start] + match[high] + between + match[low] + whole[match.end(high) - start :]

    return replace


def _mapped(group, table):
    def replace(match, values):
        whole, start = match[0], match.start()
        return whole[: match.start(group) - start] + table[match[group]] + whole[match.end(group) - start :]

    return replace


def _immediate(group, change):
    """Replaces a decimal number, or a register that holds a constant, by change(its value)."""
    def replace(match, values):
        text = match[group]
        value = values.get(text) if text.startswith("%") else int(text)
        if value is None or change(value) == value:
            return None
        whole, start = match[0], match.start()
        return whole[: match.start(group) - start] + str(change(value)) + whole[match.end(group) - start :]

    return replace


def _next_element(sign):
    """The address of a load or store, one element further or back."""
    def replace(match, values):
        size = SIZES[match["size"]] * int(match["vector"] or 1)
        offset = int((match["offset"] or "0").lstrip("+")) + sign * size
        return f"{match['start']}{match['base']}+{offset}]"

    return replace


def _plain(match, values):
    """An atomic operation as a load, the operation and a store."""
    space, operation, type_, old, address, value = match.groups()
    step = f"mov.{type_} t, {value};" if operation == "exch" else f"{operation}.{type_} t, {old}, {value};"
    return (f"{{ .reg .{type_} t; ld.{space}.{type_} {old}, [{address}]; {step} st.{space}.{type_} [{address}], t; }}")


REGISTER = r"%[a-z]+\d+"
OPERAND = rf"({REGISTER}|0f[0-9A-F]+|0x[0-9A-Fa-f]+U?|-?\d+)"
D = rf"\s+{REGISTER}, "
ACCESS = (r"(?P<start>(?<![.\w])(?:ld|st)\.(?:global|shared)(?:\.v(?P<vector>[24]))?\.[usbf](?P<size>\d+)\s[^\[]*\[)"
          r"(?P<base>[%_A-Za-z][\w$]*)(?P<offset>\+-?\d+)?\]")
FLIPPED = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt"}
EXTREMA = {"min": "max", "max": "min"}

OPERATORS = (
    Operator("barrier removed", r"bar\.sync\s.*;", "", ordering=True),
    Operator("wait removed", r"cp\.async\.wait_group \d+;", "", ordering=True),
    Operator("wait loosened", r"cp\.async\.wait_group (\d+);", _immediate(1, lambda n: n + 1), ordering=True),
    Operator("commit removed", r"cp\.async\.commit_group;", "", ordering=True),
    Operator("branch negated", r"@%(p\d+)", r"@!%\1", 3),
    Operator("branch never taken", r"@!?%p\d+ bra\s.*;", "", 3),
    Operator("branch always taken", r"@!?%p\d+ bra", "bra", 3),
    Operator("comparison at the bound", r"setp\.(lt|le|gt|ge)\.", _mapped(1, FLIPPED), 4),
    Operator("equality inverted", r"setp\.(eq|ne)\.", _mapped(1, {"eq": "ne", "ne": "eq"})),
    Operator("operands of a comparison swapped", rf"setp\.(?:lt|le|gt|ge)\.\w+{D}{OPERAND}, ({REGISTER})", _swap(1, 2)),
    Operator("pred or to and", r"(or)\.pred", _mapped(1, {"or": "and"})),
    Operator("operands of sub swapped", rf"(?<!c)sub\.[\w.]+\s+{REGISTER}, ?{OPERAND}, ?({REGISTER})",
             _swap(1, 2)),
    Operator("operands of mad swapped", rf"mad\.lo\.\w+{D}{OPERAND}, {OPERAND}, {OPERAND}", _swap(2, 3)),
    Operator("operands of fma swapped", rf"fma\.rn\.\w+\s+{REGISTER}, ?{OPERAND}, ?{OPERAND}, ?{OPERAND}", _swap(1, 3)),
    Operator("operands of selp swapped", rf"selp\.\w+{D}{OPERAND}, {OPERAND}", _swap(1, 2), 3),
    Operator("operands of bfi swapped", rf"bfi\.\w+{D}{OPERAND}, {OPERAND}", _swap(1, 2)),
    Operator("operands of prmt swapped", rf"prmt\.b32{D}{OPERAND}, {OPERAND}", _swap(1, 2)),
    Operator("operands of a division swapped", rf"(?:div|rem)\.[\w.]+{D}{OPERAND}, ({REGISTER})", _swap(1, 2)),
    Operator("one element further", ACCESS, _next_element(1), 4),
    Operator("one element back", ACCESS, _next_element(-1), 3),
    Operator("store removed", r"(?<![.\w])st\.(?:global|shared)\..*;", ""),
    Operator("bit of a mask cleared", rf"and\.b32\s+{D}{OPERAND}, (\d+)", _immediate(2, lambda n: n & (n - 1)), 3),
    Operator("bit of an or cleared", rf"or\.b32\s+{D}{OPERAND}, (\d+)", _immediate(2, lambda n: n & (n - 1))),
    Operator("shift by one more", rf"sh[lr]\.\w+{D}{OPERAND}, (\d+)", _immediate(2, lambda n: n + 1), 4),
    Operator("shift by one less", rf"sh[lr]\.\w+{D}{OPERAND}, (\d+)", _immediate(2, lambda n: n - 1), 2),
    Operator("added constant", rf"add\.s32{D}{OPERAND}, (-?\d+)", _immediate(2, lambda n: n + 1), 3),
    Operator("factor", rf"(?:mul\.lo|mul\.wide|mad\.lo)\.\w+{D}{OPERAND}, (\d+)", _immediate(2, lambda n: n + 1)),
    Operator("compared constant", rf"setp\.\w+\.\w+{D}{OPERAND}, (\d+);", _immediate(2, lambda n: n + 1)),
    Operator("moved constant", r"mov\.[ub]\d+\s+%\w+, (\d+)(?!\w)", _immediate(1, lambda n: n + 1)),
    Operator("zero moved", r"(mov\.f32\s+%f\d+, 0f)00000000", r"\g<1>3F800000"),
    Operator("distance of a shuffle", rf"shfl\.sync\.\w+\.b32\s+{REGISTER}\|{REGISTER}, {REGISTER}, {OPERAND}",
             _immediate(1, lambda n: n * 2 if n < 16 else n // 2), 3),
    Operator("clamp of a shuffle", rf"shfl\.sync\.\w+\.b32\s+{REGISTER}\|{REGISTER}, {REGISTER}, {OPERAND}, {OPERAND}",
             _immediate(2, lambda n: 0x1F00 | n)),
    Operator("mask of a shuffle", rf"(shfl\.sync\.\w+\.b32\s.*, ){OPERAND};", r"\g<1>2147483647;"),
    Operator("kind of a shuffle", r"shfl\.sync\.(bfly|down|up)",
             _mapped(1, {"bfly": "down", "down": "bfly", "up": "bfly"})),
    Operator("kind of redux", r"redux\.sync\.(max|add)", _mapped(1, {"max": "min", "add": "max"})),
    Operator("mask of redux", r"(redux\.sync\.\w+\.u32\s+%\w+, %\w+, )%\w+;", r"\g<1>1073741823;"),
    Operator("atomic to plain",
             rf"atom\.(global|shared)\.(add|max|exch)\.(\w+)\s+({REGISTER}), \[([^\]]+)\], {OPERAND};", _plain, 4),
    Operator("min and max", r"(?<![\w.])(min|max)\.", _mapped(1, EXTREMA), 3),
    Operator("rows of a fragment swapped", r"mma\.sync.*?\}, \{(%r\d+),(%r\d+)", _swap(1, 2), 3),
    Operator("columns of a fragment swapped", r"mma\.sync.*?\}, \{%r\d+,(%r\d+),(%r\d+)", _swap(1, 2), 3),
    Operator("halves of a column fragment swapped", r"mma\.sync.*?\}, \{.*?\}, \{(%r\d+),(%r\d+)", _swap(1, 2), 3),
    Operator("sums of a fragment swapped", r"mma\.sync.*\}, \{(%\w+),(%\w+),%\w+,%\w+\};", _swap(1, 2), 3),
    Operator("matrices swapped", r"ldmatrix\.\S+ \{%r\d+,(%r\d+),(%r\d+)", _swap(1, 2), 3),
    Operator("trans removed", r"(ldmatrix\.\S+)\.trans", r"\1", 3),
    Operator("movmatrix to mov", r"movmatrix\.\S+", "mov.b32"),
    Operator("zero fill removed", r"(cp\.async\.c[ag]\.shared\.global .*, )(\d+), %r\d+;", r"\g<1>\2, \2;", 4),
    Operator("elements of a vector swapped", r"\.v[24]\..*\{(%\w+), (%\w+)", _swap(1, 2), 3),
    Operator("rounded toward zero", r"cvt\.(rni|rn)\.f(?=16|32\.f32)", _mapped(1, {"rni": "rzi", "rn": "rz"})),
    Operator("thread to lane", r"(mov\.u32\s+%r\d+, )%tid\.x", r"\1%laneid", 1),
    Operator("block's other index", r"%(ctaid\.[xyz])",
             _mapped(1, {"ctaid.x": "ctaid.y", "ctaid.y": "ctaid.x", "ctaid.z": "ctaid.x"})),
    Operator("another lookup table", r"(lop3\.b32 .*, )0xea", r"\g<1>0xfa"),
)

# What LLVM writes otherwise than nvcc and clang: constants as operands, matrices over several lines.
LLVM_ACCESS = ACCESS.replace(r"(?:ld|st)\.(?:global|shared)", r"ld\.global\.nc")
LLVM_OPERATORS = OPERATORS + (
    Operator("one element of constant memory further", LLVM_ACCESS, _next_element(1), 4),
    Operator("one element of constant memory back", LLVM_ACCESS, _next_element(-1), 3),
    Operator("selector of prmt", r"(prmt\.b32 .*, 0x)(\w)(\w)(\w)(\w)U", r"\1\3\4\5\2U", 3),
    Operator("distance of an exchange", rf"shfl\.sync\.bfly\.b32\s+{REGISTER}, {REGISTER}, (\d+)",
             _immediate(1, lambda n: n * 2 if n < 16 else n // 2), 4),
    Operator("registers of a matrix swapped", r"^\s*\{(%r\d+), (%r\d+)(?:, %r\d+, %r\d+)?\}[,;]$", _swap(1, 2), 8),
    Operator("float constant of another size", r"0f(?!00000000|F|[07]F8)([0-9A-F]{8})",
             lambda match, values: f"0f{int(match[1], 16) + (1 << 23):08X}", 4),
    Operator("added constant of 64 bits", rf"add\.s64{D}{OPERAND}, (-?\d+)", _immediate(2, lambda n: 2 * n), 4),
    Operator("sign of a sum", r"(add|sub)\.rn\.f32", _mapped(1, {"add": "sub", "sub": "add"}), 3),
    Operator("product to sum", r"mul\.rn\.(f32|f16x2)", r"add.rn.\1", 3),
)


def _body(lines, kernel):
    """Numbers (from 0) of the lines of an entry's body."""
    start = next(i for i, line in enumerate(lines) if re.search(rf"\.entry {kernel}\b", line))
    depth, opened = 0, False
    for i in range(start, len(lines)):
        depth += lines[i].count("{") - lines[i].count("}")
        opened = opened or depth > 0
        if opened and depth == 0:
            return range(start, i)
    raise ValueError(f"the body of {kernel} does not end")


def _evenly(sites, count):
    return sites if len(sites) <= count else [sites[(2 * i + 1) * len(sites) // (2 * count)] for i in range(count)]


def mutants(ptx, kernel, operators=OPERATORS, times=1):
    """The mutants of one entry of a module, in order of the operators; times: as many sites of each as it says."""
    lines = ptx.splitlines()
    body = _body(lines, kernel)
    constants = re.findall(r"mov\.[ub]32\s+(%r\d+), (-?\d+);", "\n".join(lines[i] for i in body))
    values = {register: int(value) for register, value in constants}
    out = []
    for operator in operators:
        sites = [(i, new) for i in body
                 if (new := operator.changed(lines[i], values)) is not None and new != lines[i]]
        seen = {}
        for i, new in sites if operator.ordering else _evenly(sites, times * operator.sites):
            text = " ".join(lines[i].split())
            seen[text] = seen.get(text, 0) + 1
            out.append(Mutant(operator.name, i + 1, lines[i], new, f"{operator.name}: {text} #{seen[text]}"))
    return out
