// SPDX-License-Identifier: Apache-2.0
//
// Compiles a tile program and runs it in process; conversions of halves as plain arithmetic.
#pragma once

#include "codegen/Compile.h"
#include "codegen/cpu/Target.h"
#include "tests/unit/codegen/load_object.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <string>
#include <vector>

namespace kvq_test {

inline std::vector<const mlir::kvq::cpu::CpuLevel *> hostLevels() {
  auto levels = mlir::kvq::cpu::hostLevels();
  return {levels.begin(), levels.end()};
}

inline std::string levelName(const testing::TestParamInfo<const mlir::kvq::cpu::CpuLevel *> &info) {
  std::string name = info.param->name;
  for (char &c : name)
    c = c == '-' ? '_' : c;
  return name;
}

inline uint64_t word(const void *pointer) { return reinterpret_cast<uint64_t>(pointer); }

inline void run(const std::string &text, const mlir::kvq::cpu::CpuLevel *level, std::vector<uint64_t> args,
                int64_t programs) {
  mlir::kvq::CompileInput input;
  input.source = text;
  input.target = mlir::kvq::cpu::targetOf(*level);
  input.writeBundle = false;
  auto result = mlir::kvq::compile(input);
  ASSERT_TRUE(static_cast<bool>(result)) << llvm::toString(result.takeError());
  auto loaded = loadObject(result->output, mlir::kvq::kEntryName);
  ASSERT_TRUE(static_cast<bool>(loaded)) << llvm::toString(loaded.takeError());
  for (int64_t i = 0; i < programs; ++i) {
    int64_t id[3] = {i, 0, 0};
    ASSERT_EQ(loaded->function(args.data(), id), 0);
  }
}

// A double rounded to a format with `mantissa` stored bits and least exponent `least`, to nearest even.
inline double roundTo(double x, int mantissa, int least) {
  if (x == 0 || std::isinf(x))
    return x;
  int exponent = std::max(std::ilogb(x), least);
  double unit = std::ldexp(1.0, exponent - mantissa);
  return std::nearbyint(x / unit) * unit;
}

inline float fromF16(uint16_t h) {
  int exponent = (h >> 10) & 31, fraction = h & 1023;
  double value = exponent == 31 ? INFINITY
                 : exponent     ? std::ldexp(1024 + fraction, exponent - 25)
                                : std::ldexp(fraction, -24);
  return static_cast<float>(h & 0x8000 ? -value : value);
}

inline uint16_t roundToF16(float x) {
  double value = std::fabs(roundTo(x, 10, -14));
  uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (value > 65504)
    return sign | 0x7c00;
  if (value < std::ldexp(1.0, -14))
    return sign | static_cast<uint16_t>(std::ldexp(value, 24));
  int exponent = std::ilogb(value);
  return sign |
         static_cast<uint16_t>(((exponent + 15) << 10) + static_cast<int>(std::ldexp(value, 10 - exponent)) - 1024);
}

inline float fromBF16(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }

inline uint16_t roundToBF16(float x) {
  double value = roundTo(x, 7, -126);
  // Beyond the largest bf16 the nearest is infinity.
  float rounded = std::fabs(value) >= std::ldexp(1.0, 128) ? std::copysign(INFINITY, x) : static_cast<float>(value);
  rounded = std::copysign(rounded, x);
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(rounded) >> 16);
}

} // namespace kvq_test
