# SPDX-License-Identifier: Apache-2.0
"""PTX text around the instructions under test: loads registers from buffers, stores registers to buffers."""

WIDTHS = {"b8": 1, "b16": 2, "b32": 4, "b64": 8}


def header(target="sm_90a"):
    return f".version 8.7\n.target {target}\n.address_size 64\n"


def lane_kernel(body, inputs, outputs, registers="", target="sm_90a", shared=""):
    """A kernel of which each thread has its own row of every buffer.

    inputs and outputs are lists of (type, count), the type a bit size. Register %x<k>_<i> has element i of the thread's
    row of input k; %y<k>_<i> is stored to output k. %o<k> is the address of the row, %t the thread's number in the
    block, %i its number in the grid. An output that is (type, count, "body") has no registers: the body stores it.
    """
    buffers = [("x", k, *b) for k, b in enumerate(inputs)] + [("y", k, *b) for k, b in enumerate(outputs)]
    parameters = ", ".join(f".param .u64 p{n}" for n in range(len(buffers)))
    lines = [header(target), f".visible .entry kernel({parameters})", "{", shared, registers]
    lines += [".reg .b32 %t, %i, %threads, %block;", ".reg .b64 %base, %offset;"]
    loads, stores, starts = [], [], []
    for n, (letter, k, kind, count, *by_body) in enumerate(buffers):
        address = f"%{'a' if letter == 'x' else 'o'}{k}"
        size = WIDTHS[kind] * count
        count = 0 if by_body else count
        lines.append(f".reg .b64 {address};")
        lines += [f".reg .{kind} %{letter}{k}_{i};" for i in range(count)]
        starts += [f"ld.param.u64 %base, [p{n}];", "cvta.to.global.u64 %base, %base;"]
        starts += [f"mul.wide.u32 %offset, %i, {size};", f"add.s64 {address}, %base, %offset;"]
        verb, code = ("ld", loads) if letter == "x" else ("st", stores)
        for i in range(count):
            register, place = f"%{letter}{k}_{i}", f"[{address}+{i * WIDTHS[kind]}]"
            operands = f"{register}, {place}" if verb == "ld" else f"{place}, {register}"
            code.append(f"{verb}.global.{kind} {operands};")
    lines += ["mov.u32 %t, %tid.x;", "mov.u32 %threads, %ntid.x;", "mov.u32 %block, %ctaid.x;"]
    lines += ["mad.lo.u32 %i, %block, %threads, %t;", *starts, *loads, body, *stores, "ret;", "}"]
    return "\n".join(line for line in lines if line) + "\n"


def rows(letter, k, count):
    """The register list of a row: {%x0_0, %x0_1}."""
    return "{" + ", ".join(f"%{letter}{k}_{i}" for i in range(count)) + "}"
