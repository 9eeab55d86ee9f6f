# SPDX-License-Identifier: Apache-2.0
"""mma.sync: every shape and type up to sm_90. One warp is one product; its number picks the profile of the values."""
from forms import Form

BITS = {"f16": 16, "bf16": 16, "tf32": 32, "f64": 64, "e4m3": 8, "e5m2": 8, "s8": 8, "u8": 8, "s4": 4, "u4": 4, "b1": 1}


def product(shape, d, a, b, c, suffix="", target=80, version=80, count=256, name=""):
    """The form of one shape (m, n, k) and its types: results, operands a, b and the accumulator c."""
    m, n, k = shape
    register = 64 if a == "f64" else 32
    registers = [m * k * BITS[a] // 32 // register, n * k * BITS[b] // 32 // register,
                 m * n * (16 if c == "f16" else 64 if c == "f64" else 32) // 32 // register]
    floating = a[0] in "fbe" and a != "b1" or a == "tf32"
    kinds = ["mma." + a, "mma." + b, "mma.acc." + c] if floating else ["b32", "b32", "s32"]
    ins = [kind for kind, many in zip(kinds, registers) for _ in range(many)]
    out = {"f16": "f16x2", "f32": "f32", "f64": "f64", "s32": "b32"}[d]
    op = "mma.sync.aligned.m%dn%dk%d.row.col.%s.%s.%s.%s" % (m, n, k, d, a, b, c)
    op = op + suffix if a == "b1" else op.replace(".col", ".col" + suffix)
    groups, begin = [], 0
    for many in registers:
        groups.append("{%s}" % ", ".join("%%a%d" % (begin + i) for i in range(many)))
        begin += many
    results = "{%s}" % ", ".join("%%d%d" % i for i in range(registers[2]))
    body = "%s\n    %s,\n    %s,\n    %s,\n    %s;" % (op, results, *groups)
    # In double precision the products are added one by one, each rounded: nothing is left open.
    check = ("mma", a, b, c, shape) if floating and a != "f64" else "exact"
    return Form(op, " ".join([out] * registers[2]), " ".join(ins), body, target=target, version=version, check=check,
                count=count)


def floats():
    for k, count in ((8, 512), (16, 1024)):
        yield product((16, 8, k), "f32", "f16", "f16", "f32", count=count)
        yield product((16, 8, k), "f16", "f16", "f16", "f16", count=512)
        yield product((16, 8, k), "f32", "bf16", "bf16", "f32", count=count)
    for k in (4, 8):
        yield product((16, 8, k), "f32", "tf32", "tf32", "f32", count=512)
    for a in ("e4m3", "e5m2"):
        for b in ("e4m3", "e5m2"):
            yield product((16, 8, 32), "f32", a, b, "f32", target=89, version=84, count=1024 if a == b else 512)
            yield product((16, 8, 32), "f16", a, b, "f16", target=89, version=87)
            yield product((16, 8, 16), "f32", a, b, "f32", target=89, version=87)
    yield product((8, 8, 4), "f64", "f64", "f64", "f64")
    for k in (4, 8, 16):
        yield product((16, 8, k), "f64", "f64", "f64", "f64", target=90)


def integers():
    for a in ("s8", "u8"):
        for b in ("s8", "u8"):
            for saturate in ("", ".satfinite"):
                for shape in ((8, 8, 16), (16, 8, 16), (16, 8, 32)):
                    yield product(shape, "s32", a, b, "s32", saturate, count=128)
    for a in ("s4", "u4"):
        for b in ("s4", "u4"):
            for shape in ((8, 8, 32), (16, 8, 32), (16, 8, 64)):
                yield product(shape, "s32", a, b, "s32", ".satfinite" if a == "s4" and b == "u4" else "", count=128)
    for op in (".xor.popc", ".and.popc"):
        for shape in ((8, 8, 128), (16, 8, 128), (16, 8, 256)):
            yield product(shape, "s32", "b1", "b1", "s32", op, count=128)


def forms():
    return [form for family in (floats, integers) for form in family()]
