// SPDX-License-Identifier: Apache-2.0
//
// Numbers of eight bits and fewer: OCP e4m3, e5m2, e2m3, e3m2, e2m1. To them to nearest, ties to even, finite values
// beyond the range to the largest one (.satfinite); from them exactly. All of it vectorizes.
#pragma once

#include "runtime/ptxsim/isa/half.h"

namespace kvq::ptxsim {

struct E4m3 {
  static constexpr int exponent = 4, mantissa = 3, bias = 7;
  static constexpr float largest = 448;
  static constexpr uint32_t nan = 0x7f; // the only ones are 0x7f and 0xff; no infinity
};
struct E5m2 {
  static constexpr int exponent = 5, mantissa = 2, bias = 15;
  static constexpr float largest = 57344;
  static constexpr uint32_t nan = 0x7f; // 0x7d to 0x7f; 0x7c is infinity
};
// These have neither NaN nor infinity: NaN becomes the largest number.
struct E2m3 {
  static constexpr int exponent = 2, mantissa = 3, bias = 1;
  static constexpr float largest = 7.5f;
  static constexpr uint32_t nan = 0x1f;
};
struct E3m2 {
  static constexpr int exponent = 3, mantissa = 2, bias = 3;
  static constexpr float largest = 28;
  static constexpr uint32_t nan = 0x1f;
};
struct E2m1 {
  static constexpr int exponent = 2, mantissa = 1, bias = 1;
  static constexpr float largest = 6;
  static constexpr uint32_t nan = 0x7;
};

template <typename Small> KVQ_INLINE uint32_t toSmall(float value) {
  constexpr int dropped = 23 - Small::mantissa;
  const uint32_t largest = std::bit_cast<uint32_t>(Small::largest);
  const uint32_t bits = bitsOf(value), magnitude = bits & 0x7fffffff;
  const uint32_t clamped = magnitude < largest ? magnitude : largest;
  const uint32_t normal = ((clamped + ((1u << (dropped - 1)) - 1) + (clamped >> dropped & 1)) >> dropped) -
                          (uint32_t(127 - Small::bias) << Small::mantissa);
  // Below the least normal number: adding a number whose last place is the least subnormal rounds there.
  constexpr uint32_t shift = uint32_t(127 + 24 - Small::bias - Small::mantissa) << 23;
  const uint32_t subnormal = bitsOf(floatOf(clamped) + floatOf(shift)) - shift;
  constexpr uint32_t leastNormal = uint32_t(128 - Small::bias) << 23;
  const uint32_t result = clamped < leastNormal ? subnormal : normal;
  const uint32_t sign = bits >> 31 << (Small::exponent + Small::mantissa);
  return magnitude > 0x7f800000 ? Small::nan : result | sign;
}

template <typename Small> KVQ_INLINE float fromSmall(uint32_t small) {
  constexpr int width = Small::exponent + Small::mantissa;
  const uint32_t magnitude = small & ((1u << width) - 1), sign = (small >> width & 1) << 31;
  constexpr float scale = std::bit_cast<float>(uint32_t(127 + 127 - Small::bias) << 23);
  const uint32_t finite = bitsOf(floatOf(magnitude << (23 - Small::mantissa)) * scale);
  uint32_t result = finite | sign;
  if constexpr (Small::bias == 15)
    result = magnitude == 0x7c ? 0x7f800000 | sign : result;
  if constexpr (width == 7)
    result = magnitude > (Small::bias == 15 ? 0x7cu : 0x7eu) ? kFloatNaN : result;
  return floatOf(result);
}

} // namespace kvq::ptxsim
