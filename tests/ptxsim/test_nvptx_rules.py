# SPDX-License-Identifier: Apache-2.0
"""Each rule of kvq-nvptx-lower-tiles alone: a program of one op with loads and stores around it, compiled for sm_80,
run in the simulator with every check on, against NumPy. Shapes are random and ragged; a seed is all there is to a
case."""

import numpy as np
import pytest

import tile_ops
from ptx_run import In, InOut, Out, U64
from tile_kernels import expect, kernel, load, pointer, rows_at, run, store, tile

EXTENTS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128)


def shape_of(random, ranks=(1, 2), most=4096):
    """Extents of 1 or 2 dimensions."""
    while True:
        shape = tuple(int(random.choice(EXTENTS)) for _ in range(random.choice(ranks)))
        if np.prod(shape) <= most:
            return shape


def whole(random, shape, most=50):
    """Integers in f32: sums of them are exact."""
    return random.integers(-most, most + 1, shape).astype(np.float32)


def unary(line, source, result, *shape):
    """A program that applies lines to %x and stores %y."""
    return kernel({"in": pointer(source), "out": pointer(result)}, "\n".join(
        [load("x", "in", source, *shape), line, store("y", "out", result, *shape)]))


# ---- element by element

FLOAT_OPS = {
    "arith.addf": np.add, "arith.subf": np.subtract, "arith.mulf": np.multiply, "arith.divf": np.divide,
    "arith.maxnumf": np.maximum, "arith.minnumf": np.minimum, "arith.maximumf": np.maximum,
    "math.copysign": np.copysign,
}
INTEGER_OPS = {
    "arith.addi": np.add, "arith.subi": np.subtract, "arith.muli": np.multiply, "arith.andi": np.bitwise_and,
    "arith.ori": np.bitwise_or, "arith.xori": np.bitwise_xor, "arith.maxsi": np.maximum, "arith.minsi": np.minimum,
    "arith.divui": lambda a, b: (a.view(np.uint32) // b.view(np.uint32)).view(np.int32),
    "arith.remui": lambda a, b: (a.view(np.uint32) % b.view(np.uint32)).view(np.int32),
    "arith.maxui": lambda a, b: np.maximum(a.view(np.uint32), b.view(np.uint32)).view(np.int32),
    "arith.minui": lambda a, b: np.minimum(a.view(np.uint32), b.view(np.uint32)).view(np.int32),
}


def binary(op, element, *shape):
    arguments = {"a": pointer(element), "b": pointer(element), "out": pointer(element)}
    return kernel(arguments, "\n".join([load("x", "a", element, *shape), load("z", "b", element, *shape),
                                        f"%y = {op} %x, %z : {tile(element, *shape)}",
                                        store("y", "out", element, *shape)]))


@pytest.mark.parametrize("op", FLOAT_OPS)
def test_float(op):
    random = np.random.default_rng(len(op))
    for _ in range(2):
        shape = shape_of(random)
        a, b = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
        expect(binary(op, "f32", *shape), [a, b], [FLOAT_OPS[op](a, b)])


@pytest.mark.parametrize("op", INTEGER_OPS)
def test_integer(op):
    random = np.random.default_rng(len(op))
    for _ in range(2):
        shape = shape_of(random)
        a, b = (random.integers(-2**31, 2**31, shape).astype(np.int32) for _ in range(2))
        b[b == 0] = 1
        expect(binary(op, "i32", *shape), [a, b], [INTEGER_OPS[op](a, b)])


@pytest.mark.parametrize("op", ("shli", "shrsi", "shrui"))
def test_shift(op):
    random = np.random.default_rng(2)
    shape = shape_of(random)
    a, b = random.integers(-2**31, 2**31, shape).astype(np.int32), random.integers(0, 32, shape).astype(np.int32)
    wanted = {"shli": lambda: a << b, "shrsi": lambda: a >> b,
              "shrui": lambda: (a.view(np.uint32) >> b.view(np.uint32)).view(np.int32)}[op]()
    expect(binary(f"arith.{op}", "i32", *shape), [a, b], [wanted])


@pytest.mark.parametrize("seed", range(4))
def test_halves_stay_in_pairs_or_not(seed):
    """f16 by itself and mixed with f32: rounding and extension of every element."""
    random = np.random.default_rng(seed)
    shape = shape_of(random)
    x = random.standard_normal(shape).astype(np.float32)
    lines = f"%h = arith.truncf %x : {tile('f32', *shape)} to {tile('f16', *shape)}\n"
    if seed % 2:
        lines += f"%y = arith.addf %h, %h : {tile('f16', *shape)}"
        expect(unary(lines, "f32", "f16", *shape), [x], [x.astype(np.float16) * np.float16(2)])
    else:
        lines += f"%y = arith.extf %h : {tile('f16', *shape)} to {tile('f32', *shape)}"
        expect(unary(lines, "f32", "f32", *shape), [x], [x.astype(np.float16).astype(np.float32)])


def test_conversions():
    random = np.random.default_rng(3)
    for seed in range(3):
        shape = shape_of(np.random.default_rng(seed))
        i, f = random.integers(-1000, 1000, shape).astype(np.int32), whole(random, shape, 1000) + np.float32(0.5)
        ft, it = tile("f32", *shape), tile("i32", *shape)
        expect(unary(f"%y = arith.sitofp %x : {it} to {ft}", "i32", "f32", *shape), [i], [i.astype(np.float32)])
        expect(unary(f"%y = arith.fptosi %x : {ft} to {it}", "f32", "i32", *shape), [f], [np.trunc(f).astype(np.int32)])
        expect(unary(f"%y = arith.bitcast %x : {ft} to {it}", "f32", "i32", *shape), [f], [f.view(np.int32)])
        bytes_ = random.integers(-128, 128, shape).astype(np.int8)
        expect(unary(f"%y = arith.extsi %x : {tile('i8', *shape)} to {it}", "i8", "i32", *shape), [bytes_],
               [bytes_.astype(np.int32)])
        expect(unary(f"%y = arith.trunci %x : {it} to {tile('i8', *shape)}", "i32", "i8", *shape), [i],
               [i.astype(np.int8)])
        wide = f"%w = arith.extsi %x : {it} to {tile('i64', *shape)}\n%y = arith.muli %w, %w : {tile('i64', *shape)}"
        expect(unary(wide, "i32", "i64", *shape), [i], [i.astype(np.int64)**2])


def test_functions():
    random = np.random.default_rng(4)
    shape = (5, 48)
    x = np.abs(random.standard_normal(shape).astype(np.float32)) + np.float32(0.1)
    kind = tile("f32", *shape)
    for op, function in {"math.absf": np.abs, "math.sqrt": np.sqrt, "math.floor": np.floor, "math.ceil": np.ceil,
                         "math.roundeven": np.round, "arith.negf": np.negative}.items():
        expect(unary(f"%y = {op} %x : {kind}", "f32", "f32", *shape), [x * 7], [function(x * 7)])
    for op, function in {"math.exp2": np.exp2, "math.log2": np.log2, "math.tanh": np.tanh, "math.exp": np.exp}.items():
        text = unary(f"%y = {op} %x : {kind}", "f32", "f32", *shape)
        (actual,) = run(text, In(x), Out(shape, "float32"))
        np.testing.assert_allclose(actual, function(x.astype(np.float64)), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_comparison_and_choice(seed):
    random = np.random.default_rng(seed)
    shape = shape_of(random)
    a, b = (random.integers(-3, 4, shape).astype(np.int32) for _ in range(2))
    kind = tile("i32", *shape)
    lines = f"%c = arith.cmpi slt, %x, %z : {kind}\n"
    lines += f"%y = arith.select %c, %x, %z : {tile('i1', *shape)}, {kind}" if seed % 2 else (
        f"%y = arith.extui %c : {tile('i1', *shape)} to {kind}")
    text = kernel({"a": pointer("i32"), "b": pointer("i32"), "out": pointer("i32")}, "\n".join(
        [load("x", "a", "i32", *shape), load("z", "b", "i32", *shape), lines, store("y", "out", "i32", *shape)]))
    expect(text, [a, b], [np.minimum(a, b) if seed % 2 else (a < b).astype(np.int32)])


def test_one_condition_for_a_tile():
    random = np.random.default_rng(5)
    a, b = whole(random, (3, 40)), whole(random, (3, 40))
    kind = tile("f32", 3, 40)
    for flag in (0, 1):
        text = kernel({"a": pointer("f32"), "b": pointer("f32"), "out": pointer("f32"), "n": "i64"}, "\n".join(
            [load("x", "a", "f32", 3, 40), load("z", "b", "f32", 3, 40), "%zero = arith.constant 0 : i64",
             "%c = arith.cmpi ne, %n, %zero : i64", f"%y = arith.select %c, %x, %z : {kind}",
             store("y", "out", "f32", 3, 40)]))
        (actual,) = run(text, In(a), In(b), Out((3, 40), "float32"), U64(flag))
        np.testing.assert_array_equal(actual, a if flag else b)


# ---- shapes

@pytest.mark.parametrize("count", (1, 3, 32, 80, 96, 256))
def test_iota(count):
    for element, dtype in (("i32", np.int32), ("i64", np.int64)):
        text = kernel({"out": pointer(element)}, "\n".join(
            [f"%y = kvq_tile.iota : {tile(element, count)}", store("y", "out", element, count)]))
        expect(text, [], [np.arange(count, dtype=dtype)])
    lines = f"%i = kvq_tile.iota : {tile('index', count)}\n%y = arith.index_cast %i : {tile('index', count)} to "
    text = kernel({"out": pointer("i32")}, lines + tile("i32", count) + "\n" + store("y", "out", "i32", count))
    expect(text, [], [np.arange(count, dtype=np.int32)])


BROADCASTS = [((8,), (8, 64), (0,)), ((64,), (8, 64), (1,)), ((2, 64), (64, 64), (0, 1)), ((3, 2), (3, 64), (0, 1)),
              ((1, 80), (16, 80), (0, 1)), ((6,), (96,), (0,)), ((2,), (6,), (0,)), ((2,), (192,), (0,)),
              ((3, 4), (6, 12), (0, 1)), ((2, 2), (96, 48), (0, 1)), ((1,), (96,), (0,)), ((3,), (3, 80), (0,)),
              ((2, 3), (40, 48), (0, 1))]


@pytest.mark.parametrize("source,result,dims", BROADCASTS, ids=str)
def test_broadcast(source, result, dims):
    values = np.arange(np.prod(source), dtype=np.float32).reshape(source)
    line = f"%y = kvq_tile.broadcast %x dims {list(dims)} : {tile('f32', *source)} -> {tile('f32', *result)}"
    text = kernel({"in": pointer("f32"), "out": pointer("f32")}, "\n".join(
        [load("x", "in", "f32", *source), line, store("y", "out", "f32", *result)]))
    expect(text, [values], [np.ascontiguousarray(tile_ops.spread(values, result, dims))])


@pytest.mark.parametrize("kind,function", (("max", np.max), ("min", np.min), ("add", np.sum)))
@pytest.mark.parametrize("element,dtype", (("f32", np.float32), ("i32", np.int32)))
def test_reduce(kind, function, element, dtype):
    random = np.random.default_rng(6)
    for _ in range(3):
        shape = shape_of(random)
        values = whole(random, shape).astype(dtype)
        for dim in range(len(shape)):
            rest = shape[:dim] + shape[dim + 1:]
            line = f"%y = kvq_tile.reduce {kind} %x dim {dim} : {tile(element, *shape)} -> {tile(element, *rest)}"
            text = kernel({"in": pointer(element), "out": pointer(element)}, "\n".join(
                [load("x", "in", element, *shape), line, store("y", "out", element, *rest)]))
            expect(text, [values], [np.asarray(function(values, axis=dim), dtype).reshape(rest or 1)])


def test_what_a_product_spreads_is_reduced():
    """Rows of an accumulator lie on lanes and registers both: reductions over either dimension, and back."""
    random = np.random.default_rng(7)
    x, c = whole(random, (64, 32), 8), whole(random, (16, 32), 8)
    product = c @ x.T
    for dim in (0, 1):
        rest = product.shape[1 - dim]
        text = kernel({"x": pointer("f32"), "c": pointer("f32"), "out": pointer("f32")}, "\n".join([
            load("xv", "x", "f32", 64, 32), load("cv", "c", "f32", 16, 32),
            "%zero = arith.constant dense<0.0> : tensor<16x64xf32>",
            "%s = kvq_tile.dot %xv, %cv acc %zero contract 1 : tensor<64x32xf32>, tensor<16x32xf32> -> "
            "tensor<16x64xf32>",
            f"%m = kvq_tile.reduce max %s dim {dim} : tensor<16x64xf32> -> {tile('f32', rest)}",
            f"%b = kvq_tile.broadcast %m dims [{1 - dim}] : {tile('f32', rest)} -> tensor<16x64xf32>",
            "%y = arith.subf %s, %b : tensor<16x64xf32>", store("y", "out", "f32", 16, 64)]))
        expect(text, [x, c], [product - product.max(axis=dim, keepdims=True)])


# ---- memory

@pytest.mark.parametrize("element,dtype", (("f32", np.float32), ("f16", np.float16), ("i8", np.int8),
                                           ("i64", np.int64)))
@pytest.mark.parametrize("width", (1, 3, 8, 40, 80, 96, 128, 512))
def test_rows_by_numbers_under_a_mask(element, dtype, width):
    """Rows that a table names, some of them masked: those are zero and not read, and not written either."""
    random = np.random.default_rng(width)
    rows = int(random.choice((1, 3, 4, 8)))
    memory = random.integers(-100, 100, (2 * rows, width)).astype(dtype)
    numbers = random.permutation(2 * rows)[:rows].astype(np.int32)
    numbers[0] = 10**6 if rows > 1 else numbers[0]  # far out of bounds, but masked
    kept = (numbers < 10**6).astype(np.int32)
    lines = [load("n", "numbers", "i32", rows), load("k", "kept", "i32", rows),
             f"%none = arith.constant dense<0> : {tile('i32', rows)}",
             f"%mask = arith.cmpi ne, %k, %none : {tile('i32', rows)}",
             f"%ni = arith.index_cast %n : {tile('i32', rows)} to {tile('index', rows)}",
             f"%w = arith.constant dense<{width}> : {tile('index', rows)}",
             f"%at = arith.muli %ni, %w : {tile('index', rows)}",
             f"%x = kvq_tile.load %memory[%at] mask %mask : {pointer(element)}, {tile('index', rows)}, "
             f"{tile('i1', rows)} -> {tile(element, rows, width)}",
             f"kvq_tile.store %x, %copy[%at] mask %mask : {tile(element, rows, width)}, {pointer(element)}, "
             f"{tile('index', rows)}, {tile('i1', rows)}", store("x", "out", element, rows, width)]
    text = kernel({"memory": pointer(element, True), "numbers": pointer("i32"), "kept": pointer("i32"),
                   "copy": pointer(element, True), "out": pointer(element, True)}, "\n".join(lines))
    before = random.integers(-100, 100, memory.shape).astype(dtype)
    copy, out = run(text, In(memory), In(numbers), In(kept), InOut(before), Out((rows, width), np.dtype(dtype).name))
    wanted = np.zeros((rows, width), dtype)
    for i, number in enumerate(numbers):
        if kept[i]:
            wanted[i], before[number] = memory[number], memory[number]
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(copy, before)


@pytest.mark.parametrize("count", (3, 40, 96))
def test_gather_and_scatter(count):
    random = np.random.default_rng(count)
    memory, places = whole(random, (200,)), random.permutation(200)[:count].astype(np.int32)
    lines = [load("p", "places", "i32", count), f"%at = arith.index_cast %p : {tile('i32', count)} to "
             f"{tile('index', count)}",
             f"%x = kvq_tile.load %memory[%at] : {pointer('f32')}, {tile('index', count)} -> {tile('f32', count)}",
             f"%y = arith.negf %x : {tile('f32', count)}",
             f"kvq_tile.store %y, %out[%at] : {tile('f32', count)}, {pointer('f32')}, {tile('index', count)}"]
    text = kernel({"memory": pointer("f32"), "places": pointer("i32"), "out": pointer("f32")}, "\n".join(lines))
    (out,) = run(text, In(memory), In(places), InOut(memory))
    memory[places] = -memory[places]
    np.testing.assert_array_equal(out, memory)


def test_scalars_under_a_mask():
    lines = ["%zero = arith.constant 0 : i64", "%c = arith.cmpi ne, %n, %zero : i64",
             "%x = kvq_tile.load %in[%c0] mask %c : !kvq_tile.ptr<f32>, index, i1 -> f32",
             "%one = arith.constant 1.0 : f32", "%y = arith.addf %x, %one : f32",
             "kvq_tile.store %y, %out[%c0] : f32, !kvq_tile.ptr<f32>, index",
             "kvq_tile.store %y, %maybe[%c0] mask %c : f32, !kvq_tile.ptr<f32>, index, i1"]
    text = kernel({"in": pointer("f32"), "out": pointer("f32"), "maybe": pointer("f32"), "n": "i64"}, "\n".join(lines))
    start = np.array([5], np.float32)
    for flag in (0, 1):
        out, maybe = run(text, In(np.array([7], np.float32)), Out((1,), "float32"), InOut(start), U64(flag))
        assert (out[0], maybe[0]) == ((8, 8) if flag else (1, 5))


def test_programs_and_pages():
    """Programs of several blocks, the last of them not full, read pages through a table."""
    random = np.random.default_rng(8)
    pool, table = whole(random, (12, 64)), random.permutation(12)[:9].astype(np.int32)
    lines = ["%p = kvq_tile.program_id 0", "%stride = arith.constant 256 : index", "%c64 = arith.constant 64 : index",
             "%page = kvq_tile.page %pool, %table[%p], %stride : !kvq_tile.ptr<i8>, !kvq_tile.ptr<i32>",
             "%values = kvq_tile.advance %page, %c0 : !kvq_tile.ptr<i8> -> !kvq_tile.ptr<f32>",
             load("x", "values", "f32", 64), "%at = arith.muli %p, %c64 : index",
             "kvq_tile.store %x, %out[%at] : tensor<64xf32>, !kvq_tile.ptr<f32>, index"]
    text = kernel({"pool": pointer("i8", True), "table": pointer("i32"), "out": pointer("f32")}, "\n".join(lines))
    (out,) = run(text, In(pool), In(table), Out((9, 64), "float32"), programs=9)
    np.testing.assert_array_equal(out, pool[table])


@pytest.mark.parametrize("element, dtype", [("f32", "float32"), ("i32", "int32")])
@pytest.mark.parametrize("warps", [1, 2, 4])
def test_parts_of_a_program(warps, element, dtype):
    """Every part of every program gets what all of it have, in tiles of more registers than are exchanged at once. Of
    the last block's programs some may not exist."""
    random = np.random.default_rng(warps)
    programs, rows, width = 5, 24, 64
    x = random.integers(-1000, 1000, (programs, warps, rows, width)).astype(dtype)
    lines = ["%p = kvq_tile.program_id 0", "%part = kvq_tile.part_id",
             f"%warps = arith.constant {warps} : index", f"%size = arith.constant {rows * width} : index",
             "%first = arith.muli %p, %warps : index", "%number = arith.addi %first, %part : index",
             "%begin = arith.muli %number, %size : index", rows_at("rows", rows, width),
             f"%from = tensor.splat %begin : tensor<{rows}xindex>", f"%at = arith.addi %rows, %from : tensor<{rows}xindex>",
             f"%x = kvq_tile.load %in[%at] : !kvq_tile.ptr<{element}>, tensor<{rows}xindex> -> {tile(element, rows, width)}"]
    for kind in ("max", "add", "min"):
        lines += [f"%{kind} = kvq_tile.reduce_parts {kind} %x : {tile(element, rows, width)}",
                  f"kvq_tile.store %{kind}, %{kind}_out[%at] : {tile(element, rows, width)}, !kvq_tile.ptr<{element}>, "
                  f"tensor<{rows}xindex>"]
    arguments = {name: pointer(element) for name in ("in", "max_out", "add_out", "min_out")}
    text = kernel(arguments, "\n".join(lines), warps)
    for mode in ({}, dict(seed=3), dict(seed=4, schedule="lowest-pc")):
        outputs = run(text, In(x), *(Out(x.shape, dtype) for _ in range(3)), programs=programs, **mode)
        for reduce, output in zip((np.max, np.sum, np.min), outputs, strict=True):
            np.testing.assert_array_equal(output, np.broadcast_to(reduce(x, 1, keepdims=True), x.shape))


# ---- control flow

@pytest.mark.parametrize("shape", ((80,), (3, 40), (8, 96)), ids=str)
def test_loops_and_branches_carry_tiles(shape):
    random = np.random.default_rng(9)
    values = whole(random, shape)
    kind = tile("f32", *shape)
    lines = [load("x", "in", "f32", *shape), "%end = arith.index_cast %n : i64 to index",
             "%c1 = arith.constant 1 : index", "%c2 = arith.constant 2 : index",
             f"%zero = arith.constant dense<0.0> : {kind}",
             f"%y = scf.for %i = %c0 to %end step %c1 iter_args(%a = %zero) -> ({kind}) {{",
             "  %odd = arith.remui %i, %c2 : index", "  %is = arith.cmpi eq, %odd, %c1 : index",
             f"  %next = scf.if %is -> ({kind}) {{", f"    %twice = arith.addf %x, %x : {kind}",
             f"    %sum = arith.addf %a, %twice : {kind}", f"    scf.yield %sum : {kind}", "  } else {",
             f"    %less = arith.subf %a, %x : {kind}", f"    scf.yield %less : {kind}", "  }",
             f"  scf.yield %next : {kind}", "}", store("y", "out", "f32", *shape)]
    text = kernel({"in": pointer("f32"), "out": pointer("f32"), "n": "i64"}, "\n".join(lines))
    for trips in (0, 1, 4, 7):
        (out,) = run(text, In(values), Out(shape, "float32"), U64(trips))
        np.testing.assert_array_equal(out, values * (2 * (trips // 2) - (trips + 1) // 2))
