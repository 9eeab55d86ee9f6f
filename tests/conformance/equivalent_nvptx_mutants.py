# SPDX-License-Identifier: Apache-2.0
"""Mutants of kernels that are no mistakes: rules on the changed line and what stands around it, each with its reason.

Rules and not a list of lines: the compiler's output changes with every improvement of it.
"""

import re


def _near(lines, number, distance):
    return lines[max(0, number - 1 - distance) : number + distance]


def wide_division(name, mutant, lines):
    """LLVM divides 64 bits by 32 where the operands' upper halves are 0, as those of positions and sizes always are.
    To take the other branch always makes no difference, nor does what stands in it."""
    around = _near(lines, mutant.line, 5)
    division = any(re.search(r"(rem|div)\.u64", line) for line in around)
    return division and bool(re.search(r"setp\.ne\.b64|@%p\d+ bra|(rem|div)\.u64", mutant.before))


def lanes_that_store_alike(name, mutant, lines):
    """Of lanes that hold the same value one stores it. If another does, or all, the same is stored. Which lane it is, is
    said by the bits of the lane's number under a mask."""
    text = "\n".join(lines)
    guards = set(re.findall(r"and\.b32\s+(%r\d+), %r\d+, \d+;", text))
    guards = {guard for guard in guards if re.search(rf"setp\.(ne|eq)\.b32\s+%p\d+, {guard}, 0;", text)}
    predicates = {
        match[1] for guard in guards for match in re.finditer(rf"setp\.\w+\.b32\s+(%p\d+), {guard}, 0;", text)
    }
    words = set(re.findall(r"%\w+", mutant.before))
    if mutant.operator in ("branch negated", "branch never taken"):
        return bool(words & predicates)
    if mutant.operator in ("equality inverted", "compared constant"):
        return bool(words & guards) and bool(words & predicates)
    return mutant.operator == "bit of a mask cleared" and mutant.before.split()[1].rstrip(",") in guards


def lane_of_a_row_of_one_warp(name, mutant, lines):
    """Where a block has one warp along x, the lane's number is the thread's."""
    return mutant.operator == "thread to lane" and any(re.match(r"\.reqntid 32, ", line) for line in lines)


def reference_of_the_parts(name, mutant, lines):
    """What the parts of a program exchange first is their largest score, by which all of them then measure theirs. If they
    agree on another one the answer is the same; where that makes numbers too large it is not, and they are caught."""
    barriers = [number for number, line in enumerate(lines, 1) if "bar.sync" in line]
    loads = name.startswith("attend") and "ld.shared" in mutant.before
    return loads and len(barriers) > 1 and barriers[0] < mutant.line < barriers[1]


def half_of_an_exchange(name, mutant, lines):
    """After a butterfly of sums all lanes have the sum, after moves downward the first one, which alone stores it."""
    return name == "append" and mutant.operator == "kind of a shuffle"


def wrap_within_a_tile(name, mutant, lines):
    """Rings are multiples of 16 tokens (tail_c1). Where tiles of rows begin at multiples of 16, as pages and frontiers of
    whole groups do, the slot behind the ring's last is one of a tile's first row only."""
    match = re.search(r"setp\.lt\.s32\s+(%p\d+), %r\d+, (%r\d+);", mutant.before)
    wraps = bool(match) and any(re.search(rf"selp\.b32\s+%r\d+, 0, %r\d+, {match[1]};", line) for line in lines)
    return wraps and mutant.operator == "comparison at the bound" and name in ("quantize_k", "quantize_v", "attend")


def frontier_within_a_tile(name, mutant, lines):
    """Frontiers of whole groups of 32 lie between tiles: of a tile's tokens only the first could be compared with one
    that is equal, and then no row sees the tile. The kernel for any frontier has the others."""
    if name != "attend":
        return False
    text = "\n".join(lines)
    behind_first = re.findall(r"add\.s32\s+(%r\d+), (%r\d+), \d+;", text)
    numbers = {register for pair in behind_first for register in pair}  # of tokens that a lane has, its first included
    compared = {match[1] for match in re.finditer(r"setp\.lt\.s32\s+%p\d+, (%r\d+), %r\d+;", text)}
    number = re.search(r"(?:setp\.lt\.s32\s+%p\d+, |add\.s32\s+)(%r\d+),", mutant.before)
    kinds = ("comparison at the bound", "added constant")
    ahead = bool(number) and number[1] in numbers and number[1] in compared
    behind = len(re.findall(r"setp\.le\.s32", " ".join(_near(lines, mutant.line, 4)))) >= 4
    return mutant.operator in kinds and (ahead or behind)


def load_of_what_is_masked(name, mutant, lines):
    """Rows that do not count are not loaded. If they were, also one of them, their tokens would be masked all the same."""
    if not name.startswith("attend"):
        return False
    before = " ".join(_near(lines, mutant.line, 4)[:4])
    if mutant.operator == "branch never taken" and before.count("mov.b16") >= 2:
        return True
    condition = re.search(r"setp\.ge\.s32\s+(%p\d+),", mutant.before)
    uses = [i for i, line in enumerate(lines) if condition and re.search(rf"{condition[1]}\b(?!,)", line)]
    guards = uses and all("bra" in lines[i] and "ld.global.nc" in "".join(lines[i : i + 5]) for i in uses)
    return mutant.operator == "comparison at the bound" and bool(guards)


def end_of_a_loop(name, mutant, lines):
    """A loop over tiles that goes on once more at its end has a tile of which no row counts."""
    after = " ".join(lines[mutant.line : mutant.line + 2])
    before = " ".join(lines[mutant.line - 3 : mutant.line - 1])
    loop = "bra" in after and "$L__" in before
    return mutant.operator == "comparison at the bound" and loop and bool(re.search(r"\.s(32|64)", mutant.before))


def step_of_a_loop(name, mutant, lines):
    """Of the number of a tile's first token, addresses have whole tiles only: a step that is longer by less than one reads
    the same, until a tile is missed at the end."""
    goes_on = "bra" in " ".join(lines[mutant.line : mutant.line + 4])
    own = re.search(r"add\.s32\s+(%r\d+), \1, \d+;", mutant.before)
    return name.startswith("attend") and mutant.operator == "added constant" and goes_on and bool(own)


def operand_of_ones(name, mutant, lines):
    """Sums of coefficients are products with ones, in registers that are made of 1006648320 (two halves of 1) and of a
    zero that the compiler does not know. All are alike, and only half of the rows is used."""
    text = "\n".join(lines)
    ones = re.findall(r"(?:or|add)\.[bs]32\s+(%r\d+), (%r\d+), 1006648320;", text)
    zeros = {zero for _, zero in ones} | set(re.findall(r"shr\.u64\s+(%rd\d+), %rd\d+, 63;", text))
    words = set(re.findall(r"%\w+", mutant.before))
    in_operand = words == {one for one, _ in ones}  # the four registers of the multiplication
    beside = [set(re.findall(r"%\w+", line)) for line in _near(lines, mutant.line, 1)]
    in_sum = mutant.operator == "registers of a matrix swapped" and {one for one, _ in ones} in beside
    return in_operand or in_sum or "1006648320" in mutant.before or bool(words & zeros)


def zero_of_a_place(name, mutant, lines):
    """Places of values that wait in shared memory are moved by x * (x + 1) & 1, so that no load goes before its loop. It
    is 0, and so it is under an empty mask."""
    text = "\n".join(lines)
    odd = re.findall(r"and\.b32\s+(%r\d+), %r\d+, 1;\s+cvt\.u64\.u32\s+%rd\d+, \1;", text)
    return mutant.operator == "bit of a mask cleared" and mutant.before.split()[1].rstrip(",") in odd


def other_rounding(name, mutant, lines):
    """A coefficient that is rounded to its other neighbour is still within the class's budget."""
    return name.startswith("attend") and mutant.operator == "rounded toward zero"


def power_of_q(name, mutant, lines):
    """Queries are multiplied by a power of two that their largest magnitude gives (2139095040 cuts out its exponent); any
    power nearby does."""
    if name.startswith("attend") and mutant.operator == "added constant" and "-8388608" in mutant.before:
        return True  # a power and the number behind it
    exponent = next((number for number, line in enumerate(lines, 1) if "2139095040" in line), 0)
    kinds = ("min and max", "distance of an exchange", "kind of a shuffle", "bit of an or cleared")
    return name.startswith("attend") and mutant.operator in kinds and exponent - 60 <= mutant.line <= exponent


def sign_of_zero(name, mutant, lines):
    """Queries take over the sign of the scale. A scale of 0 makes all scores 0, whatever sign it has."""
    bound = mutant.operator == "comparison at the bound" and "setp.lt.f32" in mutant.before
    return name.startswith("attend") and bound and "0f00000000" in mutant.before


def wider_range(name, mutant, lines):
    """How far loops over keys go is the least or the most of what the rows see. Of a wider range each row masks the rest."""
    kinds = ("kind of a shuffle", "distance of an exchange", "added constant", "moved constant", "min and max")
    around = " ".join(_near(lines, mutant.line, 4))
    rounded_up = any(f", {n - 1};" in mutant.before and f", -{n};" in around for n in (16, 32))
    if name.startswith("attend") and mutant.operator == "added constant of 64 bits" and rounded_up:
        return True
    # What rows have that do not exist: moved into their registers where their positions are not loaded.
    if name.startswith("attend") and mutant.operator == "moved constant" and around.count("mov.b32") >= 2:
        return True
    return name.startswith("attend") and mutant.operator in kinds and bool(re.search(r"(min|max)\.[su](32|64)", around))


RULES = (
    wide_division, lanes_that_store_alike, lane_of_a_row_of_one_warp, reference_of_the_parts, half_of_an_exchange, wrap_within_a_tile, end_of_a_loop, step_of_a_loop,
    operand_of_ones, frontier_within_a_tile, load_of_what_is_masked, zero_of_a_place, other_rounding, power_of_q, sign_of_zero, wider_range,
)  # fmt: skip
