// SPDX-License-Identifier: Apache-2.0
//
// One group: docs/format-spec.md section 2, with its corner cases worked out by hand.
#include "runtime/reference/numerics.h"
#include "runtime/reference/reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

using namespace kvq;

namespace {

struct Quantized {
  std::vector<uint8_t> codes;
  uint16_t scale, minimum;

  // dequantize_c1.
  float value(size_t i) const {
    const float product = static_cast<float>(codes[i]) * f32FromF16(scale);
    return product + f32FromF16(minimum);
  }
};

Quantized quantized(const std::vector<float> &values, int bits) {
  std::vector<uint8_t> codes(values.size());
  const QuantizedGroup group = quantizeGroup(values, bits, codes);
  return {codes, group.scale, group.minimum};
}

// A group of 32 that repeats `values`.
std::vector<float> repeated(std::vector<float> values) {
  const size_t period = values.size();
  while (values.size() < 32)
    values.push_back(values[values.size() - period]);
  return values;
}

// The text after `"key": ` up to the next quote, bracket or comma that ends it; for the one-line records of
// tests/golden/quantize.json.
std::string field(const std::string &record, const std::string &key, char open, char close) {
  const size_t begin = record.find(open, record.find("\"" + key + "\":") + key.size() + 3) + 1;
  return record.substr(begin, record.find(close, begin) - begin);
}

std::vector<uint32_t> numbers(std::string list, int base) {
  std::replace(list.begin(), list.end(), '"', ' ');
  std::replace(list.begin(), list.end(), ',', ' ');
  std::istringstream words(list);
  std::vector<uint32_t> values;
  for (std::string word; words >> word;)
    values.push_back(static_cast<uint32_t>(std::stoul(word, nullptr, base)));
  return values;
}

} // namespace

TEST(Quantize, quantize_c2_exact_grid) {
  std::vector<float> values;
  for (int i = 0; i < 16; ++i)
    values.push_back(static_cast<float>(i) - 7.0f);
  const Quantized group = quantized(repeated(values), 4);
  EXPECT_EQ(group.scale, 0x3c00);   // 1
  EXPECT_EQ(group.minimum, 0xc700); // -7
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(group.codes[i], i % 16);
    EXPECT_EQ(group.value(i), values[i % 16]);
  }
}

TEST(Quantize, quantize_c2_ties_go_to_even) {
  const Quantized group = quantized(repeated({0.0f, 15.0f, 0.5f, 1.5f, 2.5f, 13.5f, 14.5f, 3.5f}), 4);
  EXPECT_EQ(std::vector<uint8_t>(group.codes.begin(), group.codes.begin() + 8),
            (std::vector<uint8_t>{0, 15, 0, 2, 2, 14, 14, 4}));
}

// 8191 / 15 is 546.0667 and rounds to 546 in f16, so the largest value lies at 15.0018 steps; 6 / 3 is exact, but -6.01
// rounds down to -6.0117 and moves the grid. Either way a code stays in 0 .. Q.
TEST(Quantize, quantize_c2_codes_come_from_the_rounded_scale_and_minimum) {
  const Quantized coarse = quantized(repeated({0.0f, 8191.0f, 273.0f, 819.0f}), 4);
  EXPECT_EQ(f32FromF16(coarse.scale), 546.0f);
  EXPECT_EQ(coarse.codes[1], 15);
  EXPECT_EQ(coarse.codes[2], 0); // 273 / 546 = 0.5, a tie only with the rounded scale
  EXPECT_EQ(coarse.codes[3], 2); // 1.5
  const Quantized moved = quantized(repeated({-6.01f, -0.01f}), 2);
  EXPECT_EQ(f32FromF16(moved.minimum), -6.01171875f);
  EXPECT_EQ(f32FromF16(moved.scale), 2.0f);
  EXPECT_EQ(moved.codes[0], 0);
  EXPECT_EQ(moved.codes[1], 3);
}

TEST(Quantize, quantize_c2_codes_are_clamped) {
  // The scale rounds down from 1.0009 / 2 to a smaller f16, and with 255 levels the last value lies beyond the grid.
  const Quantized high = quantized(repeated({0.0f, 255.0f * (1.0f + 0x1p-11f)}), 8);
  EXPECT_EQ(high.scale, 0x3c00);
  EXPECT_EQ(high.codes[1], 255);
  // The minimum rounds up from -2049.3 to -2050 or down to -2048: values below it get code 0.
  const Quantized low = quantized(repeated({2049.3f, 2050.3f}), 8);
  EXPECT_EQ(f32FromF16(low.minimum), 2050.0f);
  EXPECT_EQ(low.codes[0], 0);
}

TEST(Quantize, quantize_c2_negative_zero_becomes_positive) {
  const Quantized minimum = quantized(repeated({-0.0f, 3.0f, 1.0f, 2.0f}), 2);
  EXPECT_EQ(minimum.minimum, 0x0000);
  EXPECT_EQ(minimum.scale, 0x3c00);
  const Quantized zeros = quantized(repeated({-0.0f}), 4);
  EXPECT_EQ(zeros.minimum, 0x0000);
  EXPECT_EQ(zeros.scale, 0x0000);
  const Quantized tiny = quantized(repeated({-0x1p-30f, -0x1p-31f}), 4);
  EXPECT_EQ(tiny.minimum, 0x8000); // rounds to -0 in f16, after the addition
  EXPECT_EQ(tiny.codes[0], 0);
}

TEST(Quantize, quantize_c2_subnormal_scale_is_kept) {
  // 15 steps of 2^-24, the smallest f16.
  std::vector<float> values;
  for (int i = 0; i < 16; ++i)
    values.push_back(static_cast<float>(i) * 0x1p-24f);
  const Quantized group = quantized(repeated(values), 4);
  EXPECT_EQ(group.scale, 0x0001);
  EXPECT_EQ(group.minimum, 0x0000);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(group.codes[i], i % 16);
    EXPECT_EQ(group.value(i), values[i % 16]);
  }
}

TEST(Quantize, quantize_c2_scale_that_underflows_is_zero) {
  // (mx - mn) / Q = 2^-25: half of the smallest f16, a tie that goes to 0. One ulp more gives the smallest f16.
  const float range = 15.0f * 0x1p-25f;
  const Quantized zero = quantized(repeated({0.0f, range}), 4);
  EXPECT_EQ(zero.scale, 0x0000);
  EXPECT_EQ(zero.codes, std::vector<uint8_t>(32, 0));
  const Quantized least = quantized(repeated({0.0f, std::nextafter(range, 1.0f)}), 4);
  EXPECT_EQ(least.scale, 0x0001);
  EXPECT_EQ(least.codes[1], 8); // 7.5 and a bit
  const Quantized subnormal = quantized(repeated({0.0f, 0x1p-149f, 0x1p-140f}), 2);
  EXPECT_EQ(subnormal.scale, 0x0000);
  EXPECT_EQ(subnormal.codes, std::vector<uint8_t>(32, 0));
}

TEST(Quantize, quantize_c4_constant_group) {
  for (int bits : {2, 3, 4, 8})
    for (float value : {0.0f, 1.7f, -3.25f, 65504.0f, -65504.0f, 0x1p-24f, 1e-30f}) {
      const Quantized group = quantized(repeated({value}), bits);
      EXPECT_EQ(group.scale, 0x0000);
      EXPECT_EQ(group.minimum, f16FromF32(value));
      EXPECT_EQ(group.codes, std::vector<uint8_t>(32, 0));
      EXPECT_EQ(group.value(0), f32FromF16(f16FromF32(value)));
    }
}

TEST(Quantize, quantize_c5_largest_range_does_not_overflow) {
  const Quantized group = quantized(repeated({-65504.0f, 65504.0f, 0.0f}), 2);
  EXPECT_EQ(f32FromF16(group.scale), 43680.0f); // 131008 / 3 = 43669.33, f16 steps of 32
  EXPECT_EQ(group.codes[0], 0);
  EXPECT_EQ(group.codes[1], 3);
  EXPECT_EQ(group.codes[2], 1); // 65504 / 43680 = 1.4996
  EXPECT_EQ(group.value(1), 65536.0f);
}

TEST(Quantize, quantize_c2_golden_cases) {
  std::ifstream file(KVQ_GOLDEN_DIR "/quantize.json");
  int cases = 0;
  for (std::string record; std::getline(file, record);) {
    if (record.find("\"x_f32\"") == std::string::npos)
      continue;
    std::vector<float> values;
    for (uint32_t bits : numbers(field(record, "x_f32", '[', ']'), 16))
      values.push_back(std::bit_cast<float>(bits));
    const int bits = static_cast<int>(numbers(field(record, "bits", ' ', ','), 10).at(0));
    const Quantized group = quantized(values, bits);
    const std::vector<uint32_t> codes = numbers(field(record, "codes", '[', ']'), 10);
    EXPECT_EQ(group.codes, std::vector<uint8_t>(codes.begin(), codes.end())) << record;
    EXPECT_EQ(group.scale, numbers(field(record, "scale_f16", '"', '"'), 16).at(0)) << record;
    EXPECT_EQ(group.minimum, numbers(field(record, "min_f16", '"', '"'), 16).at(0)) << record;
    ++cases;
  }
  EXPECT_GE(cases, 60) << "golden cases are missing";
}

TEST(Quantize, dequantize_c2_error_is_bounded) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    const int bits = std::vector<int>{2, 3, 4, 8}[round % 4];
    std::normal_distribution<float> normal(std::ldexp(1.0f, round % 11 - 5), std::ldexp(1.0f, round % 17 - 12));
    std::vector<float> values(64);
    for (float &value : values)
      value = normal(random);
    const Quantized group = quantized(values, bits);
    const double q = (1 << bits) - 1, s = f32FromF16(group.scale), m = f32FromF16(group.minimum);
    const auto [mn, mx] = std::minmax_element(values.begin(), values.end());
    const double grid = q * std::abs(s - (double{*mx} - *mn) / q) + std::abs(m - *mn);
    const double ulps = 4 * 0x1p-23 * std::max(std::abs(*mn), std::abs(*mx));
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_LE(std::abs(double{group.value(i)} - values[i]), s / 2 + grid + ulps) << round << " " << i;
  }
}
