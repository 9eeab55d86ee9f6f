# SPDX-License-Identifier: Apache-2.0
"""What a result of mma may be: matrices put together from their fragments as the PTX ISA's figures say, multiplied in
double precision, and a bound from the magnitudes. Written apart from the simulator.
"""
import numpy as np

import float_bits

# By how much one addition may be wrong, relative to the largest addend.
WINDOW = 2.0 ** -23
# Products of 8-bit floats are added in pieces, each rounded to the accumulator's type.
PIECES = {"e4m3": 3, "e5m2": 3}


def split(form):
    """Registers of a, b, c of a product."""
    _, a, b, c, _ = form.check
    kinds = list(form.ins)
    accumulators = sum(kind.startswith("mma.acc.") for kind in kinds)
    m, n, _ = form.check[4]
    of_b = (len(kinds) - accumulators) * n // (m + n)
    return len(kinds) - accumulators - of_b, of_b, accumulators


def values(element, count, registers):
    """[register][warp, lane, part] of a fragment's elements as doubles."""
    return [np.stack([float_bits.decode(element, float_bits.part(element, words, i)) for i in range(count)], -1)
            .reshape(-1, 32, count) for words in registers]


LANE = np.arange(32)
GROUP, INSIDE = LANE >> 2, LANE & 3


def matrix_a(element, registers, rows, depth):
    parts = float_bits.form_draw.FRAGMENTS["mma." + element][1]
    fragments = values(element, parts, registers)
    matrix = np.full((fragments[0].shape[0], rows, depth), np.nan)
    halves = rows // 8
    for r, fragment in enumerate(fragments):
        for i in range(parts):
            matrix[:, GROUP + 8 * (r % halves), INSIDE * parts + i + 4 * parts * (r // halves)] = fragment[:, :, i]
    return matrix


def matrix_b(element, registers, depth):
    parts = float_bits.form_draw.FRAGMENTS["mma." + element][1]
    fragments = values(element, parts, registers)
    matrix = np.full((fragments[0].shape[0], depth, 8), np.nan)
    for r, fragment in enumerate(fragments):
        for i in range(parts):
            matrix[:, INSIDE * parts + i + 4 * parts * r, GROUP] = fragment[:, :, i]
    return matrix


def matrix_c(element, registers, rows):
    """An accumulator or a result: two neighbours of a row for each thread, in one register or in two."""
    parts = 2 if element == "f16" else 1
    fragments = values(element, parts, registers)
    matrix = np.full((fragments[0].shape[0], rows, 8), np.nan)
    for r, fragment in enumerate(fragments):
        for i in range(parts):
            place = r * parts + i
            matrix[:, GROUP + 8 * (place // 2), INSIDE * 2 + place % 2] = fragment[:, :, i]
    return matrix


def matrices(form, inputs):
    _, a, b, c, (m, _, k) = form.check
    of_a, of_b, _ = split(form)
    columns = [np.array(column, np.uint64) for column in inputs]
    return (matrix_a(a, columns[:of_a], m, k), matrix_b(b, columns[of_a:of_a + of_b], k),
            matrix_c(c, columns[of_a + of_b:], m))


def finite(values):
    return np.where(np.isfinite(values), np.abs(values), 0)


def exact(form, inputs):
    """(sum, bound, sum of finite magnitudes) of every element of the result."""
    _, a, _, c, (_, _, k) = form.check
    left, right, start = matrices(form, inputs)
    with np.errstate(all="ignore"):
        products = left[:, :, :, None] * right[:, None, :, :]
        total = products.sum(2) + start
        largest = np.maximum(np.abs(products).max(2), np.abs(start))
        magnitude = finite(products).sum(2) + finite(start)
        bound = (k + 2) * WINDOW * largest + float_bits.unit(c, total)
        bound += PIECES.get(a, 0) * float_bits.unit(c, magnitude)
    return total, bound, magnitude


def result(form, words):
    c = form.check[3]
    return matrix_c(c, list(np.asarray(words, np.uint64)), form.check[4][0])


def within(form, words, inputs):
    """For each register of the result whether its elements are within the bound; infinities and NaN as in the sum."""
    total, bound, magnitude = exact(form, inputs)
    got = result(form, words)
    element = form.check[3]
    top = float_bits.largest(element)
    with np.errstate(all="ignore"):
        good = np.abs(got - total) <= bound
        good |= np.isnan(got) & np.isnan(total)
        # About the largest number either side may overflow.
        over = np.abs(total) + bound >= top
        good |= over & np.isinf(got) & (np.sign(got) == np.sign(total))
        good |= over & (np.abs(got) >= 0.99 * top) & (np.sign(got) == np.sign(total))
        # A part of the sum may overflow although the whole does not: a piece, or one addition of many.
        good |= magnitude >= top
    return to_registers(form, good, np.asarray(words).shape)


def to_registers(form, good, shape):
    parts = 2 if form.check[3] == "f16" else 1
    answer = np.ones(shape, bool)
    for r in range(shape[0]):
        for i in range(parts):
            place = r * parts + i
            answer[r] &= good[:, GROUP + 8 * (place // 2), INSIDE * 2 + place % 2].reshape(-1)
    return answer
