// SPDX-License-Identifier: Apache-2.0
//
// Integer arithmetic and logic against the ISA's own definitions, written bit by bit or in wider integers.
#include "tests/unit/ptxsim/isa_harness.h"

#include <algorithm>
#include <limits>

namespace kvq::ptxsim::test {
namespace {

using Wide = __int128;

template <typename T> const char *nameOfType() {
  constexpr bool s = std::is_signed_v<T>;
  return sizeof(T) == 2 ? (s ? "s16" : "u16") : sizeof(T) == 4 ? (s ? "s32" : "u32") : (s ? "s64" : "u64");
}

template <typename T> class Arithmetic : public testing::Test {};
using Types = testing::Types<uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>;
TYPED_TEST_SUITE(Arithmetic, Types);

TYPED_TEST(Arithmetic, IsThatOfWideIntegers) {
  using T = TypeParam;
  using U = std::make_unsigned_t<T>;
  Machine machine(addInteger);
  Random random(1);
  const std::string type = nameOfType<T>();
  for (int round = 0; round < 200; ++round) {
    const auto a = drawLanes<T>(random), b = drawLanes<T>(random), c = drawLanes<T>(random);
    const auto sum = machine.call<T>("add." + type, a, b), difference = machine.call<T>("sub." + type, a, b);
    const auto low = machine.call<T>("mul.lo." + type, a, b), high = machine.call<T>("mul.hi." + type, a, b);
    const auto mad = machine.call<T>("mad.lo." + type, a, b, c), madHigh = machine.call<T>("mad.hi." + type, a, b, c);
    const auto least = machine.call<T>("min." + type, a, b), most = machine.call<T>("max." + type, a, b);
    const auto quotient = machine.call<T>("div." + type, a, b), rest = machine.call<T>("rem." + type, a, b);
    const auto sad = machine.call<T>("sad." + type, a, b, c);
    for (int i = 0; i < 32; ++i) {
      const Wide x = a[i], y = b[i], z = c[i];
      const unsigned __int128 product = static_cast<unsigned __int128>(x) * static_cast<unsigned __int128>(y);
      EXPECT_EQ(sum[i], T(U(x + y)));
      EXPECT_EQ(difference[i], T(U(x - y)));
      EXPECT_EQ(low[i], T(U(product)));
      EXPECT_EQ(high[i], T(U(product >> 8 * sizeof(T))));
      EXPECT_EQ(mad[i], T(U(product + static_cast<unsigned __int128>(z))));
      EXPECT_EQ(madHigh[i], T(U((product >> 8 * sizeof(T)) + static_cast<unsigned __int128>(z))));
      EXPECT_EQ(least[i], T(std::min(x, y)));
      EXPECT_EQ(most[i], T(std::max(x, y)));
      EXPECT_EQ(quotient[i], y == 0 ? T(-1) : T(U(x / y)));
      EXPECT_EQ(rest[i], y == 0 ? T(-1) : T(U(x % y)));
      EXPECT_EQ(sad[i], T(U(z + (x < y ? y - x : x - y))));
    }
  }
}

TYPED_TEST(Arithmetic, LeavesInactiveLanes) {
  using T = TypeParam;
  Machine machine(addInteger);
  Random random(2);
  const auto a = drawLanes<T>(random), b = drawLanes<T>(random);
  for (uint32_t mask : {1u, 0x80000000u, 0x12345678u, 0xffff0000u}) {
    for (const char *name : {"add.", "div."}) {
      const Lanes result = machine.run(name + std::string(nameOfType<T>()), {lanesOf(a), lanesOf(b)}, mask)[0];
      const Lanes whole = machine.run(name + std::string(nameOfType<T>()), {lanesOf(a), lanesOf(b)})[0];
      for (int i = 0; i < 32; ++i)
        EXPECT_EQ(get<T>(result, i), mask >> i & 1 ? get<T>(whole, i) : T(Machine::before));
    }
  }
}

TEST(IntegerCarry, ChainsMakeWiderNumbers) {
  Machine machine(addInteger);
  Random random(3);
  for (int round = 0; round < 200; ++round) {
    const auto a0 = drawLanes<uint32_t>(random), a1 = drawLanes<uint32_t>(random), a2 = drawLanes<uint32_t>(random);
    const auto b0 = drawLanes<uint32_t>(random), b1 = drawLanes<uint32_t>(random), b2 = drawLanes<uint32_t>(random);
    const auto whole = [](uint32_t low, uint32_t middle, uint32_t high) {
      return static_cast<unsigned __int128>(high) << 64 | uint64_t(middle) << 32 | low;
    };
    const auto s0 = machine.call<uint32_t>("add.cc.u32", a0, b0), s1 = machine.call<uint32_t>("addc.cc.u32", a1, b1);
    const auto s2 = machine.call<uint32_t>("addc.s32", a2, b2);
    const auto d0 = machine.call<uint32_t>("sub.cc.s32", a0, b0), d1 = machine.call<uint32_t>("subc.cc.u32", a1, b1);
    const auto d2 = machine.call<uint32_t>("subc.u32", a2, b2);
    // (a1 a0) * b0 + (b2 b1)
    const auto m0 = machine.call<uint32_t>("mad.lo.cc.u32", a0, b0, b1);
    const auto m1 = machine.call<uint32_t>("madc.hi.u32", a0, b0, b2);
    for (int i = 0; i < 32; ++i) {
      const auto low96 = (static_cast<unsigned __int128>(1) << 96) - 1;
      const auto x = whole(a0[i], a1[i], a2[i]), y = whole(b0[i], b1[i], b2[i]);
      EXPECT_TRUE(whole(s0[i], s1[i], s2[i]) == ((x + y) & low96));
      EXPECT_TRUE(whole(d0[i], d1[i], d2[i]) == ((x - y) & low96));
      EXPECT_EQ(uint64_t(m1[i]) << 32 | m0[i], uint64_t(a0[i]) * b0[i] + (uint64_t(b2[i]) << 32 | b1[i]));
    }
  }
}

TEST(IntegerSaturation, ClampsToTheRange) {
  Machine machine(addInteger);
  Random random(4);
  const auto clamp = [](int64_t value) {
    return int32_t(
        std::clamp<int64_t>(value, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()));
  };
  for (int round = 0; round < 100; ++round) {
    const auto a = drawLanes<int32_t>(random), b = drawLanes<int32_t>(random), c = drawLanes<int32_t>(random);
    const auto sum = machine.call<int32_t>("add.sat.s32", a, b),
               difference = machine.call<int32_t>("sub.sat.s32", a, b);
    const auto mad = machine.call<int32_t>("mad.hi.sat.s32", a, b, c),
               relu = machine.call<int32_t>("max.relu.s32", a, b);
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(sum[i], clamp(int64_t(a[i]) + b[i]));
      EXPECT_EQ(difference[i], clamp(int64_t(a[i]) - b[i]));
      EXPECT_EQ(mad[i], clamp((int64_t(a[i]) * b[i] >> 32) + c[i]));
      EXPECT_EQ(relu[i], std::max({a[i], b[i], 0}));
    }
  }
}

TEST(Lop3, EveryTable) {
  Machine machine(addLogic);
  Random random(5);
  for (uint32_t table = 0; table < 256; ++table) {
    const auto a = drawLanes<uint32_t>(random), b = drawLanes<uint32_t>(random), c = drawLanes<uint32_t>(random);
    const std::vector<Lanes> sources = {lanesOf(a), lanesOf(b), lanesOf(c)};
    const Lanes d = machine.run("lop3.b32", sources, kFull, table)[0];
    std::vector<Lanes> withPredicate = sources;
    withPredicate.push_back(predicate(0x0f0f3355));
    const auto either = machine.run("lop3.or.b32", withPredicate, kFull, table);
    const auto both = machine.run("lop3.and.b32", withPredicate, 0xffff, table);
    for (int i = 0; i < 32; ++i) {
      uint32_t expected = 0;
      for (int bit = 0; bit < 32; ++bit) {
        const int index = int((a[i] >> bit & 1) << 2 | (b[i] >> bit & 1) << 1 | (c[i] >> bit & 1));
        expected |= (table >> index & 1) << bit;
      }
      const bool p = expected != 0, q = 0x0f0f3355 >> i & 1;
      EXPECT_EQ(get<uint32_t>(d, i), expected) << table;
      EXPECT_EQ(get<uint32_t>(either[0], i), expected);
      EXPECT_EQ(either[1].lane[0] >> i & 1, uint64_t(p || q));
      EXPECT_EQ(both[1].lane[0] >> i & 1, i < 16 ? uint64_t(p && q) : Machine::before >> i & 1);
    }
  }
}

TEST(Prmt, EverySelectorOfLowBytes) {
  Machine machine(addLogic);
  Random random(6);
  const auto expected = [](uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    uint32_t d = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t nibble = selector >> 4 * i & 15;
      const uint8_t byte = uint8_t(bytes >> 8 * (nibble & 7));
      d |= uint32_t(nibble & 8 ? (byte & 0x80 ? 0xff : 0) : byte) << 8 * i;
    }
    return d;
  };
  for (uint32_t selector = 0; selector < 0x10000; selector += 7) {
    const auto a = drawLanes<uint32_t>(random), b = drawLanes<uint32_t>(random);
    auto s = drawLanes<uint32_t>(random); // different in each lane, then the same
    for (int uniform = 0; uniform < 2; ++uniform) {
      const auto d = machine.call<uint32_t>("prmt.b32", a, b, s);
      for (int i = 0; i < 32; ++i)
        EXPECT_EQ(d[i], expected(a[i], b[i], s[i])) << std::hex << s[i];
      s.fill(selector);
    }
  }
  const char *modes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
  const int sources[6][4][4] = {{{3, 2, 1, 0}, {4, 3, 2, 1}, {5, 4, 3, 2}, {6, 5, 4, 3}},
                                {{5, 6, 7, 0}, {6, 7, 0, 1}, {7, 0, 1, 2}, {0, 1, 2, 3}},
                                {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}},
                                {{3, 2, 1, 0}, {3, 2, 1, 1}, {3, 2, 2, 2}, {3, 3, 3, 3}},
                                {{0, 0, 0, 0}, {1, 1, 1, 0}, {2, 2, 1, 0}, {3, 2, 1, 0}},
                                {{1, 0, 1, 0}, {3, 2, 3, 2}, {1, 0, 1, 0}, {3, 2, 3, 2}}};
  for (int mode = 0; mode < 6; ++mode) {
    const auto a = drawLanes<uint32_t>(random), b = drawLanes<uint32_t>(random), c = drawLanes<uint32_t>(random);
    const auto d = machine.call<uint32_t>(std::string("prmt.b32.") + modes[mode], a, b, c);
    for (int i = 0; i < 32; ++i)
      for (int byte = 0; byte < 4; ++byte) {
        const int from = sources[mode][c[i] & 3][3 - byte];
        EXPECT_EQ(d[i] >> 8 * byte & 0xff, uint32_t((uint64_t(b[i]) << 32 | a[i]) >> 8 * from) & 0xff) << modes[mode];
      }
  }
}

// The loops of the ISA's descriptions of bfe and bfi.
template <typename T> T fieldOf(T a, uint32_t position, uint32_t length) {
  constexpr uint32_t msb = 8 * sizeof(T) - 1;
  const bool sign = std::is_signed_v<T> && length != 0 && (a >> std::min(position + length - 1, msb) & 1);
  std::make_unsigned_t<T> d = 0;
  for (uint32_t i = 0; i <= msb; ++i) {
    const bool bit = i < length && position + i <= msb ? bool(a >> (position + i) & 1) : sign;
    d |= std::make_unsigned_t<T>(bit) << i;
  }
  return T(d);
}
template <typename T> T inserted(T a, T b, uint32_t position, uint32_t length) {
  T f = b;
  for (uint32_t i = 0; i < length && position + i < 8 * sizeof(T); ++i)
    f = T(f & ~(T(1) << (position + i))) | T((a >> i & 1) << (position + i));
  return f;
}

TEST(BitFields, AreAsTheIsaDescribes) {
  Machine machine(addLogic);
  Random random(7);
  const auto check = [&]<typename T>(const std::string &type) {
    using U = std::make_unsigned_t<T>;
    for (int round = 0; round < 300; ++round) {
      auto position = drawLanes<uint32_t>(random), length = drawLanes<uint32_t>(random);
      for (int i = 0; i < 32; ++i) {
        position[i] = round % 3 == 0 ? uint32_t(round % 67) : position[i] % (i % 2 ? 70 : 256);
        length[i] = round % 3 == 0 ? uint32_t(round / 3 % 67) : length[i] % (i % 4 ? 70 : 256);
      }
      const auto a = drawLanes<T>(random), b = drawLanes<T>(random);
      const auto field = machine.call<T>("bfe." + type, a, position, length);
      const auto f = machine.call<U>("bfi.b" + type.substr(1), as<U>(a), as<U>(b), position, length);
      for (int i = 0; i < 32; ++i) {
        EXPECT_EQ(field[i], fieldOf(a[i], position[i], length[i])) << type << " " << position[i] << " " << length[i];
        EXPECT_EQ(f[i], inserted(U(a[i]), U(b[i]), position[i], length[i]));
      }
    }
  };
  check.operator()<uint32_t>("u32");
  check.operator()<int32_t>("s32");
  check.operator()<uint64_t>("u64");
  check.operator()<int64_t>("s64");
}

TEST(Shifts, ClampTheirAmounts) {
  Machine machine(addLogic);
  Random random(8);
  for (int round = 0; round < 200; ++round) {
    auto by = drawLanes<uint32_t>(random);
    for (int i = 0; i < 32; ++i)
      by[i] = round % 2 ? uint32_t(round) : by[i] % 80;
    const auto a = drawLanes<uint32_t>(random), b = drawLanes<uint32_t>(random);
    const auto s = as<int32_t>(a);
    const auto wide = drawLanes<uint64_t>(random);
    const auto half = drawLanes<int16_t>(random);
    const auto left = machine.call<uint32_t>("shl.b32", a, by), right = machine.call<uint32_t>("shr.u32", a, by);
    const auto arithmetic = machine.call<int32_t>("shr.s32", s, by);
    const auto left64 = machine.call<uint64_t>("shl.b64", wide, by);
    const auto right16 = machine.call<int16_t>("shr.s16", half, by);
    const auto wrap = machine.call<uint32_t>("shf.l.wrap.b32", a, b, by);
    const auto clampRight = machine.call<uint32_t>("shf.r.clamp.b32", a, b, by);
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(left[i], by[i] > 31 ? 0 : a[i] << by[i]);
      EXPECT_EQ(right[i], by[i] > 31 ? 0 : a[i] >> by[i]);
      EXPECT_EQ(arithmetic[i], s[i] >> std::min(by[i], 31u));
      EXPECT_EQ(left64[i], by[i] > 63 ? 0 : wide[i] << by[i]);
      EXPECT_EQ(right16[i], half[i] >> std::min(by[i], 15u));
      const uint32_t w = by[i] & 31, n = std::min(by[i], 32u);
      EXPECT_EQ(wrap[i], w == 0 ? b[i] : b[i] << w | a[i] >> (32 - w));
      EXPECT_EQ(clampRight[i], n == 0 ? a[i] : n == 32 ? b[i] : b[i] << (32 - n) | a[i] >> n);
    }
  }
}

TEST(BitCounts, AreThoseOfLoops) {
  Machine machine(addLogic);
  Random random(9);
  const auto check = [&]<typename T>(const std::string &bits) {
    using S = std::make_signed_t<T>;
    constexpr int width = 8 * sizeof(T);
    for (int round = 0; round < 100; ++round) {
      const auto a = drawLanes<T>(random);
      const auto count = machine.call<uint32_t>("popc.b" + bits, a), zeros = machine.call<uint32_t>("clz.b" + bits, a);
      const auto reversed = machine.call<T>("brev.b" + bits, a);
      const auto first = machine.call<uint32_t>("bfind.u" + bits, a);
      const auto signedFirst = machine.call<uint32_t>("bfind.s" + bits, as<S>(a));
      const auto amount = machine.call<uint32_t>("bfind.shiftamt.u" + bits, a);
      for (int i = 0; i < 32; ++i) {
        int ones = 0, top = -1, other = -1;
        T mirror = 0;
        for (int bit = 0; bit < width; ++bit) {
          const bool set = a[i] >> bit & 1;
          ones += set;
          top = set ? bit : top;
          other = set != bool(a[i] >> (width - 1)) ? bit : other;
          mirror |= T(set) << (width - 1 - bit);
        }
        EXPECT_EQ(count[i], uint32_t(ones));
        EXPECT_EQ(zeros[i], uint32_t(width - 1 - top));
        EXPECT_EQ(reversed[i], mirror);
        EXPECT_EQ(first[i], uint32_t(top));
        EXPECT_EQ(signedFirst[i], uint32_t(other));
        EXPECT_EQ(amount[i], top < 0 ? ~0u : uint32_t(width - 1 - top));
      }
    }
  };
  check.operator()<uint32_t>("32");
  check.operator()<uint64_t>("64");
}

TEST(DotProducts, SumBytes) {
  Machine machine(addLogic);
  Random random(10);
  for (int round = 0; round < 50; ++round) {
    const auto a = drawLanes<uint32_t>(random), b = drawLanes<uint32_t>(random), c = drawLanes<uint32_t>(random);
    const auto ss = machine.call<uint32_t>("dp4a.s32.s32", a, b, c),
               us = machine.call<uint32_t>("dp4a.u32.s32", a, b, c);
    const auto low = machine.call<uint32_t>("dp2a.lo.s32.u32", a, b, c);
    for (int i = 0; i < 32; ++i) {
      int64_t expected = int32_t(c[i]), mixed = c[i], pair = int32_t(c[i]);
      for (int k = 0; k < 4; ++k) {
        expected += int8_t(a[i] >> 8 * k) * int8_t(b[i] >> 8 * k);
        mixed += uint8_t(a[i] >> 8 * k) * int8_t(b[i] >> 8 * k);
        if (k < 2)
          pair += int64_t(int16_t(a[i] >> 16 * k)) * uint8_t(b[i] >> 8 * k);
      }
      EXPECT_EQ(ss[i], uint32_t(expected));
      EXPECT_EQ(us[i], uint32_t(mixed));
      EXPECT_EQ(low[i], uint32_t(pair));
    }
  }
}

} // namespace
} // namespace kvq::ptxsim::test
