# SPDX-License-Identifier: Apache-2.0
"""Products and packed codes on NVIDIA: kvq_tile.dot, coeff, codes, unpack, dequantize and store_codes in small
programs, run in the simulator against NumPy. Values are integers, so that sums are exact in any order."""

import itertools

import numpy as np
import pytest

import tile_ops
from kvq_oracle import layout as oracle_layout
from ptx_run import In, InOut, Out, U64
from tile_kernels import Refused, compiled, expect, kernel, load, pointer, run, store, tile
from test_nvptx_rules import whole


def product(x_shape, coeff_shape, contract, *, element="f32", coefficient="f32", groups=0, center=None):
    """A program that multiplies values: x, coefficients, the accumulator and perhaps scales are arguments."""
    n, rows = x_shape[1 - contract], coeff_shape[-2]
    arguments = {"x": pointer(element), "c": pointer(coefficient), "a": pointer("f32"), "s": pointer("f32"),
                 "out": pointer("f32")}
    lines = [load("xv", "x", element, *x_shape), load("cv", "c", coefficient, *coeff_shape[-2:]),
             load("av", "a", "f32", rows, n)]
    name, kind = "cv", tile(coefficient, *coeff_shape[-2:])
    if len(coeff_shape) == 3:  # values times a scale for each set
        scale, kind = tile(coefficient, coeff_shape[0], coeff_shape[2]), tile(coefficient, *coeff_shape)
        lines += [load("mv", "s", coefficient, coeff_shape[0], coeff_shape[2]),
                  f"%cs = kvq_tile.coeff %cv, %mv : {tile(coefficient, *coeff_shape[1:])}, {scale} -> {kind}"]
        arguments["s"], name = pointer(coefficient), "cs"
    scale = "scale %sv" if groups else ""
    if groups:
        lines.append(load("sv", "s", "f32", groups, n))
    types = [tile(element, *x_shape), kind] + ([tile("f32", groups, n)] if groups else [])
    lines += [f"%y = kvq_tile.dot %xv, %{name} acc %av {scale} contract {contract} "
              f"{'' if center is None else f'center {center}'} : {', '.join(types)} -> {tile('f32', rows, n)}",
              store("y", "out", "f32", rows, n)]
    return kernel(arguments, "\n".join(lines))


DTYPES = {"f32": np.float32, "f16": np.float16}


def check_product(random, x_shape, rows, contract, *, element="f32", coefficient="f32", sets=0, groups=0, center=None):
    n, c = x_shape[1 - contract], x_shape[contract]
    x = whole(random, x_shape, 8).astype(DTYPES[element])
    coeff = whole(random, (rows, c), 8).astype(DTYPES[coefficient])
    acc, scale = whole(random, (rows, n), 8), np.zeros((1, 1), np.float32)
    spread, dot_scale = coeff, None
    if sets:
        scale = whole(random, (sets, c), 4).astype(DTYPES[coefficient])
        spread = coeff[None] * scale[:, None]
    if groups:
        scale = dot_scale = whole(random, (groups, n), 4)
    text = product(x_shape, (sets, rows, c) if sets else (rows, c), contract, element=element, coefficient=coefficient,
                   groups=groups, center=center)
    wanted = tile_ops.dot(x.astype(np.float64) - (center or 0), spread.astype(np.float64), acc.astype(np.float64),
                          dot_scale, contract)
    expect(text, [x, coeff, acc, scale], [wanted.astype(np.float32)])


SHAPES = [(64, 64), (32, 80), (96, 32), (16, 16), (8, 128), (4, 64), (2, 32), (1, 64), (48, 16), (80, 96), (3, 32)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("contract", (0, 1))
def test_values_on_tensor_cores(shape, contract):
    """8 and 16 rows, f32 as two halves each, f16, and both. Where `shape` is short along x's kept dimension, lanes
    repeat."""
    random = np.random.default_rng(shape[0] + contract)
    x_shape = shape if contract == 1 else shape[::-1]
    for (element, coefficient), rows in zip(itertools.product(DTYPES, DTYPES), (8, 16, 16, 8)):
        check_product(random, x_shape, rows, contract, element=element, coefficient=coefficient)


def test_two_halves_hold_what_one_does_not():
    """Values of 20 bits survive a product with f16 coefficients of one bit."""
    random = np.random.default_rng(1)
    x, coeff = whole(random, (32, 16), 2**20), np.eye(16, dtype=np.float32)
    text = product((32, 16), (16, 16), 1)
    expect(text, [x / 2**6, coeff, np.zeros((16, 32), np.float32), np.zeros((1, 1), np.float32)], [(x / 2**6).T.copy()])


@pytest.mark.parametrize("contract", (0, 1))
@pytest.mark.parametrize("sets,groups,center", ((2, 0, None), (4, 0, 1.5), (0, 2, None), (0, 4, 1.5), (0, 1, 2.0),
                                                (0, 0, 3.0)))
def test_sets_scales_and_centers(contract, sets, groups, center):
    random = np.random.default_rng(sets * 10 + groups)
    for rows, element in ((8, "f32"), (16, "f16")):
        check_product(random, (64, 64), rows, contract, element=element, coefficient=element, sets=sets, groups=groups,
                      center=center)


@pytest.mark.parametrize("contract", (0, 1))
@pytest.mark.parametrize("rows,shape,sets,groups,center", (
    (3, (64, 24), 0, 0, None), (3, (64, 24), 2, 0, None), (1, (80, 4), 0, 0, None), (5, (64, 8), 4, 0, 1.5),
    (3, (96, 12), 0, 3, 2.0), (8, (64, 2), 0, 0, None), (3, (96, 8), 3, 0, None), (2, (40, 6), 0, 1, None)))
def test_few_products(contract, rows, shape, sets, groups, center):
    """Not 8 rows or not 16 elements: each lane sums its own."""
    random = np.random.default_rng(rows)
    for element, coefficient in (("f32", "f32"), ("f16", "f32"), ("f16", "f16")):
        if groups and coefficient == "f16":
            continue
        x_shape = shape if contract == 1 else shape[::-1]
        check_product(random, x_shape, rows, contract, element=element, coefficient=coefficient, sets=sets,
                      groups=groups, center=center)


def test_groups_below_sixteen_elements_are_refused():
    with pytest.raises(Refused, match="groups that are shorter than the 16 elements that tensor cores take"):
        compiled(product((64, 64), (8, 64), 1, groups=8))


@pytest.mark.parametrize("rows,sets,width", ((3, 2, 80), (8, 1, 96), (1, 4, 64), (8, 3, 32)))
def test_coefficients_by_themselves(rows, sets, width):
    """A reduction reads all of them, so they are made."""
    random = np.random.default_rng(rows)
    values, scale = whole(random, (rows, width)), whole(random, (sets, width))
    kind = tile("f32", sets, rows, width)
    for dim in range(3):
        shape = [extent for i, extent in enumerate((sets, rows, width)) if i != dim]
        text = kernel({"v": pointer("f32"), "s": pointer("f32"), "out": pointer("f32")}, "\n".join([
            load("vv", "v", "f32", rows, width), load("sv", "s", "f32", sets, width),
            f"%c = kvq_tile.coeff %vv, %sv : {tile('f32', rows, width)}, {tile('f32', sets, width)} -> {kind}",
            f"%y = kvq_tile.reduce max %c dim {dim} : {kind} -> {tile('f32', *shape)}",
            store("y", "out", "f32", *shape)]))
        expect(text, [values, scale], [(values[None] * scale[:, None]).max(axis=dim)])


# ---- packed codes

def section(random, profile, side, bits, tokens=64, channels=64):
    """Random codes, their bytes in a page, and the layout as an attribute."""
    codes = random.integers(0, 2**bits, (tokens, channels)).astype(np.int32)
    data = oracle_layout.pack(codes, oracle_layout.plane_tables(profile, side, bits, tokens, channels))
    text = oracle_layout.section_text(profile, side, bits, tokens, channels)
    return codes, np.asarray(data, np.uint8), f'#kvq_tile.layout<"{text}">'


SECTIONS = list(itertools.product(("mma", "vnni", "kivi"), "KV", (2, 4, 8), (64, 80)))
FIRST = "%cT = arith.constant {} : index\n%cC = arith.constant {} : index"


@pytest.mark.parametrize("profile,side,bits,channels", SECTIONS)
def test_unpack_and_dequantize(profile, side, bits, channels):
    """A rectangle of a page, by its codes and by its values, per channel and per token."""
    random = np.random.default_rng(bits + channels)
    codes, data, layout = section(random, profile, side, bits, channels=channels)
    tokens, width = (32, channels) if channels % 32 else (32, 32)
    t0, c0 = 64 - tokens, channels - width
    kind = f"tensor<{tokens}x{width}xi{bits}, {layout}>"
    head = "\n".join([FIRST.format(t0, c0), f"%k = kvq_tile.codes %page[%cT, %cC] : !kvq_tile.ptr<i8> -> {kind}"])
    wanted = codes[t0:, c0:]
    text = kernel({"page": pointer("i8", True), "out": pointer("i32")}, "\n".join(
        [head, f"%y = kvq_tile.unpack %k : {kind} -> {tile('i32', tokens, width)}",
         store("y", "out", "i32", tokens, width)]))
    expect(text, [data], [np.ascontiguousarray(wanted)])
    for axis, shape, groups in (("channel", (tokens, width), 2), ("token", (width, tokens), 2),
                                ("token", (width, tokens), 1)):
        scale, least = (whole(random, (groups, shape[1]), 9) for _ in range(2))
        text = kernel({"page": pointer("i8", True), "s": pointer("f32"), "m": pointer("f32"), "out": pointer("f32")},
                      "\n".join([head, load("sv", "s", "f32", *scale.shape), load("mv", "m", "f32", *scale.shape),
                                 f"%y = kvq_tile.dequantize %k, %sv, %mv axis \"{axis}\" : {kind}, "
                                 f"{tile('f32', *scale.shape)} -> {tile('f32', tokens, width)}",
                                 store("y", "out", "f32", tokens, width)]))
        spread = [np.repeat(p, shape[0] // groups, axis=0) for p in (scale, least)]
        spread = [p if axis == "channel" else p.T for p in spread]
        expect(text, [data, scale, least], [(wanted * spread[0] + spread[1]).astype(np.float32)])


@pytest.mark.parametrize("profile,side,bits,channels", SECTIONS)
def test_store_codes(profile, side, bits, channels):
    """Rows of a tile into a page: all of them, some, one, none. Everything else in the page stays."""
    random = np.random.default_rng(bits + channels)
    before, data, layout = section(random, profile, side, bits, channels=channels)
    codes = random.integers(0, 2**bits, (64, channels)).astype(np.int32)
    tables = oracle_layout.plane_tables(profile, side, bits, 64, channels)
    lines = [load("c", "codes", "i32", 64, channels), "%b = arith.index_cast %from : i64 to index",
             "%e = arith.index_cast %to : i64 to index",
             f"kvq_tile.store_codes %c, %page[%c0] rows %b, %e {{bits = {bits}, layout = {layout}}} : "
             f"{tile('i32', 64, channels)}, !kvq_tile.ptr<i8>"]
    text = kernel({"codes": pointer("i32"), "page": pointer("i8", True), "from": "i64", "to": "i64"}, "\n".join(lines))
    for begin, end in ((0, 64), (3, 50), (17, 18), (5, 5)):
        (page,) = run(text, In(codes), InOut(data), U64(begin), U64(end))
        wanted = before.copy()
        wanted[begin:end] = codes[begin:end]
        np.testing.assert_array_equal(page, oracle_layout.pack(wanted, tables), err_msg=f"{begin}, {end}")
    whole_rows = text.replace("%b = arith.index_cast %from : i64 to index", "%b = arith.constant 0 : index").replace(
        "%e = arith.index_cast %to : i64 to index", "%e = arith.constant 64 : index")
    (page,) = run(whole_rows, In(codes), InOut(data), U64(0), U64(0))
    np.testing.assert_array_equal(page, oracle_layout.pack(codes, tables))


def times_codes(layout, bits, rows, channels, contract, sets=0, center=0.0, groups=0):
    """A program that multiplies the codes of a page of 64 tokens, by coefficients or by sets of them; the sums of groups
    of what is contracted by scales of their own."""
    n, c = (64, channels) if contract == 1 else (channels, 64)
    kind = f"tensor<64x{channels}xi{bits}, {layout}>"
    name, type_ = "q", tile("f16", rows, c)
    lines = [load("q", "coeff", "f16", rows, c), load("a", "acc", "f32", rows, n)]
    if sets:
        name, type_ = "qs", tile("f16", sets, rows, c)
        lines += [load("m", "scale", "f16", sets, c),
                  f"%qs = kvq_tile.coeff %q, %m : {tile('f16', rows, c)}, {tile('f16', sets, c)} -> {type_}"]
    scale = "scale %s" if groups else ""
    if groups:
        lines.append(load("s", "scale", "f32", groups, n))
        type_ += f", {tile('f32', groups, n)}"
    lines += [f"%k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> {kind}",
              f"%y = kvq_tile.dot %k, %{name} acc %a {scale} contract {contract} center {center} : {kind}, {type_} -> "
              f"{tile('f32', rows, n)}", store("y", "out", "f32", rows, n)]
    return kernel({"page": pointer("i8", True), "coeff": pointer("f16"), "scale": pointer("f32" if groups else "f16"),
                   "acc": pointer("f32"), "out": pointer("f32")}, "\n".join(lines))


@pytest.mark.parametrize("contract,side", ((1, "K"), (0, "V")))
@pytest.mark.parametrize("profile", ("mma", "vnni"))
@pytest.mark.parametrize("bits", (2, 4, 8))
@pytest.mark.parametrize("channels", (64, 80, 96))
def test_codes_on_tensor_cores(contract, side, profile, bits, channels):
    """Codes times f16 coefficients, in one and in two sets, with and without a center, added to an accumulator."""
    random = np.random.default_rng(bits + channels)
    codes, data, layout = section(random, profile, side, bits, channels=channels)
    n, c = (64, channels) if contract == 1 else (channels, 64)
    for rows, sets, center in ((8, 0, 0.0), (16, 2 if n == 64 else 0, (2**bits - 1) / 2)):
        coeff, acc = whole(random, (rows, c), 8).astype(np.float16), whole(random, (rows, n))
        scale = whole(random, (max(sets, 1), c), 3).astype(np.float16)
        text = times_codes(layout, bits, rows, channels, contract, sets, center)
        spread = (coeff[None] * scale[:, None] if sets else coeff).astype(np.float64)
        wanted = tile_ops.dot(codes - center, spread, acc.astype(np.float64), None, contract)
        expect(text, [data, coeff, scale, acc], [wanted.astype(np.float32)])


@pytest.mark.parametrize("contract,side", ((1, "K"), (0, "V")))
@pytest.mark.parametrize("profile,group", (("mma", 32), ("vnni", 32), ("vnni", 16)))
@pytest.mark.parametrize("bits", (2, 4, 8))
@pytest.mark.parametrize("processor", ("sm_80", "sm_80+magic"))
def test_codes_in_groups(contract, side, profile, group, bits, processor):
    """A scale for each group of the contracted dimension, which words of sixteen codes fill or half fill: lanes that
    have no word of their own take fields of one that they share."""
    random = np.random.default_rng(bits + group)
    codes, data, layout = section(random, profile, side, bits, channels=96)
    n, c = (64, 96) if contract == 1 else (96, 64)
    for rows, center in ((8, 0.0), (16, (2**bits - 1) / 2)):
        coeff, acc = whole(random, (rows, c), 8).astype(np.float16), whole(random, (rows, n))
        scale = whole(random, (c // group, n), 4)
        text = times_codes(layout, bits, rows, 96, contract, 0, center, c // group)
        wanted = tile_ops.dot(codes - center, coeff.astype(np.float64), acc.astype(np.float64), scale, contract)
        expect(text, [data, coeff, scale, acc], [wanted.astype(np.float32)], processor=processor)


def maxima_and_multiples(layout, bits, rows, channels, contract, groups, center):
    """A program that takes the maxima of a product of codes along both dimensions, and a multiple of it plus something.
    What is added to the product differs by row and group of results."""
    n, c = (64, channels) if contract == 1 else (channels, 64)
    kind, result, row = f"tensor<64x{channels}xi{bits}, {layout}>", tile("f32", rows, n), tile("f32", rows)
    lines = [load("q", "coeff", "f16", rows, c), load("b", "bias", "f32", rows, groups),
             f"%f = kvq_tile.load %factor[%c0] : !kvq_tile.ptr<f32>, index -> {row}",
             f"%a = kvq_tile.broadcast %b dims [0, 1] : {tile('f32', rows, groups)} -> {result}",
             f"%k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> {kind}",
             f"%y = kvq_tile.dot %k, %q acc %a contract {contract} center {center} : {kind}, {tile('f16', rows, c)} -> "
             f"{result}",
             f"%m = kvq_tile.reduce max %y dim 1 : {result} -> {row}",
             f"%l = kvq_tile.reduce max %y dim 0 : {result} -> {tile('f32', n)}",
             f"%s = kvq_tile.broadcast %f dims [0] : {row} -> {result}",
             f"%o = kvq_tile.broadcast %m dims [0] : {row} -> {result}",
             f"%z = math.fma %y, %s, %o : {result}",
             store("z", "out", "f32", rows, n),
             f"kvq_tile.store %m, %most[%c0] : {row}, !kvq_tile.ptr<f32>, index",
             f"kvq_tile.store %l, %of_all[%c0] : {tile('f32', n)}, !kvq_tile.ptr<f32>, index"]
    pointers = {"page": pointer("i8", True)} | {name: pointer("f16" if name == "coeff" else "f32") for name in
                                                ("coeff", "bias", "factor", "out", "most", "of_all")}
    return kernel(pointers, "\n".join(lines))


@pytest.mark.parametrize("contract,side", ((1, "K"), (0, "V")))
@pytest.mark.parametrize("profile,processor", (("mma", "sm_80"), ("vnni", "sm_90"), ("mma", "sm_80+magic")))
@pytest.mark.parametrize("bits", (2, 4, 8))
@pytest.mark.parametrize("groups", (1, 2, 64))
def test_products_of_which_maxima_and_multiples_are_taken(contract, side, profile, processor, bits, groups):
    """They stay in the units of their codes, but where each result has a bias of its own."""
    random = np.random.default_rng(bits + groups)
    codes, data, layout = section(random, profile, side, bits)
    for rows, center in ((8, 0.0), (16, (2**bits - 1) / 2)):
        coeff, bias = whole(random, (rows, 64), 8).astype(np.float16), whole(random, (rows, groups), 900)
        factor = whole(random, (rows,), 4)
        text = maxima_and_multiples(layout, bits, rows, 64, contract, groups, center)
        acc = np.repeat(bias, 64 // groups, axis=1).astype(np.float64)
        product = tile_ops.dot(codes - center, coeff.astype(np.float64), acc, None, contract)
        most = product.max(axis=1)
        wanted = [product * factor[:, None] + most[:, None], most, product.max(axis=0)]
        expect(text, [data, coeff, bias, factor], [each.astype(np.float32) for each in wanted], processor=processor)
