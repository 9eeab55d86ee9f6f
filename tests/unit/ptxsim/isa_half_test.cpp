// SPDX-License-Identifier: Apache-2.0
//
// fp16 and bf16: conversions of every value, and arithmetic against exact integers that are rounded once.
#include "tests/unit/ptxsim/isa_harness.h"

#include "runtime/ptxsim/isa/half.h"

#include <cmath>

namespace kvq::ptxsim::test {
namespace {

// A format of sixteen bits by its numbers: value = m * 2^(e - bias - mantissa), written out.
struct Format {
  int mantissa, least; // bits; exponent of the least subnormal number
  double value(uint16_t bits) const {
    const int exponent = (bits & 0x7fff) >> mantissa, m = bits & ((1 << mantissa) - 1);
    const double size = exponent ? std::ldexp(m + (1 << mantissa), exponent - 1 + least) : std::ldexp(m, least);
    return bits & 0x8000 ? -size : size;
  }
  uint16_t infinity() const { return uint16_t(0x7fff >> mantissa << mantissa); }
  bool isNaN(uint16_t bits) const { return (bits & 0x7fff) > infinity(); }
};
constexpr Format kFp16{10, -24}, kBf16{7, -133};

// A finite sum of a product and a number, exact: both are integers in units of 2^unit.
struct Exact {
  __int128 sum;
  int unit;
};

// The number of the format that is nearest to sum * 2^unit, ties to even; infinity beyond the range.
uint16_t nearest(const Format &format, const Exact &exact, bool negativeZero) {
  if (exact.sum == 0)
    return negativeZero ? 0x8000 : 0;
  const bool negative = exact.sum < 0;
  const auto size = static_cast<unsigned __int128>(negative ? -exact.sum : exact.sum);
  uint32_t low = 0, high = format.infinity(); // bits: the largest number that is not above
  // Compares size * 2^unit with (2 * m + half) * 2^(e - 1).
  const auto above = [&](uint32_t bits, int half) {
    const int exponent = int(bits >> format.mantissa), place = std::max(exponent, 1) - 1 + format.least - 1;
    const uint32_t m = (bits & ((1u << format.mantissa) - 1)) | (exponent ? 1u << format.mantissa : 0);
    const unsigned __int128 other = 2 * m + half;
    const int shift = place - exact.unit;
    if (shift >= 0)
      return shift > 100 ? 1 : (other << shift) > size ? 1 : (other << shift) == size ? 0 : -1;
    return -shift > 126 || size >> (127 + shift) ? -1 : other > size << -shift ? 1 : other == size << -shift ? 0 : -1;
  };
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (above(middle, 0) > 0 ? high : low) = middle;
  }
  const int half = above(low, 1);
  const uint32_t rounded = half < 0 || (half == 0 && low & 1) ? low + 1 : low;
  return uint16_t(rounded | (negative ? 0x8000 : 0));
}

TEST(HalfConversion, EveryValue) {
  for (const Format &format : {kFp16, kBf16})
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const float value = format.mantissa == 10 ? halfToFloat(uint16_t(bits)) : bfloatToFloat(uint16_t(bits));
      const uint16_t back = format.mantissa == 10 ? floatToHalf(value) : floatToBfloat(value);
      if (format.isNaN(uint16_t(bits))) {
        EXPECT_TRUE(std::isnan(value));
        EXPECT_EQ(back, 0x7fff);
      } else if ((bits & 0x7fff) == format.infinity()) {
        EXPECT_TRUE(std::isinf(value));
        EXPECT_EQ(back, bits);
      } else {
        EXPECT_EQ(value, format.value(uint16_t(bits)));
        EXPECT_EQ(back, bits);
      }
    }
}

TEST(HalfConversion, RoundsBetweenAllNeighbours) {
  for (const Format &format : {kFp16, kBf16})
    for (uint32_t bits = 0; bits < format.infinity(); ++bits) {
      const double low = format.value(uint16_t(bits));
      const double next =
          bits + 1 == format.infinity() ? 2 * low - format.value(uint16_t(bits - 1)) : format.value(uint16_t(bits + 1));
      const float half = float((low + next) / 2);
      const auto narrow = [&](float value) {
        return format.mantissa == 10 ? floatToHalf(value) : floatToBfloat(value);
      };
      EXPECT_EQ(narrow(half), bits & 1 ? bits + 1 : bits) << bits;
      EXPECT_EQ(narrow(std::nextafterf(half, 0)), bits);
      EXPECT_EQ(narrow(std::nextafterf(half, INFINITY)), bits + 1);
      EXPECT_EQ(narrow(-std::nextafterf(half, INFINITY)), (bits + 1) | 0x8000);
    }
}

std::array<uint16_t, 32> drawHalves(Random &random) {
  std::array<uint16_t, 32> values;
  for (uint16_t &value : values)
    value = uint16_t(random.below(3) ? random.next() : draw<uint16_t>(random));
  return values;
}

uint16_t expectedFma(const Format &format, uint16_t a, uint16_t b, uint16_t c) {
  const bool special =
      (a & 0x7fff) >= format.infinity() || (b & 0x7fff) >= format.infinity() || (c & 0x7fff) >= format.infinity();
  if (special) { // no rounding: infinities and NaN are those of doubles
    const auto wide = [&](uint16_t bits) {
      return format.isNaN(bits)                     ? NAN
             : (bits & 0x7fff) == format.infinity() ? std::copysign(INFINITY, bits & 0x8000 ? -1.0 : 1.0)
                                                    : format.value(bits);
    };
    const double result = wide(a) * wide(b) + wide(c);
    return std::isnan(result)   ? 0x7fff
           : std::isinf(result) ? uint16_t(format.infinity() | (result < 0 ? 0x8000 : 0))
                                : c;
  }
  // As integers in one unit; what is far below the other one is only known not to be zero.
  const auto split = [&](uint16_t bits) {
    const int exponent = (bits & 0x7fff) >> format.mantissa;
    const int m = (bits & ((1 << format.mantissa) - 1)) | (exponent ? 1 << format.mantissa : 0);
    return std::pair<__int128, int>(bits & 0x8000 ? -m : m, std::max(exponent, 1) - 1 + format.least);
  };
  const auto [ma, ea] = split(a);
  const auto [mb, eb] = split(b);
  const auto [mc, ec] = split(c);
  __int128 p = ma * mb, q = mc;
  int unitP = ea + eb, unitQ = ec;
  const bool negativeZero = ((a ^ b) & 0x8000) && (c & 0x8000);
  for (auto [x, ux, y, uy] : {std::tuple(&p, &unitP, &q, &unitQ), std::tuple(&q, &unitQ, &p, &unitP)}) {
    if (*ux <= *uy || *x == 0)
      continue;
    const int shift = std::min(*ux - *uy, 64);
    if (*ux - *uy > 64 && *y != 0)
      *y = *y > 0 ? 1 : -1;
    *x <<= shift;
    *ux -= shift;
    *uy = *ux;
  }
  const int unit = p == 0 ? unitQ : q == 0 ? unitP : std::min(unitP, unitQ);
  return nearest(format, {p + q, unit}, negativeZero);
}

void testArithmetic(const Format &format, const std::string &type) {
  Machine machine(addHalf);
  Random random(1);
  const auto one = format.mantissa == 10 ? 0x3c00 : 0x3f80;
  for (int round = 0; round < 3000; ++round) {
    const auto a = drawHalves(random), b = drawHalves(random);
    auto c = drawHalves(random);
    if (round % 2) // near the product, so that it cancels
      c = machine.call<uint16_t>("neg." + type, machine.call<uint16_t>("mul." + type, a, b));
    const auto sum = machine.call<uint16_t>("add." + type, a, b),
               difference = machine.call<uint16_t>("sub." + type, a, b);
    const auto product = machine.call<uint16_t>("mul." + type, a, b),
               fused = machine.call<uint16_t>("fma.rn." + type, a, b, c);
    const auto relu = machine.call<uint16_t>("fma.rn.relu." + type, a, b, c);
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(sum[i], expectedFma(format, a[i], uint16_t(one), b[i])) << std::hex << a[i] << " " << b[i];
      if (!format.isNaN(b[i])) {
        EXPECT_EQ(difference[i], expectedFma(format, a[i], uint16_t(one), b[i] ^ 0x8000));
      }
      EXPECT_EQ(product[i], expectedFma(format, a[i], b[i], (a[i] ^ b[i]) & 0x8000)) << std::hex << a[i] << " " << b[i];
      const uint16_t expected = expectedFma(format, a[i], b[i], c[i]);
      EXPECT_EQ(fused[i], expected) << std::hex << a[i] << " " << b[i] << " " << c[i];
      EXPECT_EQ(relu[i], expected & 0x8000 ? 0 : expected);
    }
  }
}
TEST(HalfArithmetic, RoundsOnce) { testArithmetic(kFp16, "f16"); }
TEST(BfloatArithmetic, RoundsOnce) { testArithmetic(kBf16, "bf16"); }

TEST(PackedArithmetic, IsThatOfBothHalves) {
  Machine machine(addHalf);
  Random random(2);
  for (const char *name : {"add.f16", "sub.ftz.f16", "mul.sat.f16", "add.bf16", "mul.bf16", "min.f16", "max.NaN.f16",
                           "min.xorsign.abs.bf16"})
    for (int round = 0; round < 50; ++round) {
      const auto a = drawLanes<uint32_t>(random), b = drawLanes<uint32_t>(random);
      std::array<uint16_t, 32> part[2][2];
      for (int i = 0; i < 32; ++i)
        for (int half = 0; half < 2; ++half)
          part[0][half][i] = uint16_t(a[i] >> 16 * half), part[1][half][i] = uint16_t(b[i] >> 16 * half);
      const auto packed = machine.call<uint32_t>(std::string(name) + "x2", a, b);
      const auto low = machine.call<uint16_t>(name, part[0][0], part[1][0]);
      const auto high = machine.call<uint16_t>(name, part[0][1], part[1][1]);
      for (int i = 0; i < 32; ++i)
        EXPECT_EQ(packed[i], uint32_t(high[i]) << 16 | low[i]) << name;
    }
}

} // namespace
} // namespace kvq::ptxsim::test
