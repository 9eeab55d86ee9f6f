// SPDX-License-Identifier: Apache-2.0
//
// Conversions to and from the 16-bit types, exhaustively against what the numbers mean.
#include "runtime/reference/numerics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

using namespace kvq;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of an f16 by its definition.
double meaningOfF16(uint16_t half) {
  const int exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

} // namespace

TEST(Numerics, f16_values_convert_exactly_and_back) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    if ((bits & 0x7c00) == 0x7c00)
      continue;
    ASSERT_EQ(static_cast<double>(f32FromF16(half)), meaningOfF16(half)) << bits;
    ASSERT_EQ(f16FromF32(f32FromF16(half)), half);
  }
  EXPECT_TRUE(std::signbit(f32FromF16(0x8000)));
}

TEST(Numerics, f16_rounds_to_nearest_ties_to_even) {
  for (uint16_t low = 0; low < 0x7c00; ++low) {
    const uint16_t high = low + 1;
    // Above the largest f16 the next step would be 65536: the tie is 65520, and infinity stands for "even".
    const double top = high == 0x7c00 ? 65536.0 : meaningOfF16(high);
    const float tie = static_cast<float>((meaningOfF16(low) + top) / 2);
    const uint16_t even = low % 2 == 0 ? low : high;
    for (uint16_t sign : {0x0000, 0x8000}) {
      const float s = sign ? -1.0f : 1.0f;
      ASSERT_EQ(f16FromF32(s * tie), sign | even) << low;
      ASSERT_EQ(f16FromF32(s * std::nextafter(tie, 0.0f)), sign | low) << low;
      ASSERT_EQ(f16FromF32(s * std::nextafter(tie, kInfinity)), sign | high) << low;
    }
  }
}

TEST(Numerics, f16_special_values) {
  EXPECT_EQ(f16FromF32(0.0f), 0x0000);
  EXPECT_EQ(f16FromF32(-0.0f), 0x8000);
  EXPECT_EQ(f16FromF32(0x1p-149f), 0x0000);
  EXPECT_EQ(f16FromF32(-0x1p-26f), 0x8000);
  EXPECT_EQ(f16FromF32(kInfinity), 0x7c00);
  EXPECT_EQ(f16FromF32(-1e30f), 0xfc00);
  EXPECT_TRUE(std::isnan(f32FromF16(f16FromF32(std::nanf("")))));
  EXPECT_TRUE(std::isnan(f32FromF16(0x7c01)));
  EXPECT_EQ(f32FromF16(0xfc00), -kInfinity);
}

TEST(Numerics, bf16_rounds_to_nearest_ties_to_even) {
  for (uint32_t low = 0; low < 0x7f80; ++low) {
    const float value = f32FromBf16(static_cast<uint16_t>(low));
    ASSERT_EQ(bf16FromF32(value), low);
    const float tie = std::bit_cast<float>(low << 16 | 0x8000);
    ASSERT_EQ(bf16FromF32(tie), low % 2 == 0 ? low : low + 1);
    ASSERT_EQ(bf16FromF32(-tie), 0x8000 | (low % 2 == 0 ? low : low + 1));
    ASSERT_EQ(bf16FromF32(std::nextafter(tie, 0.0f)), low);
    ASSERT_EQ(bf16FromF32(std::nextafter(tie, kInfinity)), low + 1);
  }
  EXPECT_EQ(bf16FromF32(kInfinity), 0x7f80);
  EXPECT_TRUE(std::isnan(f32FromBf16(bf16FromF32(std::bit_cast<float>(0x7f800001)))));
}

TEST(Numerics, quantize_c1_bad_values) {
  for (float bad : {65505.0f, -65505.0f, std::nextafter(65504.0f, kInfinity), kInfinity, -kInfinity, std::nanf("")})
    EXPECT_TRUE(isBadValue(bad)) << bad;
  for (float good : {65504.0f, -65504.0f, 0.0f, -0.0f, 0x1p-149f})
    EXPECT_FALSE(isBadValue(good)) << good;
}
