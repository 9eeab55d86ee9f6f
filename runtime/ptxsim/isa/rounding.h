// SPDX-License-Identifier: Apache-2.0
//
// Directed rounding of floats by exact errors, without touching the floating-point environment: a loop over lanes stays
// a vector loop. A result is rounded to nearest first and then moved by one step where it lies on the wrong side.
#pragma once

#include "runtime/ptxsim/isa/half.h"

namespace kvq::ptxsim {

enum Rounding { Rn, Rz, Rm, Rp }; // as the alternatives of [.rn|.rz|.rm|.rp]

// Without errno, so that they are instructions and vectors of them.
#if defined(__clang__)
KVQ_INLINE float squareRoot(float a) { return __builtin_elementwise_sqrt(a); }
KVQ_INLINE double squareRoot(double a) { return __builtin_elementwise_sqrt(a); }
#else
KVQ_INLINE float squareRoot(float a) { return std::sqrt(a); }
KVQ_INLINE double squareRoot(double a) { return std::sqrt(a); }
#endif

// near: the exact value rounded to nearest; above, below: on which side of the exact value it lies.
template <int rounding> KVQ_INLINE float directed(float near, bool above, bool below) {
  if constexpr (rounding == Rn)
    return near;
  const uint32_t bits = bitsOf(near);
  const bool negative = bits >> 31;
  const bool down = rounding == Rm ? above : rounding == Rz ? above & !negative : false;
  const bool up = rounding == Rp ? below : rounding == Rz ? below & negative : false;
  const bool moves = down | up;
  return floatOf(moves ? (up == negative ? bits - 1 : bits + 1) : bits);
}

// From a double that is exact or rounded to odd.
template <int rounding> KVQ_INLINE float roundToFloat(double value) {
  const float near = float(value);
  return directed<rounding>(near, double(near) > value, double(near) < value);
}

// An exact zero as a sum of x and y is +0 unless both are -0; rounding down it is -0 unless both are +0.
template <int rounding> KVQ_INLINE float roundSum(double sum, double x, double y) {
  const float result = roundToFloat<rounding>(sum);
  if constexpr (rounding != Rm)
    return result;
  const uint64_t signs = std::bit_cast<uint64_t>(x) | std::bit_cast<uint64_t>(y);
  return sum == 0 ? floatOf(uint32_t(signs >> 32) & 0x80000000) : result;
}

template <int rounding> KVQ_INLINE float addRounded(float a, float b) {
  if constexpr (rounding == Rn)
    return a + b;
  return roundSum<rounding>(addToOdd(double(a), double(b)), a, b);
}
template <int rounding> KVQ_INLINE float mulRounded(float a, float b) {
  if constexpr (rounding == Rn)
    return a * b;
  return roundToFloat<rounding>(double(a) * double(b)); // exact: 48 bits
}
template <int rounding> KVQ_INLINE float fmaRounded(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  if constexpr (rounding == Rn)
    return __builtin_fmaf(a, b, c);
#endif
  const double product = double(a) * double(b);
  return roundSum<rounding>(addToOdd(product, double(c)), product, c);
}
// The quotient times the divisor is exact as a double, and so is the square of a root.
template <int rounding> KVQ_INLINE float divRounded(float a, float b) {
  const float near = a / b;
  const double back = double(near) * double(b);
  const bool more = back > a, less = back < a;
  return directed<rounding>(near, b < 0 ? less : more, b < 0 ? more : less);
}
template <int rounding> KVQ_INLINE float sqrtRounded(float a) {
  const float near = squareRoot(a);
  const double back = double(near) * double(near);
  return directed<rounding>(near, back > a, back < a);
}

// What every f32 operation does with its result: NaN is canonical, .ftz flushes, .sat clamps to [0, 1] with +0 for NaN.
// As integers: of floats the compiler takes `value != value ? NaN : value` for value.
KVQ_INLINE float canonical(float value) {
  const uint32_t bits = bitsOf(value);
  return floatOf((bits & 0x7fffffff) > 0x7f800000 ? kFloatNaN : bits);
}
float canonical(double value) = delete;
template <bool saturates> KVQ_INLINE float saturated(float value) {
  if constexpr (!saturates)
    return canonical(value);
  const float low = value > 0 ? value : 0.0f;
  return low < 1 ? low : 1.0f;
}
template <bool flushes> KVQ_INLINE float flushed(float value) {
  if constexpr (flushes)
    return flush(value);
  return value;
}

// .ftz looks at a result as if exponents had no least one: what rounds up to the least normal number only because
// subnormal numbers are coarse is flushed too (as an H200 does). exact: the value before rounding, or rounded to odd.
template <int rounding> KVQ_INLINE float flushResult(float result, double exact) {
  const bool tiny = std::fabs(roundToFloat<rounding>(exact * 0x1p64)) < 0x1p-62f;
  return floatOf(tiny ? bitsOf(result) & 0x80000000 : bitsOf(result));
}

} // namespace kvq::ptxsim
