# SPDX-License-Identifier: Apache-2.0
"""Mutants of kernels that are no mistakes: rules on the changed line and what stands around it, each with its reason.

Rules and not a list of lines: the compiler's output changes with every improvement of it.
"""

import re


def _near(lines, number, distance):
    return lines[max(0, number - 1 - distance) : number + distance]


def has_frontiers_of_groups(name):
    return name.startswith("attend") and "any frontier" not in name


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


def warps_that_store_alike(name, mutant, lines):
    """When the parts of a program are merged, every warp has the answer: the first one stores it, and so could the second."""
    copy = r"(?:mov\.u32|shfl\.sync\.idx\.b32|cvt\.u64\.u32|cvt\.u32\.u64)\s+(%\w+), (%[\w.]+)[,;]"
    names = {"%tid.y"}
    for line in lines:
        copied = re.search(copy, line)
        names |= {copied[1]} if copied and copied[2] in names else set()
    compared = re.search(r"setp\.eq\.b32\s+%p\d+, (%r\d+), 0;", mutant.before)
    return mutant.operator == "compared constant" and bool(compared) and compared[1] in names


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
    return wraps and mutant.operator == "comparison at the bound" and (
        name in ("quantize_k", "quantize_v") or has_frontiers_of_groups(name)
    )


def frontier_within_a_tile(name, mutant, lines):
    """Frontiers of whole groups of 32 lie between tiles: of a tile's tokens only the first could be compared with one
    that is equal, and then no row sees the tile. The kernel for any frontier has the others."""
    if not has_frontiers_of_groups(name):
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
    before, after = " ".join(_near(lines, mutant.line, 4)[:4]), " ".join(lines[mutant.line : mutant.line + 4])
    left_out = len(re.findall(r"mov\.b(?:16|32)", before)) >= 2 and "ld.global.nc" in after
    if mutant.operator == "branch never taken" and left_out:
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
    """Cut off, a coefficient is off by at most 2^-10 of itself, which is within the budget of class exact (1e-3), and the
    instruction makes one or two of a lane's 16 and more."""
    cut = mutant.operator == "rounded toward zero" and re.search(r"cvt\.rn\.f16(x2)?\.f32", mutant.before)
    return name.startswith("attend") and bool(cut)


def what_is_left(name, mutant, lines):
    """What rounding to a half leaves of a coefficient is at most 2^-11 of it; times 2048 (0f45000000) it is a second half,
    with a product of its own. Doubled, of the other sign or beside other rows of q, it moves the sum of both by no more
    than twice that, as in other_rounding."""
    text = "\n".join(lines)
    enlarged = re.findall(r"mul\.rn\.f32\s+(%r\d+), (%r\d+), 0f45000000;", text)
    results, remainders = ({pair[i] for pair in enlarged} for i in (0, 1))
    halves = {half for half, *of in re.findall(r"cvt\.rn\.f16x2\.f32\s+(%r\d+), (%r\d+), (%r\d+);", text)
              if set(of) <= results}  # fmt: skip
    words = re.findall(r"%r\d+", mutant.before)
    if not name.startswith("attend"):
        return False
    if mutant.operator in ("operands of sub swapped", "float constant of another size"):
        return words[0] in (remainders if "sub." in mutant.before else results)
    beside = re.findall(r"%r\d+", lines[mutant.line - 2])
    return mutant.operator == "registers of a matrix swapped" and len(beside) == 4 and set(beside) <= halves


def last_bit_of_a_power(name, mutant, lines):
    """Powers of two are multiplied by adding a multiple of 2^23 to their bits: one more in it is one ulp of f32."""
    added = re.search(r"add\.s32\s+%r\d+, %r\d+, (-?\d+);", mutant.before)
    is_power = bool(added) and int(added[1]) % (1 << 23) == 0
    return name.startswith("attend") and mutant.operator == "added constant" and is_power


def power_of_four(name, mutant, lines):
    """Coefficients are divided by the power of two below the largest, which its exponent's bits are (2139095040). Without
    the last of these it is a power of four: the quotients are below 4 and not 2, which halves hold as exactly."""
    cleared = mutant.operator == "bit of a mask cleared" and ", 2139095040;" in mutant.before
    return name.startswith("attend") and cleared


def exchange_that_first_lanes_read(name, mutant, lines):
    """The largest or least number of four lanes is read from the first of them (shfl.idx). Exchanges with the lane 1 and
    then with the lane 2 above it bring it there, as those of a butterfly do."""
    move = re.search(r"shfl\.sync\.bfly\.b32\s+(%r\d+), (%r\d+), [12],", mutant.before)
    if not (name.startswith("attend") and mutant.operator == "kind of a shuffle" and move):
        return False
    value = move[1]
    for line in lines[mutant.line : mutant.line + 8]:
        combined = re.search(rf"(?:min|max)\.[usf]32\s+(%r\d+), %r\d+, {value};", line)
        moved = re.search(rf"shfl\.sync\.bfly\.b32\s+(%r\d+), {value}, 2,", line)
        value = (combined or moved or [None, value])[1]
    return any(re.search(rf"shfl\.sync\.idx\.b32\s+%r\d+, {value}, ", line) for line in lines)


def sign_of_zero(name, mutant, lines):
    """Queries take over the sign of the scale. A scale of 0 makes all scores 0, whatever sign it has."""
    bound = mutant.operator == "comparison at the bound" and "setp.lt.f32" in mutant.before
    return name.startswith("attend") and bound and "0f00000000" in mutant.before


def a_tile_too_many(name, mutant, lines):
    """Counts are rounded up to whole tiles by + (n - 1) & -n. With 2 * (n - 1) there is a tile more, of which no row
    counts."""
    after = " ".join(lines[mutant.line : mutant.line + 2])
    rounded_up = any(f", {n - 1};" in mutant.before and f", -{n};" in after for n in (16, 32))
    return name.startswith("attend") and mutant.operator == "added constant of 64 bits" and rounded_up


def what_is_not_loaded(name, mutant, lines):
    """What a register holds where its load is left out: rows that do not exist, whose answers nobody stores, and tokens
    that are masked; no number, 1 neither, makes a NaN or an infinity of them."""
    moved = re.search(r"mov\.b32\s+(%r\d+), 0;", mutant.before)
    if not (name.startswith("attend") and mutant.operator == "moved constant" and moved):
        return False
    after = lines[mutant.line : mutant.line + 24]
    copies = {m[1] for line in after if (m := re.search(rf"mov\.b32\s+(%r\d+), {moved[1]};", line))} | {moved[1]}
    loaded = {r for line in after if "ld.global.nc" in line for r in re.findall(r"%r\d+", line.split("[")[0])}
    return copies <= loaded and "bra" in " ".join(after[:6])


RULES = (
    wide_division, lanes_that_store_alike, warps_that_store_alike, lane_of_a_row_of_one_warp, reference_of_the_parts,
    half_of_an_exchange, wrap_within_a_tile, end_of_a_loop, operand_of_ones, frontier_within_a_tile,
    load_of_what_is_masked, zero_of_a_place, other_rounding, what_is_left, last_bit_of_a_power, power_of_four,
    exchange_that_first_lanes_read, sign_of_zero, a_tile_too_many, what_is_not_loaded,
)  # fmt: skip
