// SPDX-License-Identifier: Apache-2.0
//
// f32 and f64 arithmetic against the processor's own, in the rounding mode that fesetround sets.
#include "tests/unit/ptxsim/isa_harness.h"

#include <cfenv>
#include <cmath>
#include <functional>

namespace kvq::ptxsim::test {
namespace {

constexpr struct {
  const char *name;
  int mode;
} kModes[] = {{"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};

// volatile: computed while the mode is set.
template <typename F> F inMode(int mode, const std::function<F(volatile F, volatile F, volatile F)> &f, F a, F b, F c) {
  std::fesetround(mode);
  volatile F result = f(a, b, c);
  std::fesetround(FE_TONEAREST);
  return result;
}

// Values whose sums cancel and whose products under- and overflow come up often enough.
float drawFloat(Random &random) {
  const uint32_t bits = uint32_t(random.next());
  switch (random.below(4)) {
  case 0:
    return std::bit_cast<float>(draw<uint32_t>(random));
  case 1: // near one
    return std::bit_cast<float>((bits & 0x80ffffff) | 0x3f000000);
  case 2: { // special
    constexpr uint32_t kSpecial[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7fffffff, 0x00800000,
                                     0x007fffff, 1,          0x80000001, 0x7f7fffff, 0x3f800000, 0xbf800000};
    return std::bit_cast<float>(kSpecial[random.below(12)]);
  }
  default:
    return std::bit_cast<float>(bits);
  }
}
std::array<float, 32> drawFloats(Random &random) {
  std::array<float, 32> values;
  for (float &value : values)
    value = drawFloat(random);
  return values;
}

void expectSame(float got, float expected, const std::string &what) {
  const uint32_t bits = std::isnan(expected) ? 0x7fffffff : std::bit_cast<uint32_t>(expected);
  EXPECT_EQ(std::bit_cast<uint32_t>(got), bits) << what;
}

TEST(FloatRounding, IsThatOfTheProcessor) {
  Machine machine(addFloat);
  Random random(1);
  const std::pair<const char *, std::function<float(volatile float, volatile float, volatile float)>> operations[] = {
      {"add", [](volatile float a, volatile float b, volatile float) { return a + b; }},
      {"sub", [](volatile float a, volatile float b, volatile float) { return a - b; }},
      {"mul", [](volatile float a, volatile float b, volatile float) { return a * b; }},
      {"div", [](volatile float a, volatile float b, volatile float) { return a / b; }},
      {"fma",
       [](volatile float a, volatile float b, volatile float c) { return std::fma(float(a), float(b), float(c)); }},
      {"rcp", [](volatile float a, volatile float, volatile float) { return 1.0f / a; }},
      {"sqrt", [](volatile float a, volatile float, volatile float) { return std::sqrt(float(a)); }},
  };
  for (const auto &[name, f] : operations)
    for (const auto &mode : kModes)
      for (int round = 0; round < 400; ++round) {
        const auto a = drawFloats(random), b = drawFloats(random);
        auto c = drawFloats(random);
        if (round % 2) // what is left of a product
          for (int i = 0; i < 32; ++i)
            c[i] = -(a[i] * b[i]);
        const std::string full = std::string(name) + "." + mode.name + ".f32";
        const auto d = std::string(name) == "fma"                 ? machine.call<float>(full, a, b, c)
                       : full[0] == 'r' || full.starts_with("sq") ? machine.call<float>(full, a)
                                                                  : machine.call<float>(full, a, b);
        for (int i = 0; i < 32; ++i)
          expectSame(d[i], inMode<float>(mode.mode, f, a[i], b[i], c[i]),
                     full + " " + std::to_string(a[i]) + " " + std::to_string(b[i]) + " " + std::to_string(c[i]));
      }
}

TEST(DoubleRounding, IsThatOfTheProcessor) {
  Machine machine(addFloat);
  Random random(2);
  for (const auto &mode : kModes)
    for (int round = 0; round < 100; ++round) {
      const auto a = as<double>(drawLanes<uint64_t>(random)), b = as<double>(drawLanes<uint64_t>(random));
      const auto sum = machine.call<double>(std::string("add.") + mode.name + ".f64", a, b);
      const auto quotient = machine.call<double>(std::string("div.") + mode.name + ".f64", a, b);
      const auto fused = machine.call<double>(std::string("fma.") + mode.name + ".f64", a, b, a);
      for (int i = 0; i < 32; ++i) {
        const auto same = [&](double got, double expected) {
          EXPECT_TRUE(std::isnan(expected) ? std::isnan(got)
                                           : std::bit_cast<uint64_t>(got) == std::bit_cast<uint64_t>(expected))
              << mode.name << " " << a[i] << " " << b[i];
        };
        using V = volatile double;
        same(sum[i], inMode<double>(mode.mode, [](V x, V y, V) { return x + y; }, a[i], b[i], 0));
        same(quotient[i], inMode<double>(mode.mode, [](V x, V y, V) { return x / y; }, a[i], b[i], 0));
        same(fused[i],
             inMode<double>(
                 mode.mode, [](V x, V y, V z) { return std::fma(double(x), double(y), double(z)); }, a[i], b[i], a[i]));
      }
    }
}

TEST(FloatModifiers, FlushAndSaturate) {
  Machine machine(addFloat);
  Random random(3);
  const auto flush = [](float value) { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; };
  for (int round = 0; round < 500; ++round) {
    const auto a = drawFloats(random), b = drawFloats(random), c = drawFloats(random);
    const auto sum = machine.call<float>("add.ftz.f32", a, b), clamped = machine.call<float>("fma.rn.sat.f32", a, b, c);
    const auto product = machine.call<float>("mul.ftz.f32", a, b);
    for (int i = 0; i < 32; ++i) {
      expectSame(sum[i], flush(flush(a[i]) + flush(b[i])), "add.ftz");
      const float fused = std::fma(a[i], b[i], c[i]);
      expectSame(clamped[i], std::isnan(fused) || fused <= 0 ? 0.0f : std::min(fused, 1.0f), "fma.sat");
      const double exact = double(flush(a[i])) * double(flush(b[i]));
      const bool tiny = std::fabs(exact) < 0x1p-126 * (1 - 0x1p-25); // a half unit below: to nearest, it rounds up
      expectSame(product[i], tiny ? std::copysign(0.0f, float(exact)) : float(exact), "mul.ftz");
    }
  }
}

TEST(FloatExtrema, OrderZerosAndNaN) {
  Machine machine(addFloat);
  const float nan = std::nanf(""), inf = INFINITY;
  const auto one = [&](const char *name, float a, float b) {
    std::array<float, 32> x, y;
    x.fill(a), y.fill(b);
    return machine.call<float>(name, x, y)[17];
  };
  expectSame(one("min.f32", 0.0f, -0.0f), -0.0f, "");
  expectSame(one("min.f32", -0.0f, 0.0f), -0.0f, "");
  expectSame(one("max.f32", -0.0f, 0.0f), 0.0f, "");
  expectSame(one("max.f32", nan, -inf), -inf, "");
  expectSame(one("min.f32", 3, nan), 3, "");
  expectSame(one("min.f32", nan, -nan), nan, "");
  expectSame(one("min.NaN.f32", 3, nan), nan, "");
  expectSame(one("max.xorsign.abs.f32", -3, 2), -3, "");
  expectSame(one("max.xorsign.abs.f32", -3, -4), 4, "");
  expectSame(one("min.ftz.f32", 0x1p-140f, 1), 0, "");
  expectSame(one("copysign.f32", -1, 5), -5, "");
}

TEST(Testp, ClassifiesNumbers) {
  Machine machine(addFloat);
  const float values[] = {0.0f, -0.0f, 1.0f, 0x1p-140f, INFINITY, -INFINITY, std::nanf(""), 0x1p-126f};
  std::array<float, 32> a{};
  for (int i = 0; i < 8; ++i)
    a[i] = values[i];
  const auto test = [&](const char *name) { return machine.run(name, {lanesOf(a)}, 0xff)[0].lane[0] & 0xff; };
  EXPECT_EQ(test("testp.finite.f32"), 0b10001111u);
  EXPECT_EQ(test("testp.infinite.f32"), 0b00110000u);
  EXPECT_EQ(test("testp.number.f32"), 0b10111111u);
  EXPECT_EQ(test("testp.notanumber.f32"), 0b01000000u);
  EXPECT_EQ(test("testp.normal.f32"), 0b10000111u);
  EXPECT_EQ(test("testp.subnormal.f32"), 0b00001000u);
}

} // namespace
} // namespace kvq::ptxsim::test
