# SPDX-License-Identifier: Apache-2.0
"""The kernels under kernels/ as subjects of tests: which launches there are, and what must come out of them.

Sizes are small and ragged: together the launches of a subject execute every line of its PTX (test_cuda_kernels.py).
"""

from dataclasses import dataclass
from typing import Callable

import kernel_references as references
import numpy as np
import tolerances
from ptx_run import Bytes, Fill, In, Out, U32


@dataclass(frozen=True)
class Launch:
    """compare(outputs) returns what is wrong with the written arrays in their order, or "" where nothing is."""

    name: str
    grid: tuple
    block: tuple
    arguments: tuple
    compare: Callable
    shared: int = 0


@dataclass(frozen=True)
class Subject:
    source: str
    kernel: str
    launches: tuple


def _generator(*key):
    return np.random.default_rng(list(b"".join(str(k).encode() for k in key)))


def ceil_div(a, b):
    return -(-a // b)


def equal(*expected):
    def compare(outputs):
        for index, (actual, right) in enumerate(zip(outputs, expected, strict=True)):
            if not np.array_equal(actual, right):
                where = tuple(int(i) for i in np.argwhere(actual != right)[0])
                return f"output {index} at {where}: {actual[where]} instead of {right[where]}"
        return ""

    return compare


def within(right, bound):
    """Compares one array element by element; a number that is none is wrong."""
    right, bound = np.asarray(right, np.float64), np.broadcast_to(bound, np.shape(right))

    def compare(actual):
        bad = ~(np.abs(np.asarray(actual, np.float64) - right) <= bound)
        if not bad.any():
            return ""
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        return f"at {where}: {actual[where]} instead of {right[where]} +- {bound[where]:.3g}"

    return compare


def to_bf16(values):
    """Codes of the nearest bf16 values, and those values."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    codes = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return codes, (codes.astype(np.uint32) << 16).view(np.float32)


def some(array):
    """The array, or one element where it has none: a buffer is never empty."""
    return array if array.size else np.zeros(1, array.dtype)


def gemm_half(kernel, shape):
    m, n, k = shape
    random = _generator(kernel, shape)
    a, b = random.standard_normal((m, k)), random.standard_normal((k, n))
    if kernel == "gemm_f16":
        a, b = a.astype(np.float16), b.astype(np.float16)
        codes = a.view(np.uint16), b.view(np.uint16)
    else:
        (code_a, a), (code_b, b) = to_bf16(a), to_bf16(b)
        codes = code_a, code_b
    c, absolute = references.gemm(a, b)
    check = within(c, tolerances.dot_bound(absolute, k))
    return Launch(f"{m}x{n}x{k}", (ceil_div(n, 64), ceil_div(m, 64)), (128,),
                  (In(some(codes[0])), In(some(codes[1])), Out((m, n), "float32"), U32(m), U32(n), U32(k)),
                  lambda o: check(o[0]))


def gemm_s8(shape):
    m, n, k = shape
    random = _generator("gemm_s8", shape)
    a, b = (random.integers(-128, 128, (rows, k), np.int8) for rows in (m, n))
    c, _ = references.gemm(a, b.T)
    return Launch(f"{m}x{n}x{k}", (ceil_div(n, 64), ceil_div(m, 64)), (128,),
                  (In(some(a)), In(some(b)), Out((m, n), "int32"), U32(m), U32(n), U32(k)), equal(c.astype(np.int32)))


def matvec_async(rows, columns):
    random = _generator("matvec", rows, columns)
    stride = max(ceil_div(columns, 4) * 4, 4)
    # What lies between the rows must not be read.
    a = np.full((rows, stride), np.nan, np.float32)
    a[:, :columns] = random.standard_normal((rows, columns))
    x = random.standard_normal(max(columns, 1)).astype(np.float32)
    y, absolute = references.gemm(a[:, :columns], x[:columns, None])
    check = within(y[:, 0], tolerances.dot_bound(absolute[:, 0], columns))
    return Launch(f"{rows}x{columns}", (ceil_div(rows, 32),), (128,),
                  (In(a), In(x), Out((rows,), "float32"), U32(rows), U32(columns), U32(stride)), lambda o: check(o[0]))


def reduce(count, grid, block, offset=0.0, last=0.0):
    values = (_generator("reduce", count).standard_normal(count) + offset).astype(np.float32)
    values[:4], values[-1] = 0, last  # zero is not negative, and its code not the largest
    total, absolute, maximum, negatives = references.reduce(values)
    # What one value passes: its thread's sum, five steps of two warps, the blocks.
    additions = ceil_div(count, 4 * grid * block) * 4 + 1 + 10 + grid
    check = within([total], tolerances.dot_bound(absolute, additions))

    def compare(outputs):
        return check(outputs[0]) or equal(np.array([maximum]), np.array([negatives]))(outputs[1:])

    return Launch(f"{count}-{grid}x{block}", (grid,), (block,),
                  (In(values), U32(count), Fill(0, (1,), "float32"), Fill(0, (1,), "uint32"), Fill(0, (1,), "uint32")),
                  compare)


def scan(count):
    values = _generator("scan", count).integers(0, 2**32, count, np.uint32)
    sums = references.scan(values)
    tiles = ceil_div(count, 512)
    return Launch(f"{count}", (tiles,), (128,),
                  (In(values), Out((count,), "uint32"), U32(count), Fill(0, (tiles,), "uint64"),
                   Fill(0, (1,), "uint32")), lambda o: equal(sums)(o[:1]))


def histogram(count, grid, block):
    # Squares, so that bins differ, and a few bins stay empty; one bin has a single value.
    values = (_generator("histogram", count).integers(0, 15, count) ** 2 + 40).astype(np.uint8)
    values[0] = 3
    return Launch(f"{count}-{grid}x{block}", (grid,), (block,),
                  (In(values), U32(count), Fill(0, (256,), "uint32")), equal(references.histogram(values)))


def transpose(rows, columns):
    values = _generator("transpose", rows, columns).integers(0, 2**32, (rows, columns), np.uint32)
    return Launch(f"{rows}x{columns}", (ceil_div(columns, 32), ceil_div(rows, 32)), (32, 8),
                  (In(values), Out((columns, rows), "uint32"), U32(rows), U32(columns)),
                  equal(references.transpose(values)))


def quantize(bits, rows, columns):
    values = _generator("quantize", bits, rows, columns).standard_normal((rows, columns)).astype(np.float16)
    values[1] = 0.375  # a group without a step, and one whose step is too small for a half
    values[2] = np.resize([0, 2.0**-24, 2.0**-24, 0], columns)
    words, parameters = references.quantize(values, bits)
    groups = words.shape[1]
    return Launch(f"{rows}x{columns}", (ceil_div(rows * groups, 4),), (128,),
                  (In(values), Out(words.shape, "uint32"), Out(parameters.shape, "float16"), U32(rows), U32(columns)),
                  equal(words, parameters))


def quantized_cache(random, sequences, tokens):
    """Words [sequences][tokens][8] and (scale, minimum) [sequences][tokens][2] in f16 of rows of 64 channels."""
    rows = (random.standard_normal((sequences * tokens, 64)) + 0.25).astype(np.float16)
    words, parameters = references.quantize(rows, 4)
    return words.reshape(sequences, tokens, 8), parameters.reshape(sequences, tokens, 2)


def _compare_decode(outputs, q, cache, runs, scale_log2):
    parts, statistics = (np.asarray(o, np.float64) for o in outputs)
    k_words, k_parameters, v_words, v_parameters = cache
    for sequence, head, split in np.ndindex(statistics.shape[:3]):
        run = (sequence, slice(*runs[split]))
        o, log_sum, absolute = references.decode(q[sequence, head], k_words[run], k_parameters[run], v_words[run],
                                                 v_parameters[run], scale_log2)
        maximum, total = statistics[sequence, head, split]
        part = parts[sequence, head, split]
        where = f"sequence {sequence}, head {head}, run {split}"
        if runs[split][0] >= runs[split][1]:
            if maximum != -np.inf or total != 0 or part.any():
                return f"{where} has no tokens and weighs {total} at {maximum}"
            continue
        with np.errstate(all="ignore"):  # what a mistake makes of it is compared, not warned of
            error = tolerances.relative_rms(part / total, o)
            off = abs(maximum + np.log2(total) - log_sum)
        if not error <= tolerances.HALF_WEIGHTS_RMS:
            return f"{where}: relative rms {error:.3g}"
        if not off <= tolerances.weights_log_tolerance(log_sum, absolute, 64):
            return f"{where}: log2 of the sum is off by {off:.3g}"
    return ""


def flash_decode(batch, kv_heads, group, tokens, splits):
    random = _generator("decode", batch, kv_heads, group, tokens, splits)
    q = random.standard_normal((batch * kv_heads, group, 64)).astype(np.float16)
    cache = *quantized_cache(random, batch * kv_heads, tokens), *quantized_cache(random, batch * kv_heads, tokens)
    scale_log2 = np.float32(np.log2(np.e) / 8)
    run = ceil_div(tokens, splits)
    runs = [(split * run, min((split + 1) * run, tokens)) for split in range(splits)]
    shape = Bytes(np.array([tokens, kv_heads, group, splits], np.int32).tobytes() + scale_log2.tobytes())
    heads = (batch * kv_heads, group, splits)
    return Launch(f"b{batch}-h{kv_heads}x{group}-t{tokens}-s{splits}", (splits, kv_heads, batch), (128,),
                  (In(q), *(In(array) for array in cache), Out((*heads, 64), "float32"), Out((*heads, 2), "float32"),
                   shape), lambda o: _compare_decode(o, q, cache, runs, float(scale_log2)), DECODE_SHARED)


DECODE_SHARED = 2 * (2 * 64 * 8 * 4 + 2 * 64 * 4) + 2 * 64 * 72 * 2  # struct Shared of flash_decode.cu


def flash_combine(heads, splits, peaks=False):
    random = _generator("combine", heads, splits)
    parts = random.standard_normal((heads, splits, 64)).astype(np.float32)
    statistics = np.stack([random.standard_normal((heads, splits)) * 3, random.uniform(1, 50, (heads, splits))], -1)
    if peaks:  # at another run for each head, far enough above the others that weights to another base overflow
        statistics[np.arange(heads), np.arange(heads) % splits, 0] += 300
    elif splits > 2:
        parts[:, 1], statistics[:, 1] = 0, (-np.inf, 0)
    statistics = statistics.astype(np.float32)
    o, absolute = references.combine(parts, statistics)
    check = within(o, tolerances.combine_bound(o, absolute, splits))
    return Launch(f"{heads}x{splits}{'-peaks' * peaks}", (heads,), (64,),
                  (In(parts), In(statistics), Out((heads, 64), "float16"), U32(splits)), lambda o: check(o[0]))


def subjects():
    """All of them by name. Made when asked for: the references must be built first."""
    half = [(100, 72, 40), (65, 71, 37), (45, 96, 24), (53, 94, 33), (62, 89, 9), (7, 9, 0)]
    bytes_ = [(70, 72, 80), (65, 70, 75), (45, 106, 32), (53, 95, 33), (62, 109, 9), (7, 9, 0)]
    matrices = [(45, 71), (36, 45), (54, 50), (62, 61), (64, 32)]
    shapes = [(45, 203), (32, 64), (30, 50), (20, 132), (7, 129), (7, 1), (5, 0)]
    decode = [(2, 1, 4, 330, 2), (1, 2, 8, 37, 4), (1, 1, 7, 5, 4), (1, 1, 1, 20, 1)]
    return {s.kernel: s for s in (
        *(Subject("gemm_half", kernel, tuple(gemm_half(kernel, shape) for shape in half))
          for kernel in ("gemm_f16", "gemm_bf16")),
        Subject("gemm_s8", "gemm_s8", tuple(gemm_s8(shape) for shape in bytes_)),
        Subject("matvec_async", "matvec_async", tuple(matvec_async(*shape) for shape in shapes)),
        Subject("reduce", "reduce", (reduce(1003, 3, 96), reduce(4001, 2, 128, last=9.0), reduce(5000, 1, 1024),
                                     reduce(30, 1, 32, -9.0))),
        Subject("scan", "scan", (scan(2003), scan(514), scan(513), scan(512))),
        Subject("histogram", "histogram", (histogram(1003, 3, 96), histogram(4001, 2, 128), histogram(700, 1, 288))),
        Subject("transpose", "transpose", tuple(transpose(*shape) for shape in matrices)),
        *(Subject("quantize", f"quantize_{bits}", (quantize(bits, 5, 100), quantize(bits, 3, 64)))
          for bits in (2, 4, 8)),
        Subject("flash_decode", "flash_decode", tuple(flash_decode(*shape) for shape in decode)),
        Subject("flash_combine", "flash_combine", (flash_combine(3, 5), flash_combine(2, 100), flash_combine(1, 1),
                                                   flash_combine(72, 72, peaks=True))),
    )}
