# SPDX-License-Identifier: Apache-2.0
"""Random control flow: lanes that branch, loop and leave on their own compute what a plain interpreter of one lane does,
under both schedules; and whatever barriers and exchanges are thrown in, ptx-run ends with a report."""
import random

import pytest

import ptx_run

HEAD = """.version 7.8
.target sm_90
.address_size 64
.shared .align 16 .b8 tile[512];
.visible .entry k(.param .u64 to)
{
  .reg .pred %p, %q; .reg .b32 %r<8>, %n<40>, %t<4>; .reg .b64 %a, %b;
  ld.param.u64 %a, [to];
  mov.u32 %t0, %tid.x;
  mul.wide.u32 %b, %t0, 4;
  add.s64 %a, %a, %b;
"""
VALUES = 4
WILD = ("bar.sync 0;", "bar.sync 1, 64;", "bar.arrive 1, 64;", "bar.warp.sync 0xffffffff;", "bar.warp.sync 0xff;",
        "barrier.sync 2;", "bar.red.popc.u32 %r1, 0, %q;", "shfl.sync.bfly.b32 %r1, %r2, 5, 31, 0xffffffff;",
        "vote.sync.ballot.b32 %r2, %q, 0xffff;", "redux.sync.add.u32 %r3, %r1, 0xffffffff;", "exit;",
        "elect.sync %r1|%q, 0xff;",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [tile];", "movmatrix.sync.aligned.m8n8.trans.b16 %r2, %r1;")


class Program:
    """PTX and, of a tame one, what a lane of it makes: run(lane)."""

    def __init__(self, seed, wild):
        self.random, self.wild, self.labels, self.loops = random.Random(seed), wild, 0, 0
        self.lines = [f"mad.lo.u32 %r{i}, %t0, {self.random.randrange(1, 99)}, {i};" for i in range(VALUES)]
        self.factors = [int(line.split(", ")[2]) for line in self.lines]
        self.emit("setp.eq.u32 %q, %r0, %r1;")
        self.tree = self.block(3)
        self.ptx = HEAD + "\n".join("  " + line for line in self.lines) + "\n  st.global.u32 [%a], %r0;\n  ret;\n}\n"

    def emit(self, line):
        self.lines.append(line)

    def label(self):
        self.labels += 1
        return f"L{self.labels}"

    def condition(self):
        """Of a branch: a bit of a value."""
        value, bit = self.random.randrange(VALUES), self.random.randrange(5)
        self.emit(f"and.b32 %t1, %r{value}, {1 << bit};")
        self.emit("setp.ne.u32 %p, %t1, 0;")
        return value, bit

    def block(self, depth):
        kinds = ["alu", "alu", "alu", "wild"] + ["if", "if", "loop", "exit"] * (depth > 0)
        return [getattr(self, "make_" + self.random.choice(kinds))(depth) for _ in range(self.random.randrange(1, 5))]

    def make_alu(self, _):
        to, a, constant = self.random.randrange(VALUES), self.random.randrange(VALUES), self.random.randrange(1, 1000)
        operation = self.random.choice(("add.u32", "xor.b32", "mul.lo.u32"))
        self.emit(f"{operation} %r{to}, %r{a}, {constant};")
        return "alu", to, a, constant, operation

    def make_wild(self, depth):
        if not self.wild:
            return self.make_alu(depth)
        self.emit(self.random.choice(("", "@%q ", "@!%q ", "@%p ")) + self.random.choice(WILD))
        return None

    def make_if(self, depth):
        condition, other, end = self.condition(), self.label(), self.label()
        self.emit(f"@!%p bra {other};")
        yes = self.block(depth - 1)
        self.emit(f"bra {end};")
        self.emit(f"{other}:")
        no = self.block(depth - 1)
        self.emit(f"{end}:")
        return "if", condition, yes, no

    def make_loop(self, depth):
        value, begin, counter = self.random.randrange(VALUES), self.label(), f"%n{self.loops}"
        self.loops += 1
        self.emit(f"and.b32 {counter}, %r{value}, 3;")
        self.emit(f"{begin}:")
        body = self.block(depth - 1)
        self.emit(f"sub.u32 {counter}, {counter}, 1;")
        self.emit(f"setp.gt.s32 %p, {counter}, 0;")
        self.emit(f"@%p bra {begin};")
        return "loop", value, body

    def make_exit(self, _):
        condition = self.condition()
        self.emit("@%p st.global.u32 [%a], %r1;")
        self.emit("@%p exit;")
        return "exit", condition

    def run(self, lane):
        self.values = [(lane * factor + i) % 2**32 for i, factor in enumerate(self.factors)]
        return self.values[1] if self.walk(self.tree) else self.values[0]

    def walk(self, tree):
        """Whether the lane has left."""
        values = self.values
        for kind, *rest in tree:
            if kind == "alu":
                to, a, constant, operation = rest
                values[to] = {"add.u32": values[a] + constant, "xor.b32": values[a] ^ constant,
                              "mul.lo.u32": values[a] * constant}[operation] % 2**32
            elif kind == "loop":
                for _ in range(max(1, values[rest[0]] & 3)):
                    if self.walk(rest[1]):
                        return True
            else:
                value, bit = rest[0]
                holds = values[value] >> bit & 1
                if kind == "exit" and holds or kind == "if" and self.walk(rest[1] if holds else rest[2]):
                    return True
        return False


@pytest.mark.parametrize("schedule, seed", [("reconverge", 0), ("reconverge", 5), ("lowest-pc", 0), ("lowest-pc", 5)])
def test_every_lane_goes_its_way(schedule, seed):
    threads = 80  # the last warp has 16
    for number in range(40):
        program = Program(number, wild=False)
        (out,), _ = ptx_run.run(program.ptx, 1, threads, ptx_run.Out((threads,), "uint32"), schedule=schedule, seed=seed)
        assert out.tolist() == [program.run(lane) for lane in range(threads)], program.ptx


@pytest.mark.parametrize("schedule, seed", [("reconverge", 0), ("reconverge", 5), ("lowest-pc", 0), ("lowest-pc", 5)])
def test_anything_ends_with_a_report(schedule, seed):
    for number in range(60):
        program = Program(number, wild=True)
        _, report = ptx_run.run(program.ptx, 2, 80, ptx_run.Fill(0, (80,), "uint32"), clean=False, schedule=schedule,
                                seed=seed, limit=100000)
        assert report["status"] in ("ok", "findings", "deadlock", "limit"), report
