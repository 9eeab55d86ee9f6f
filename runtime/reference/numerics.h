// SPDX-License-Identifier: Apache-2.0
//
// Conversions between f32 and the two 16-bit types, in integers: round to nearest, ties to even, subnormals kept,
// independent of the host's instructions and floating-point modes. A NaN stays a NaN, its payload is not promised.
#pragma once

#include <bit>
#include <cstdint>

namespace kvq {

inline constexpr float kLargestF16 = 65504.0f;

inline uint16_t f16FromF32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000)
    return sign | 0x7e00;
  if (magnitude >= 0x477ff000) // 65520, half a step above the largest f16, rounds to infinity
    return sign | 0x7c00;
  if (magnitude >= 0x38800000) { // 2^-14, the smallest normal f16
    const uint32_t rebiased = magnitude - (uint32_t{127 - 15} << 23);
    return sign | static_cast<uint16_t>((rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13);
  }
  // Subnormal: the significand counted in steps of 2^-24.
  const uint32_t shift = 126 - (magnitude >> 23);
  if (shift > 24) // below 2^-25, half of the smallest step
    return sign;
  const uint32_t significand = (magnitude & 0x7fffff) | 0x800000;
  const uint32_t steps = significand >> shift;
  const uint32_t rest = significand & ((uint32_t{1} << shift) - 1);
  const uint32_t half = uint32_t{1} << (shift - 1);
  return sign | static_cast<uint16_t>(steps + (rest > half || (rest == half && (steps & 1))));
}

inline float f32FromF16(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = half >> 10 & 0x1f;
  const uint32_t fraction = half & 0x3ff;
  if (exponent == 0x1f)
    return std::bit_cast<float>(sign | 0x7f800000 | fraction << 13);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f; // exact
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | (exponent + 127 - 15) << 23 | fraction << 13);
}

inline uint16_t bf16FromF32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000)
    return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float f32FromBf16(uint16_t value) { return std::bit_cast<float>(uint32_t{value} << 16); }

// quantize_c1: NaN, infinite, or beyond the largest f16.
inline bool isBadValue(float value) { return !(value >= -kLargestF16 && value <= kLargestF16); }

} // namespace kvq
