// SPDX-License-Identifier: Apache-2.0
//
// Sums of doubles without any error, in fixed point over the whole range that products of f32 can have, and their one
// rounding. It shares nothing with the simulator.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

class WideSum {
public:
  void add(double value) {
    int exponent = 0;
    const double fraction = std::frexp(std::fabs(value), &exponent); // 0.5 <= fraction < 1
    const uint64_t digits = uint64_t(std::ldexp(fraction, 53));
    const int place = exponent - 53 + kUnit;
    std::vector<uint32_t> addend(kWords);
    for (int bit = 0; bit < 53; ++bit)
      if (digits >> bit & 1)
        addend[size_t(place + bit) / 32] |= 1u << (place + bit) % 32;
    if (value < 0)
      negate(addend);
    uint64_t carry = 0;
    for (int i = 0; i < kWords; ++i) {
      carry += uint64_t(words_[i]) + addend[i];
      words_[i] = uint32_t(carry);
      carry >>= 32;
    }
  }

  // To nearest even with `precision` bits, the last of them not below 2^least; beyond 2^most an infinity. +0 for zero.
  double round(int precision, int least, int most) const {
    std::vector<uint32_t> magnitude = words_;
    const bool negative = words_[kWords - 1] >> 31;
    if (negative)
      negate(magnitude);
    auto bit = [&](int place) { return place >= 0 && (magnitude[size_t(place) / 32] >> place % 32 & 1); };
    int top = 32 * kWords - 1;
    while (top >= 0 && !bit(top))
      --top;
    if (top < 0)
      return 0;
    const int last = std::max(top - precision + 1, least + kUnit);
    double value = 0;
    for (int place = top; place >= last; --place)
      value += std::ldexp(double(bit(place)), place - kUnit);
    bool sticky = false;
    for (int place = 0; place < last - 1; ++place)
      sticky |= bit(place);
    const bool odd = bit(last);
    if (bit(last - 1) && (sticky || odd))
      value += std::ldexp(1.0, last - kUnit);
    if (value >= std::ldexp(1.0, most))
      value = HUGE_VAL;
    return negative ? -value : value;
  }

private:
  static constexpr int kWords = 24, kUnit = 350; // the lowest bit is worth 2^-350

  static void negate(std::vector<uint32_t> &words) {
    uint64_t carry = 1;
    for (uint32_t &word : words) {
      carry += uint32_t(~word);
      word = uint32_t(carry);
      carry >>= 32;
    }
  }

  std::vector<uint32_t> words_ = std::vector<uint32_t>(kWords);
};
