# SPDX-License-Identifier: Apache-2.0
"""The steady-state loop of recorded machine code (sass/: ptxas 13.0.88, nvdisasm 13.5.37, by record.sh)."""

from collections import Counter
from pathlib import Path

import pytest
from kvq.errors import InvalidArgument
from kvq.inspect import opcodes, sass, steady

SASS = Path(__file__).resolve().parent / "sass"
TARGETS = ("sm_80", "sm_90", "sm_120")


def function(kernel, target):
    return sass.parse((SASS / f"{kernel}.{target}.sass").read_text(encoding="utf-8"))[kernel]


def lines_of(kernel, **counts):
    """{PTX line: executions} by labels: the lines from a label to the branch back to it, the inner loop's winning."""
    text = (SASS / f"{kernel}.ptx").read_text(encoding="utf-8").splitlines()
    result = dict.fromkeys(range(1, len(text) + 1), 1)
    for label, count in sorted(counts.items(), key=lambda item: text.index(f"{item[0]}:")):
        begin = text.index(f"{label}:")
        end = next(i for i in range(begin, len(text)) if f"bra {label};" in text[i])
        result |= dict.fromkeys(range(begin + 1, end + 2), count)
    return result


@pytest.mark.parametrize("target", TARGETS)
def test_every_instruction_is_read(target):
    for kernel in ("divide", "tiles", "top"):
        text = (SASS / f"{kernel}.{target}.sass").read_text(encoding="utf-8")
        found = function(kernel, target).instructions
        assert [i.offset for i in found] == list(range(0, 16 * text.count("        /*"), 16))
        assert not [i.opcode for i in found if opcodes.cost_of(i).group == opcodes.UNKNOWN]


@pytest.mark.parametrize("target", TARGETS)
def test_slow_path_is_no_part_of_the_loop(target):
    found = function("divide", target)
    loop = steady.steady_loop(found)
    inside = [i for block in loop.blocks for i in loop.flow.instructions(block)]
    slow = found.instructions[found.labels["$__internal_0_$__cuda_sm3x_div_rn_noftz_f32_slowpath"]]
    assert all(i.offset < slow.offset for i in inside)
    # The loop is the text between its header's label and the branch to it, and the call is one of its ways.
    assert [i.offset for i in inside] == list(range(inside[0].offset, inside[-1].offset + 16, 16))
    begin = found.instructions.index(inside[0])
    assert inside[-1].name == "BRA" and [found.labels[name] for name in inside[-1].targets] == [begin]
    assert Counter(i.name for i in inside)["CALL"] == 1
    assert loop.chosen_by == steady.BY_MATRIX and loop.iterations is None
    assert 0 < loop.sometimes < len(inside) and loop.issue_slots == len(inside)


@pytest.mark.parametrize("target", TARGETS)
def test_executions_by_lines(target):
    """The call of the slow path has the line of the division: it counts as if every division took it."""
    found = function("divide", target)
    loop = steady.steady_loop(found, lines_of("divide", LOOP=1000))
    assert loop.chosen_by == steady.BY_EXECUTIONS and loop.iterations == 1000
    assert loop.issue_slots == len([i for b in loop.blocks for i in loop.flow.instructions(b)])


@pytest.mark.parametrize("target", TARGETS)
def test_outer_loop_by_matrix_products(target):
    loop = steady.steady_loop(function("tiles", target))
    assert loop.chosen_by == steady.BY_MATRIX and loop.depth == 1
    assert loop.classes["HMMA"] == 2 and loop.pipes["tensor"] == 2 * 16 * 8 * 16
    assert loop.classes["MUFU"] == 5 and loop.copies == 1


@pytest.mark.parametrize("target", TARGETS)
def test_a_branch_of_the_last_tile_hardly_counts(target):
    """The inner loop runs once for each tile, so that the tile loop's own blocks executed most."""
    lines = lines_of("tiles", TILE=800, INNER=800)
    text = (SASS / "tiles.ptx").read_text(encoding="utf-8").splitlines()
    first = 1 + next(i for i, line in enumerate(text) if "bra WHOLE" in line)
    last = 1 + next(i for i, line in enumerate(text) if line.startswith("WHOLE"))
    lines |= dict.fromkeys(range(first + 1, last), 8)
    loop = steady.steady_loop(function("tiles", target), lines)
    assert loop.chosen_by == steady.BY_EXECUTIONS and loop.iterations == 800
    assert loop.classes["HMMA"] == 2 and loop.classes["MUFU"] == pytest.approx(5 * 8 / 800)
    assert sum(loop.classes.values()) == pytest.approx(loop.issue_slots)


@pytest.mark.parametrize("target", TARGETS)
def test_executions_come_before_matrix_products(target):
    """An inner loop of many iterations is what the kernel spends its time in."""
    loop = steady.steady_loop(function("tiles", target), lines_of("tiles", TILE=100, INNER=5000))
    assert loop.chosen_by == steady.BY_EXECUTIONS and loop.depth == 2 and "HMMA" not in loop.classes


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("warps, turns", [(1, 1), (8, 2), (32, 3)])
def test_loop_that_tests_at_its_top(target, warps, turns):
    """Proves that iterations are those of the body: each warp executes the exit test once more than it, and the branch
    back has the line of that test. Products are on the last of their lines, of which the simulator counts the first."""
    text = (SASS / "top.ptx").read_text(encoding="utf-8").splitlines()
    words = ("setp", "ld.global", "mma.sync", "bra.uni")
    test, load, product, back_to_test = (next(i for i, line in enumerate(text, 1) if word in line) for word in words)
    lines = {line: warps for line in range(1, len(text) + 1)}
    lines |= dict.fromkeys((test, test + 1), warps * (turns + 1))
    lines |= dict.fromkeys(range(load, back_to_test + 1), warps * turns)
    for line in range(product + 1, product + 5):
        del lines[line]
    loop = steady.steady_loop(function("top", target), lines)
    back = loop.flow.instructions(loop.loop.latches[0])[-1]
    assert lines.get(back.line) in (warps * (turns + 1), None)  # sm_120: a line of the product
    assert (loop.iterations, loop.copies, loop.classes["HMMA"]) == (warps * turns, 1, 1)


def test_lines_that_were_never_executed_choose_nothing():
    loop = steady.steady_loop(function("tiles", "sm_80"), dict.fromkeys(range(100), 0))
    assert loop.chosen_by == steady.BY_MATRIX and loop.classes["HMMA"] == 2


STRAIGHT = """
.text.k:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   EXIT ;
.L_x_0:
        /*0020*/                   BRA `(.L_x_0);
"""


def test_code_without_a_loop():
    """The endless branch behind the end of a kernel is none."""
    assert steady.steady_loop(sass.parse(STRAIGHT)["k"]) is None


NESTED = """
.text.k:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
\t//## File ".nv_debug_ptx_txt", line 5
        /*0010*/                   LDG.E R4, [R2.64] ;
.L_x_1:
\t//## File ".nv_debug_ptx_txt", line 6
        /*0020*/                   FADD R5, R5, R4 ;
\t//## File ".nv_debug_ptx_txt", line 7
        /*0030*/               @P1 BRA `(.L_x_1) ;
\t//## File ".nv_debug_ptx_txt", line 8
        /*0040*/                   HMMA.16816.F32 R12, R4, R8, R12 ;
\t//## File ".nv_debug_ptx_txt", line 9
        /*0050*/               @P0 BRA `(.L_x_0) ;
        /*0060*/                   EXIT ;
"""


def nested(outer, inner):
    return steady.steady_loop(sass.parse(NESTED)["k"], {5: outer, 6: inner, 7: inner, 8: outer, 9: outer})


def test_blocks_of_a_loop_inside_are_not_its_own():
    """3 own instructions of the outer loop against 2 of the inner one."""
    few, many = nested(10, 14), nested(10, 16)
    assert (few.depth, few.classes, few.executed) == (1, {"HMMA": 1, "LDG": 1, "branch": 1}, 30)
    assert (many.depth, many.classes, many.executed) == (2, {"FP32": 1, "branch": 1}, 32)


def test_costs_of_all_loops_together():
    few, many = nested(10, 14), nested(10, 16)
    assert few.nest_issue_slots == pytest.approx((3 * 10 + 2 * 14) / 10)
    assert many.nest_issue_slots == pytest.approx((3 * 10 + 2 * 16) / 16)
    assert many.nest_pipes["tensor"] == pytest.approx(2048 * 10 / 16) and many.nest_pipes["fma"] == pytest.approx(32)
    unknown = steady.steady_loop(sass.parse(NESTED)["k"])
    assert unknown.nest_issue_slots == unknown.issue_slots == 3


UNROLLED = """
.text.k:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
\t//## File ".nv_debug_ptx_txt", line 7
        /*0010*/                   LDG.E.128 R4, [R2.64] ;
        /*0020*/                   LDG.E.128 R8, [R2.64+0x200] ;
\t//## File ".nv_debug_ptx_txt", line 8
        /*0030*/                   HMMA.16816.F32 R12, R4, R8, R12 ;
        /*0040*/                   HMMA.16816.F32 R12, R4, R8, R12 ;
\t//## File ".nv_debug_ptx_txt", line 9
        /*0050*/               @P0 CALL.REL.NOINC `(.L_x_1) ;
        /*0060*/                   BRA `(.L_x_0) ;
.L_x_1:
        /*0070*/                   EXIT ;
"""


def test_unrolled_loop_and_a_jump_out_of_it_as_a_call():
    loop = steady.steady_loop(sass.parse(UNROLLED)["k"], {7: 100, 8: 100, 9: 100})
    assert (loop.copies, loop.iterations, loop.issue_slots) == (2, 50, 6)
    assert loop.classes == {"HMMA": 2, "LDG": 2, "branch": 2}
    assert loop.pipes["lsu"] == 2 * 4


REST = """
.text.k:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
\t//## File ".nv_debug_ptx_txt", line 5
        /*0010*/                   LDG.E R4, [R2.64] ;
.L_x_1:
\t//## File ".nv_debug_ptx_txt", line 6
        /*0020*/                   LDG.E R5, [R6.64] ;
        /*0030*/                   LDG.E R5, [R6.64+0x200] ;
\t//## File ".nv_debug_ptx_txt", line 7
        /*0040*/                   LDG.E R5, [R8.64] ;
        /*0050*/                   LDG.E R5, [R8.64+0x200] ;
\t//## File ".nv_debug_ptx_txt", line 8
        /*0060*/               @P1 BRA `(.L_x_1) ;
\t//## File ".nv_debug_ptx_txt", line 6
        /*0070*/                   LDG.E R5, [R6.64] ;
\t//## File ".nv_debug_ptx_txt", line 7
        /*0080*/                   LDG.E R5, [R8.64] ;
\t//## File ".nv_debug_ptx_txt", line 9
        /*0090*/                   FADD R12, R12, R4 ;
        /*00a0*/                   FADD R12, R12, R4 ;
        /*00b0*/                   FADD R12, R12, R4 ;
\t//## File ".nv_debug_ptx_txt", line 10
        /*00c0*/               @P0 BRA `(.L_x_0) ;
        /*00d0*/                   EXIT ;
"""


def test_what_is_left_of_an_unrolled_loop_inside_does_not_count():
    """Proves that lines of the loop inside, which most loads of the outer one have, say nothing about the outer one."""
    loop = steady.steady_loop(sass.parse(REST)["k"], {5: 100, 6: 150, 7: 150, 8: 150, 9: 100, 10: 100})
    assert (loop.depth, loop.iterations, loop.copies) == (1, 100, 1)
    assert [inner.iterations for inner in loop.nest if inner is not loop and inner.depth == 2] == [75]


def test_branch_to_nowhere_is_refused():
    text = STRAIGHT.replace("`(.L_x_0)", "`(.L_x_7)")
    with pytest.raises(InvalidArgument, match=r"k, offset 0x20: BRA goes to \.L_x_7, which is not in the function"):
        steady.steady_loop(sass.parse(text)["k"])
    with pytest.raises(InvalidArgument, match="BRX goes where the disassembly does not say"):
        steady.steady_loop(sass.parse(STRAIGHT.replace("BRA `(.L_x_0)", "BRX R2 -0x20"))["k"])
    with pytest.raises(InvalidArgument, match="no instruction in the disassembly"):
        sass.parse("\t.target sm_80\n")


def test_branch_table_goes_to_all_that_it_lists():
    text = STRAIGHT.replace("MOV R1, c[0x0][0x28] ;", 'BRX R2 -0x20 (*"BRANCH_TARGETS .L_x_0,.L_x_1"*);').replace(
        "        /*0010*/", ".L_x_1:\n        /*0010*/"
    )
    flow = sass.flow_of(sass.parse(text)["k"])
    assert flow.successors == ((2, 1), (), (2,))
