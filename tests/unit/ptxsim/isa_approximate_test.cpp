// SPDX-License-Identifier: Apache-2.0
//
// Approximate functions: rounded correctly by default, within two units of that when they are disturbed.
#include "tests/unit/ptxsim/isa_harness.h"

#include "runtime/ptxsim/isa/half.h"

#include <cmath>

namespace kvq::ptxsim::test {
namespace {

using Function = long double (*)(long double);
struct Named {
  const char *name;
  Function function;
  float least, most;
};
constexpr Named kFunctions[] = {
    {"ex2.approx.f32", [](long double x) { return std::exp2(x); }, -150, 130},
    {"lg2.approx.f32", [](long double x) { return std::log2(x); }, 0x1p-149f, 0x1p127f},
    {"rcp.approx.f32", [](long double x) { return 1 / x; }, -1000, 1000},
    {"sqrt.approx.f32", [](long double x) { return std::sqrt(x); }, 0, 1e30f},
    {"rsqrt.approx.f32", [](long double x) { return 1 / std::sqrt(x); }, 1e-40f, 1e30f},
    {"sin.approx.f32", [](long double x) { return std::sin(x); }, -7, 7},
    {"cos.approx.f32", [](long double x) { return std::cos(x); }, -7, 7},
    {"tanh.approx.f32", [](long double x) { return std::tanh(x); }, -20, 20},
};

std::array<float, 32> drawBetween(Random &random, float least, float most) {
  std::array<float, 32> values;
  for (float &value : values)
    do
      value = random.below(2) ? std::bit_cast<float>(uint32_t(random.next()))
                              : least + (most - least) * float(random.below(1 << 24)) * 0x1p-24f;
    while (!(value >= least && value <= most));
  return values;
}
int64_t ordered(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return bits >> 31 ? -int64_t(bits & 0x7fffffff) : int64_t(bits);
}

TEST(Approximate, IsRoundedCorrectly) {
  Machine machine(addApproximate);
  Random random(1);
  for (const Named &named : kFunctions)
    for (int round = 0; round < 500; ++round) {
      const auto a = drawBetween(random, named.least, named.most);
      const auto d = machine.call<float>(named.name, a);
      for (int i = 0; i < 32; ++i)
        EXPECT_EQ(d[i], float(named.function(a[i]))) << named.name << " " << a[i];
    }
}

TEST(Approximate, SpecialValues) {
  Machine machine(addApproximate);
  const auto one = [&](const char *name, float a) {
    std::array<float, 32> x;
    x.fill(a);
    return std::bit_cast<uint32_t>(machine.call<float>(name, x)[9]);
  };
  const float inf = INFINITY, nan = std::nanf("");
  EXPECT_EQ(one("ex2.approx.f32", -inf), 0u);
  EXPECT_EQ(one("ex2.approx.f32", inf), 0x7f800000u);
  EXPECT_EQ(one("ex2.approx.f32", nan), 0x7fffffffu);
  EXPECT_EQ(one("ex2.approx.ftz.f32", -127), 0u);
  EXPECT_EQ(one("ex2.approx.f32", -127), 0x00400000u);
  EXPECT_EQ(one("lg2.approx.f32", 0), 0xff800000u);
  EXPECT_EQ(one("lg2.approx.f32", -0.0f), 0xff800000u);
  EXPECT_EQ(one("lg2.approx.f32", -1), 0x7fffffffu);
  EXPECT_EQ(one("lg2.approx.f32", inf), 0x7f800000u);
  EXPECT_EQ(one("lg2.approx.ftz.f32", 0x1p-140f), 0xff800000u);
  EXPECT_EQ(one("rcp.approx.f32", -0.0f), 0xff800000u);
  EXPECT_EQ(one("rcp.approx.f32", inf), 0u);
  EXPECT_EQ(one("sqrt.approx.f32", -1), 0x7fffffffu);
  EXPECT_EQ(one("rsqrt.approx.f32", 0), 0x7f800000u);
  EXPECT_EQ(one("tanh.approx.f32", -inf), 0xbf800000u);
}

TEST(Approximate, DisturbedStaysWithinTwoUnits) {
  for (const Named &named : kFunctions) {
    Machine machine(addApproximate);
    Random random(2);
    int different = 0;
    for (int round = 0; round < 100; ++round) {
      const auto a = drawBetween(random, named.least, named.most);
      machine.launch.options.disturb = false;
      const auto plain = machine.call<float>(named.name, a);
      machine.launch.options.disturb = true;
      machine.worker.random = Random(uint64_t(round));
      const auto moved = machine.call<float>(named.name, a);
      machine.worker.random = Random(uint64_t(round));
      EXPECT_EQ(machine.call<float>(named.name, a), moved); // by the seed alone
      for (int i = 0; i < 32; ++i) {
        EXPECT_LE(std::abs(ordered(moved[i]) - ordered(plain[i])), 2) << named.name << " " << a[i];
        EXPECT_EQ(std::isfinite(moved[i]), std::isfinite(plain[i]));
        EXPECT_EQ(moved[i] == 0, plain[i] == 0);
        different += moved[i] != plain[i];
      }
    }
    EXPECT_GT(different, 500) << named.name;
  }
}

TEST(Approximate, Halves) {
  Machine machine(addApproximate);
  for (uint32_t first = 0; first < 0x10000; first += 32) {
    std::array<uint16_t, 32> a;
    for (int i = 0; i < 32; ++i)
      a[i] = uint16_t(first + uint32_t(i));
    const auto power = machine.call<uint16_t>("ex2.approx.f16", a),
               tangent = machine.call<uint16_t>("tanh.approx.bf16", a);
    for (int i = 0; i < 32; ++i) {
      const float x = halfToFloat(a[i]), y = bfloatToFloat(a[i]);
      const long double exact = std::exp2(static_cast<long double>(x));
      uint16_t expected = floatToHalf(float(exact)); // or a neighbour, where exact is near a tie
      for (const uint16_t other : {uint16_t(expected - 1), uint16_t(expected + 1)})
        if (expected < 0x7c00 && std::fabs(halfToFloat(other) - exact) < std::fabs(halfToFloat(expected) - exact))
          expected = other;
      EXPECT_EQ(power[i], expected) << x;
      EXPECT_EQ(tangent[i], floatToBfloat(std::tanh(y))) << y;
    }
  }
}

} // namespace
} // namespace kvq::ptxsim::test
