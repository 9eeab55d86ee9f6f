// SPDX-License-Identifier: Apache-2.0
//
// How attention stays within the range of f16 where a target multiplies codes by halves. This is the one place that
// says by which powers of two it scales what becomes a half; all are exact and come out of the results in f32.
//
// A half is at most 65504, has 11 bits from 2^-14 on, and below that a spacing of 2^-24. A coefficient is q times a
// scale of K, or a weight times a scale of V, or one of them alone. Sums are f32 and overflow nowhere.
//
// A scale that a page stores is at most 2 * 65504 / Q rounded to f16, Q = 2^bits - 1, since tokens beyond f16 are not
// stored. Rows of q are brought to 1/2 .. 1, weights are at most 1 but for the rounding of scores: sqrt(2) while scores
// stay below 2^24, from where on f32 has no fractions.
//
//   coefficient             times 2^a     largest                                      a at 8, 4, 3, 2 bits
//   value * stored scale    2^a <= Q/3    2/3 * 65504 * sqrt(2) * (1 + 2^-10)          6, 2, 1, 0
//   value                   2^11          2^11 * sqrt(2); the sum of 16: 2^15 * 1.42   11
//
// Values times stored scales then have all of their bits from a magnitude of the stored values of some 2^-15 on, and
// scores are within 2^-24 times the largest |q|, less than what 16 bits of q and of outputs show. Where more is asked
// (f32 tensors, class `full`, halves that have no subnormal numbers), scales and minima of a tile are brought to a
// range as well, at whatever size they are: the largest magnitude that they stand for, Q * scale or |minimum|, to
// Q/6 * 2^4 .. Q/3 * 2^4. Then scales are at most 2^4 / 3 and values 2^11 times 1 with all formats, so that a product
// is below 2^14; and a scale loses bits only where it is 2^-14 of what the tile's values are. It costs a maximum over
// scales and minima and a product with each for every tile. What is not packed is brought to 1/2 .. 1.
#pragma once

#include "passes/TileBuilder.h"

namespace mlir::kvq {

// a of a value that a stored scale of a format multiplies, of any other, and of what a tile's scales and minima stand
// for.
int storedHeadroom(int bits);
inline constexpr int kHeadroom = 11;
int paramHeadroom(int bits);

// Powers of two, of f32 tiles or scalars of magnitudes: largest * down is in 2^(a-1) .. 2^a, and up = 1 / down. For
// magnitudes below 2^-40, zero too, those of 2^-40.
struct HalfRange {
  Value down, up;
  static HalfRange of(TileBuilder &b, Value largest, int a);
};

} // namespace mlir::kvq
