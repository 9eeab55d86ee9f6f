// SPDX-License-Identifier: Apache-2.0
//
// cvt against exact values: small floats by searching all of them, integers in 128 bits, floats by their neighbours.
#include "tests/unit/ptxsim/isa_harness.h"

#include "runtime/ptxsim/isa/fp8.h"

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <limits>

namespace kvq::ptxsim::test {
namespace {

// All finite numbers of a small format, by their bits, from its definition.
template <typename Small> double smallValue(uint32_t bits) {
  const int exponent = int(bits >> Small::mantissa), m = int(bits & ((1u << Small::mantissa) - 1));
  return exponent ? std::ldexp(1 + std::ldexp(m, -Small::mantissa), exponent - Small::bias)
                  : std::ldexp(m, 1 - Small::bias - Small::mantissa);
}

template <typename Small> void testSmall() {
  const uint32_t count = 1u << (Small::exponent + Small::mantissa);
  uint32_t last = 0;
  while (last + 1 < count && smallValue<Small>(last + 1) <= Small::largest)
    ++last;
  EXPECT_EQ(smallValue<Small>(last), double(Small::largest));
  for (uint32_t bits = 0; bits <= last; ++bits) {
    const float value = float(smallValue<Small>(bits));
    EXPECT_EQ(fromSmall<Small>(bits), value);
    EXPECT_EQ(fromSmall<Small>(bits | count), -value);
    EXPECT_EQ(toSmall<Small>(value), bits);
    EXPECT_EQ(toSmall<Small>(-value), bits | count);
    if (bits == last)
      break;
    const float half = float((double(value) + smallValue<Small>(bits + 1)) / 2);
    EXPECT_EQ(toSmall<Small>(half), bits & 1 ? bits + 1 : bits);
    EXPECT_EQ(toSmall<Small>(std::nextafterf(half, 0)), bits);
    EXPECT_EQ(toSmall<Small>(std::nextafterf(half, 1e9f)), bits + 1);
  }
  for (float value : {Small::largest * 1.5f, std::numeric_limits<float>::max(), INFINITY})
    EXPECT_EQ(toSmall<Small>(value), last);
  EXPECT_EQ(toSmall<Small>(-INFINITY), last | count);
  EXPECT_EQ(toSmall<Small>(std::nanf("")), Small::nan);
  EXPECT_EQ(toSmall<Small>(1e-30f), 0u);
}
TEST(SmallFloats, EveryNumberAndEveryHalfway) {
  testSmall<E4m3>();
  testSmall<E5m2>();
  testSmall<E2m3>();
  testSmall<E3m2>();
  testSmall<E2m1>();
}

TEST(SmallFloats, PackedFormsPutTheFirstSourceAbove) {
  Machine machine(addConvert);
  std::array<float, 32> a{}, b{};
  a.fill(2), b.fill(-0.5f);
  EXPECT_EQ(machine.call<uint16_t>("cvt.rn.satfinite.e4m3x2.f32", a, b)[3], 0x40b0);
  EXPECT_EQ(machine.call<uint16_t>("cvt.rn.satfinite.relu.e5m2x2.f32", a, b)[3], 0x4000);
  EXPECT_EQ(machine.call<uint32_t>("cvt.rn.f16x2.f32", a, b)[3], 0x4000b800u);
  EXPECT_EQ(machine.call<uint32_t>("cvt.rn.relu.bf16x2.f32", a, b)[3], 0x40000000u);
  std::array<uint16_t, 32> small{};
  small.fill(0x40b0);
  EXPECT_EQ(machine.call<uint32_t>("cvt.rn.f16x2.e4m3x2", small)[3], 0x4000b800u);
}

template <typename D, typename A> void testIntegers(Machine &machine, const std::string &d, const std::string &a) {
  Random random(1);
  for (int round = 0; round < 10; ++round) {
    const auto source = drawLanes<A>(random);
    const auto plain = machine.call<D>("cvt." + d + "." + a, source),
               sat = machine.call<D>("cvt.sat." + d + "." + a, source);
    for (int i = 0; i < 32; ++i) {
      const __int128 value = source[i];
      EXPECT_EQ(plain[i], D(std::make_unsigned_t<D>(value))) << d << a;
      EXPECT_EQ(sat[i], D(std::clamp<__int128>(value, std::numeric_limits<D>::min(), std::numeric_limits<D>::max())))
          << d << a;
    }
  }
}
TEST(IntegerConversion, TruncatesExtendsAndSaturates) {
  Machine machine(addConvert);
  const auto to = [&]<typename D>(const std::string &d) {
    testIntegers<D, uint16_t>(machine, d, "u16");
    testIntegers<D, int16_t>(machine, d, "s16");
    testIntegers<D, uint32_t>(machine, d, "u32");
    testIntegers<D, int32_t>(machine, d, "s32");
    testIntegers<D, uint64_t>(machine, d, "u64");
    testIntegers<D, int64_t>(machine, d, "s64");
  };
  to.operator()<uint16_t>("u16");
  to.operator()<int16_t>("s16");
  to.operator()<uint32_t>("u32");
  to.operator()<int32_t>("s32");
  to.operator()<uint64_t>("u64");
  to.operator()<int64_t>("s64");
}

TEST(IntegerConversion, ReadsAndFillsWiderRegisters) {
  Machine machine(addConvert);
  std::array<uint32_t, 32> word;
  word.fill(0x123485f6);
  const auto result = [&](const std::string &name, int index) { // by the bytes of the result's register
    const auto &form = *machine.table.find(name).at(size_t(index));
    return bytesOf(form.results[0].type);
  };
  EXPECT_EQ(result("cvt.s8.u32", 0), 1);
  EXPECT_EQ(machine.call<uint32_t>("cvt.u32.u8", word)[0], 0xf6u);
  EXPECT_EQ(machine.call<int32_t>("cvt.s32.s8", word)[0], -10);
  EXPECT_EQ(machine.call<int32_t>("cvt.s32.s16", word)[0], int32_t(0xffff85f6));
  EXPECT_EQ(machine.call<int64_t>("cvt.s64.s8", word)[0], -10);
  EXPECT_EQ(machine.call<float>("cvt.rn.f32.s8", word)[0], -10.0f);
}

TEST(FloatToInteger, RoundsAndSaturates) {
  Machine machine(addConvert);
  Random random(2);
  constexpr std::pair<const char *, int> kModes[] = {
      {"rni", FE_TONEAREST}, {"rzi", FE_TOWARDZERO}, {"rmi", FE_DOWNWARD}, {"rpi", FE_UPWARD}};
  for (const auto &[name, mode] : kModes)
    for (int round = 0; round < 200; ++round) {
      std::array<float, 32> a;
      for (float &value : a)
        value = random.below(2) ? std::bit_cast<float>(draw<uint32_t>(random))
                                : float(int32_t(random.next() % 20001) - 10000) / 4;
      const auto s32 = machine.call<int32_t>(std::string("cvt.") + name + ".s32.f32", a);
      const auto u32 = machine.call<uint32_t>(std::string("cvt.") + name + ".u32.f32", a);
      const auto s64 = machine.call<int64_t>(std::string("cvt.") + name + ".s64.f32", a);
      const auto u16 = machine.call<uint16_t>(std::string("cvt.") + name + ".u16.f32", a);
      const auto whole = machine.call<float>(std::string("cvt.") + name + ".f32.f32", a);
      for (int i = 0; i < 32; ++i) {
        std::fesetround(mode);
        volatile double source = a[i];
        const long double value = std::nearbyint(source);
        std::fesetround(FE_TONEAREST);
        const auto clamp = [&]<typename I>(I) {
          return value <= std::numeric_limits<I>::min()   ? std::numeric_limits<I>::min()
                 : value >= std::numeric_limits<I>::max() ? std::numeric_limits<I>::max()
                                                          : I(value);
        };
        if (std::isnan(a[i])) {
          EXPECT_EQ(s32[i], 0);
          EXPECT_EQ(u32[i], 0u);
          EXPECT_EQ(s64[i], std::numeric_limits<int64_t>::min());
          EXPECT_EQ(std::bit_cast<uint32_t>(whole[i]), 0x7fffffffu);
        } else {
          EXPECT_EQ(s32[i], clamp(int32_t())) << a[i];
          EXPECT_EQ(u32[i], clamp(uint32_t())) << a[i];
          EXPECT_EQ(s64[i], clamp(int64_t())) << a[i];
          EXPECT_EQ(u16[i], clamp(uint16_t())) << a[i];
          EXPECT_EQ(std::bit_cast<uint32_t>(whole[i]), std::bit_cast<uint32_t>(float(value))) << a[i];
        }
      }
    }
}

TEST(IntegerToFloat, RoundsOnce) {
  Machine machine(addConvert);
  Random random(3);
  constexpr std::pair<const char *, int> kModes[] = {
      {"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (const auto &[name, mode] : kModes)
    for (int round = 0; round < 100; ++round) {
      const auto a = drawLanes<int64_t>(random);
      const auto u = as<uint64_t>(a);
      const auto s32 = drawLanes<int32_t>(random);
      const auto fromSigned = machine.call<float>(std::string("cvt.") + name + ".f32.s64", a);
      const auto fromUnsigned = machine.call<float>(std::string("cvt.") + name + ".f32.u64", u);
      const auto toDouble = machine.call<double>(std::string("cvt.") + name + ".f64.u64", u);
      const auto fromWord = machine.call<float>(std::string("cvt.") + name + ".f32.s32", s32);
      for (int i = 0; i < 32; ++i) {
        std::fesetround(mode);
        volatile long double x = a[i], y = u[i], z = s32[i]; // exact: 64 bits
        volatile float xf = float(x), yf = float(y), zf = float(z);
        volatile double yd = double(y);
        std::fesetround(FE_TONEAREST);
        EXPECT_EQ(fromSigned[i], xf) << name << a[i];
        EXPECT_EQ(fromUnsigned[i], yf) << name << u[i];
        EXPECT_EQ(toDouble[i], yd) << name << u[i];
        EXPECT_EQ(fromWord[i], zf) << name << s32[i];
      }
    }
}

TEST(FloatNarrowing, TakesTheNeighbourOfTheRounding) {
  Machine machine(addConvert);
  Random random(4);
  for (int round = 0; round < 500; ++round) {
    std::array<float, 32> a;
    for (float &value : a)
      value = std::bit_cast<float>(random.below(2) ? draw<uint32_t>(random)
                                                   : uint32_t(random.next() & 0x8fffffff) | 0x30000000);
    const auto rz = machine.call<uint16_t>("cvt.rz.f16.f32", a), rm = machine.call<uint16_t>("cvt.rm.f16.f32", a);
    const auto rp = machine.call<uint16_t>("cvt.rp.f16.f32", a), bz = machine.call<uint16_t>("cvt.rz.bf16.f32", a);
    const auto finite = machine.call<uint16_t>("cvt.rn.satfinite.f16.f32", a);
    for (int i = 0; i < 32; ++i) {
      if (std::isnan(a[i]) || std::isinf(a[i]))
        continue;
      // The largest fp16 that is not above a, by walking from the nearest.
      int32_t nearest = floatToHalf(a[i]);
      nearest = nearest & 0x8000 ? -(nearest & 0x7fff) : nearest;
      const auto bits = [](int32_t ordered, bool negative) {
        return uint16_t(ordered < 0 || (ordered == 0 && negative) ? -ordered | 0x8000 : ordered);
      };
      const auto value = [&](int32_t ordered) { return halfToFloat(bits(ordered, false)); };
      const int32_t down = value(nearest) > a[i] ? nearest - 1 : nearest,
                    up = value(nearest) < a[i] ? nearest + 1 : nearest;
      const bool negative = std::signbit(a[i]);
      EXPECT_EQ(rm[i], bits(down, negative)) << a[i];
      EXPECT_EQ(rp[i], bits(up, negative)) << a[i];
      EXPECT_EQ(rz[i], bits(negative ? up : down, negative)) << a[i];
      EXPECT_EQ(bz[i], std::bit_cast<uint32_t>(a[i]) >> 16);
      EXPECT_EQ(finite[i] & 0x7fff, std::min(floatToHalf(a[i]) & 0x7fff, 0x7bff));
    }
  }
}

TEST(CvtPack, SaturatesAndShifts) {
  Machine machine(addConvert);
  Random random(5);
  for (int round = 0; round < 50; ++round) {
    auto a = drawLanes<int32_t>(random), b = drawLanes<int32_t>(random);
    const auto c = drawLanes<uint32_t>(random);
    for (int i = 0; i < 32; i += 2)
      a[i] >>= 22, b[i] >>= 22;
    const auto u8 = machine.call<uint32_t>("cvt.pack.sat.u8.s32.b32", a, b, c);
    const auto s4 = machine.call<uint32_t>("cvt.pack.sat.s4.s32.b32", a, b, c);
    const auto s16 = machine.call<uint32_t>("cvt.pack.sat.s16.s32", a, b);
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(u8[i], c[i] << 16 | uint32_t(std::clamp(a[i], 0, 255)) << 8 | uint32_t(std::clamp(b[i], 0, 255)));
      EXPECT_EQ(s4[i],
                c[i] << 8 | (uint32_t(std::clamp(a[i], -8, 7)) & 15) << 4 | (uint32_t(std::clamp(b[i], -8, 7)) & 15));
      EXPECT_EQ(s16[i],
                uint32_t(std::clamp(a[i], -32768, 32767)) << 16 | (uint32_t(std::clamp(b[i], -32768, 32767)) & 0xffff));
    }
  }
}

} // namespace
} // namespace kvq::ptxsim::test
