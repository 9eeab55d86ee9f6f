// SPDX-License-Identifier: Apache-2.0
//
// fp16 and bf16 as bits: conversions that vectorize, and arithmetic with one rounding. All instructions that touch
// these types use these functions (arithmetic, cvt, atomics, mma).
#pragma once

#include "runtime/ptxsim/isa/inline.h"

#include <bit>
#include <cmath>
#include <cstdint>

// What a loop over lanes calls must be in it, or the loop is not vectorized: too large for the compiler's own
// judgement.
#define KVQ_INLINE [[gnu::always_inline]] inline

namespace kvq::ptxsim {

inline constexpr uint16_t kHalfNaN = 0x7fff; // what every operation gives for NaN, in fp16 and in bf16
inline constexpr uint32_t kFloatNaN = 0x7fffffff;

KVQ_INLINE uint32_t bitsOf(float value) { return std::bit_cast<uint32_t>(value); }
KVQ_INLINE float floatOf(uint32_t bits) { return std::bit_cast<float>(bits); }

// Exact; a NaN keeps its sign and its payload in the upper bits, and may become quiet.
KVQ_INLINE float halfToFloat(uint16_t half) {
#ifdef __F16C__
  return float(std::bit_cast<_Float16>(half));
#else
  const uint32_t sign = uint32_t(half & 0x8000) << 16, rest = uint32_t(half & 0x7fff) << 13;
  const uint32_t finite = bitsOf(floatOf(rest) * 0x1p112f); // also right for subnormals
  return floatOf(sign | ((half & 0x7c00) == 0x7c00 ? rest | 0x7f800000 : finite));
#endif
}

// To nearest, ties to even. The value is scaled so that the additions round at the right place, subnormals included
// (M. Dukhan's method, FP16 library).
KVQ_INLINE uint16_t floatToHalf(float value) {
  const uint32_t bits = bitsOf(value), twice = bits << 1;
#ifdef __F16C__
  const uint16_t rounded = std::bit_cast<uint16_t>(_Float16(value));
  return twice > 0xff000000 ? kHalfNaN : rounded;
#else
  const float magnitude = floatOf(bits & 0x7fffffff);
  const float base = magnitude * 0x1p+112f * 0x1p-110f; // infinite where the result is
  const uint32_t bias = (twice & 0xff000000) < 0x71000000 ? 0x71000000 : twice & 0xff000000;
  const uint32_t rounded = bitsOf(floatOf((bias >> 1) + 0x07800000) + base);
  const uint32_t finite = ((rounded >> 13) & 0x7c00) + (rounded & 0x0fff);
  return uint16_t(twice > 0xff000000 ? kHalfNaN : (bits >> 16 & 0x8000) | finite);
#endif
}

KVQ_INLINE float bfloatToFloat(uint16_t value) { return floatOf(uint32_t(value) << 16); }
KVQ_INLINE uint16_t floatToBfloat(float value) {
  const uint32_t bits = bitsOf(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return uint16_t((bits & 0x7fffffff) > 0x7f800000 ? kHalfNaN : rounded);
}

// The exact sum a + b rounded to odd: the neighbour with an odd last bit where it is not representable. Rounding the
// result again to at least two bits fewer gives what rounding the exact sum would (Boldo, Melquiond: Emulation of FMA
// and correctly rounded sums: proved algorithms using rounding to odd, 2008), in every direction. The error is exact
// (Knuth's TwoSum) as long as nothing overflows.
template <typename F, typename U> KVQ_INLINE F addToOdd(F a, F b) {
  const F sum = a + b, part = sum - a;
  const F error = (a - (sum - part)) + (b - part);
  const U bits = std::bit_cast<U>(sum);
  // NaN for an infinite sum: neither.
  const bool above = error > 0, below = error < 0;
  const bool grows = above == (sum > 0);
  const U moved = grows ? bits + 1 : bits - 1;
  const bool moves = (above | below) & ((bits & 1) == 0);
  return std::bit_cast<F>(moves ? moved : bits);
}
KVQ_INLINE float addToOdd(float a, float b) { return addToOdd<float, uint32_t>(a, b); }
KVQ_INLINE double addToOdd(double a, double b) { return addToOdd<double, uint64_t>(a, b); }

// A double rounded to odd as a float; beyond the range the largest float or, from infinity, infinity.
KVQ_INLINE float doubleToOdd(double value) {
  const float near = float(value);
  const uint32_t bits = bitsOf(near);
  const double back = near;
  const bool differs = (back < value) | (back > value);
  const bool tooFar = std::fabs(back) > std::fabs(value);
  // An even neighbour is replaced by the one on the other side of the value, which is odd.
  const uint32_t moved = tooFar ? bits - 1 : bits + 1;
  const bool moves = differs & ((bits & 1) == 0);
  return floatOf(moves ? moved : bits);
}

// .ftz: a subnormal becomes a zero of its sign.
KVQ_INLINE uint16_t flushHalf(uint16_t half) { return (half & 0x7c00) ? half : half & 0x8000; }

KVQ_INLINE float flush(float value) {
  return (bitsOf(value) & 0x7f800000) ? value : floatOf(bitsOf(value) & 0x80000000);
}

} // namespace kvq::ptxsim
