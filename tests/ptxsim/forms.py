# SPDX-License-Identifier: Apache-2.0
"""The table of PTX instruction forms that are compared with a GPU, and the module that executes one.

A form is an instruction with its modifiers, the types of its results, and how its operands are drawn. Its kernel reads
operand k of thread i from 8-byte slot k*n+i of the input, executes, and stores result k in slot k*n+i of the output.
Standard library only, Python 3.8: the recorder runs on a bare GPU machine.
"""
import hashlib
import struct

import form_draw


class Form:
    """One instruction form.

    outs   types of the results; "memory.b32" is a slot that the body itself writes, through %m0, %m1 ..
    ins    kinds of the operands (form_draw.value); a register operand takes the next one
    body   PTX with %d0.. for results and %a0.. for operands; None: "op %d0, %a0, ..;"
    target, version  the least SM and the least PTX version
    given  operands, one list each, instead of drawn ones
    check  how a result is compared: "exact", ("rel", bound), ("ulp", bound), ("abs", bound), ("mma", ..)
    """

    def __init__(self, op, outs, ins, body=None, name=None, target=80, version=80, check="exact", count=128, block=32,
                 arch="", gpu=True, given=None):
        self.op, self.outs, self.ins = op, tuple(outs.split()), tuple(ins.split())
        self.name = name or op
        self.body = body or default_body(op, self.outs, self.ins)
        self.target, self.version, self.arch = target, version, arch
        self.check, self.count, self.block, self.gpu, self.given = check, count, block, gpu, given
        assert count % block == 0, self.name

    def inputs(self):
        return self.given or form_draw.columns(self.name, self.ins, self.count)

    def ptx(self):
        return module(self)


def default_body(op, outs, ins):
    results = "|".join("%%d%d" % k for k in range(len(outs)))
    return "%s %s;" % (op, ", ".join([results] * bool(outs) + ["%%a%d" % k for k in range(len(ins))]))


def register(kind):
    """The register class of an operand: untyped, which every instruction accepts for its size."""
    if kind == "pred":
        return ".pred"
    return ".b%d" % form_draw.width(kind)


def load(slot, kind, count):
    address = "[%%in+%d]" % (slot * count * 8)
    if kind == "pred":
        return "ld.global.b32 %%w%d, %s;\n  setp.ne.b32 %%a%d, %%w%d, 0;" % (slot, address, slot, slot)
    return "ld.global.b%d %%a%d, %s;" % (form_draw.width(kind), slot, address)


def store(slot, kind, count):
    address = "[%%out+%d]" % (slot * count * 8)
    if kind == "pred":
        return "selp.b32 %%v%d, 1, 0, %%d%d;\n  st.global.b32 %s, %%v%d;" % (slot, slot, address, slot)
    return "st.global.b%d %s, %%d%d;" % (form_draw.width(kind), address, slot)


HEADER = """.version %d.%d
.target sm_%d%s
.address_size 64
.visible .entry form(.param .u64 input, .param .u64 output)
{
"""
PROLOGUE = """  .reg .b64 %in, %out, %base, %x<8>;
  .reg .b32 %i, %lane, %block, %threads, %t<16>, %w<24>, %v<24>, %sm;
  .reg .b16 %h<8>;
  .reg .pred %p, %q;
"""
ENTRY = """  ld.param.u64 %in, [input];
  cvta.to.global.u64 %in, %in;
  mov.b64 %base, %in;
  ld.param.u64 %out, [output];
  cvta.to.global.u64 %out, %out;
  mov.u32 %i, %tid.x;
  mov.u32 %block, %ctaid.x;
  mov.u32 %threads, %ntid.x;
  mad.lo.s32 %i, %block, %threads, %i;
  and.b32 %lane, %i, 31;
  mul.wide.u32 %x0, %i, 8;
  add.s64 %in, %in, %x0;
  add.s64 %out, %out, %x0;
"""


def module(form):
    """The PTX text of one kernel, `form`, of parameters (input, output)."""
    lines = [HEADER % (form.version // 10, form.version % 10, form.target, form.arch), PROLOGUE]
    for slot, kind in enumerate(form.ins):
        lines.append("  .reg %s %%a%d;\n" % (register(kind), slot))
    for slot, kind in enumerate(form.outs):
        lines.append("  .reg .b64 %%m%d;\n" % slot if kind.startswith("memory.") else
                     "  .reg %s %%d%d;\n" % (register(kind), slot))
    if "%sm" in form.body:
        lines.append("  .shared .align 16 .b8 memory[2048];\n")
    lines.append(ENTRY)
    if "%sm" in form.body:
        lines.append("  mov.u32 %sm, memory;\n")
    for slot, kind in enumerate(form.ins):
        lines.append("  %s\n" % load(slot, kind, form.count))
    for slot, kind in enumerate(form.outs):
        if kind.startswith("memory."):
            lines.append("  add.s64 %%m%d, %%out, %d;\n" % (slot, slot * form.count * 8))
    lines.append("  %s\n" % form.body)
    for slot, kind in enumerate(form.outs):
        if not kind.startswith("memory."):
            lines.append("  %s\n" % store(slot, kind, form.count))
    lines.append("  ret;\n}\n")
    return "".join(lines)


def output_bytes(form):
    """Bytes that a result keeps in a golden file, for each output."""
    return [4 if kind == "pred" else form_draw.width(kind.replace("memory.", "")) // 8 for kind in form.outs]


def pack_inputs(form):
    return b"".join(struct.pack("<%dQ" % form.count, *column) for column in form.inputs())


def digest(form):
    """What a golden result depends on: the kernel and its inputs."""
    return hashlib.sha256(form.ptx().encode() + pack_inputs(form)).hexdigest()[:16]


def all_forms():
    """Every form, in the order of the families."""
    import form_convert
    import form_float
    import form_integer
    import form_memory
    import form_mma
    import form_warp
    found = []
    for family in (form_integer, form_float, form_convert, form_warp, form_memory, form_mma):
        found += family.forms()
    names = [form.name for form in found]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    return found
