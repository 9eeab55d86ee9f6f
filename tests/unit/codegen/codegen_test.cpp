// SPDX-License-Identifier: Apache-2.0
//
// Tile programs compiled for every CPU level that this host has and run in process, against plain C++ loops. The
// kernels of the product are tested against the oracles in tests/conformance; here the ops of the tile level are.

#include "tests/unit/codegen/run_kernel.h"

#include <cmath>
#include <cstring>

using namespace kvq_test;

namespace {

class Codegen : public testing::TestWithParam<const mlir::kvq::cpu::CpuLevel *> {};
INSTANTIATE_TEST_SUITE_P(Levels, Codegen, testing::ValuesIn(hostLevels()), levelName);

// A kernel that maps 64 f32 through one unary op, which may end in flags.
std::string unary(const std::string &op) {
  const size_t name = std::min(op.find(' '), op.size());
  return "func.func @f(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {\n"
         "  %i = kvq_tile.program_id 0\n  %c64 = arith.constant 64 : index\n  %at = arith.muli %i, %c64 : index\n"
         "  %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, index -> tensor<64xf32>\n"
         "  %r = " +
         op.substr(0, name) + " %v" + op.substr(name) +
         " : tensor<64xf32>\n"
         "  kvq_tile.store %r, %y[%at] : tensor<64xf32>, !kvq_tile.ptr<f32>, index\n  return\n}\n";
}

std::vector<float> runUnary(const mlir::kvq::cpu::CpuLevel *level, const std::string &op, std::vector<float> x) {
  x.resize((x.size() + 63) / 64 * 64, 1.0f);
  std::vector<float> y(x.size());
  run(unary(op), level, {word(x.data()), word(y.data())}, static_cast<int64_t>(x.size() / 64));
  return y;
}

TEST_P(Codegen, exp2_is_accurate_and_flushes_masked_scores) {
  std::vector<float> x;
  for (float v = -124.0f; v < 127.9f; v += 0.0137f)
    x.push_back(v);
  std::vector<float> y = runUnary(GetParam(), "math.exp2", x);
  for (size_t i = 0; i < x.size(); ++i)
    ASSERT_NEAR(y[i] / std::exp2(static_cast<double>(x[i])), 1.0, 2e-7) << x[i];
  const std::vector<float> ends = {-3e38f, -1e30f, -130.0f, -INFINITY, 128.0f, 1e30f, INFINITY, NAN, 0.0f};
  for (const char *op : {"math.exp2", "math.exp2 fastmath<afn>"}) {
    y = runUnary(GetParam(), op, ends);
    for (int i = 0; i < 4; ++i)
      EXPECT_EQ(y[i], 0.0f) << op << ends[i];
    for (int i = 4; i < 7; ++i)
      EXPECT_TRUE(std::isinf(y[i]) && y[i] > 0) << op << ends[i];
    EXPECT_TRUE(std::isnan(y[7])) << op;
    EXPECT_EQ(y[8], 1.0f) << op;
  }
  y = runUnary(GetParam(), "math.exp2 fastmath<afn>", x);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i)
    worst = std::max(worst, std::abs(y[i] / std::exp2(static_cast<double>(x[i])) - 1));
  EXPECT_LT(worst, 3e-6);
  EXPECT_GT(worst, 1e-6); // the short polynomial
}

TEST_P(Codegen, log2_is_accurate) {
  std::vector<float> x;
  for (float v = 1e-30f; v < 1e30f; v *= 1.0173f)
    x.push_back(v);
  std::vector<float> y = runUnary(GetParam(), "math.log2", x);
  for (size_t i = 0; i < x.size(); ++i)
    ASSERT_NEAR(y[i], std::log2(static_cast<double>(x[i])),
                4e-7 * std::max(1.0, std::fabs(std::log2(static_cast<double>(x[i])))))
        << x[i];
  y = runUnary(GetParam(), "math.log2", {0.0f, -1.0f, 1.0f, INFINITY, NAN});
  EXPECT_EQ(y[0], -INFINITY);
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_EQ(y[2], 0.0f);
  EXPECT_EQ(y[3], INFINITY);
  EXPECT_TRUE(std::isnan(y[4]));
}

TEST_P(Codegen, roundeven_ties_go_to_even) {
  std::vector<float> x = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0.49999997f, 8388609.0f, 4194304.5f, 4194305.5f, 3e9f};
  std::vector<float> y = runUnary(GetParam(), "math.roundeven", x);
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_EQ(y[i], std::nearbyint(x[i])) << x[i];
}

TEST_P(Codegen, tanh_and_exp_need_no_library) {
  std::vector<float> y = runUnary(GetParam(), "math.tanh", {0.25f, -3.0f}),
                     z = runUnary(GetParam(), "math.exp", {1.5f});
  EXPECT_NEAR(y[0], std::tanh(0.25), 1e-6);
  EXPECT_NEAR(y[1], std::tanh(-3.0), 1e-6);
  EXPECT_NEAR(z[0], std::exp(1.5), 1e-5);
}

// f32 -> half -> f32 through one kernel, so that both directions are seen.
std::string throughHalf(const std::string &half) {
  return "func.func @f(%x: !kvq_tile.ptr<f32>, %h: !kvq_tile.ptr<" + half +
         ">, %y: !kvq_tile.ptr<f32>) "
         "attributes {kvq_tile.kernel} {\n  %i = kvq_tile.program_id 0\n  %c16 = arith.constant 16 : index\n"
         "  %at = arith.muli %i, %c16 : index\n"
         "  %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, index -> tensor<16xf32>\n"
         "  %t = arith.truncf %v : tensor<16xf32> to tensor<16x" +
         half +
         ">\n"
         "  kvq_tile.store %t, %h[%at] : tensor<16x" +
         half + ">, !kvq_tile.ptr<" + half +
         ">, index\n"
         "  %u = kvq_tile.load %h[%at] : !kvq_tile.ptr<" +
         half + ">, index -> tensor<16x" + half +
         ">\n"
         "  %e = arith.extf %u : tensor<16x" +
         half +
         "> to tensor<16xf32>\n"
         "  kvq_tile.store %e, %y[%at] : tensor<16xf32>, !kvq_tile.ptr<f32>, index\n  return\n}\n";
}

// Bit patterns that meet every exponent, with low bits that make ties and near ties.
std::vector<float> patterns() {
  std::vector<float> result;
  for (uint32_t sign : {0u, 0x80000000u})
    for (uint32_t high = 0; high < 0x8000; high += 3)
      for (uint32_t low : {0u, 1u, 0x1000u, 0x0fffu, 0x1001u, 0x3000u, 0x8000u, 0x7fffu, 0x8001u}) {
        uint32_t bits = sign | (high << 16) | low;
        float value;
        std::memcpy(&value, &bits, 4);
        if (!std::isnan(value))
          result.push_back(value);
      }
  result.resize(result.size() / 16 * 16);
  return result;
}

TEST_P(Codegen, halves_round_to_nearest_even_on_every_level) {
  std::vector<float> x = patterns();
  for (bool bfloat : {false, true}) {
    std::vector<uint16_t> h(x.size());
    std::vector<float> y(x.size());
    run(throughHalf(bfloat ? "bf16" : "f16"), GetParam(), {word(x.data()), word(h.data()), word(y.data())},
        static_cast<int64_t>(x.size() / 16));
    for (size_t i = 0; i < x.size(); ++i) {
      uint16_t expected = bfloat ? roundToBF16(x[i]) : roundToF16(x[i]);
      ASSERT_EQ(h[i], expected) << x[i] << (bfloat ? " bf16" : " f16");
      ASSERT_EQ(y[i], bfloat ? fromBF16(expected) : fromF16(expected)) << x[i];
    }
  }
}

TEST_P(Codegen, masked_rows_are_neither_read_nor_written) {
  const std::string text = R"(
func.func @f(%x: !kvq_tile.ptr<f32>, %o: !kvq_tile.ptr<i64>, %y: !kvq_tile.ptr<f32>, %n: i64)
    attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %n_i = arith.index_cast %n : i64 to index
  %i = kvq_tile.iota : tensor<5xindex>
  %ns = tensor.splat %n_i : tensor<5xindex>
  %m = arith.cmpi ult, %i, %ns : tensor<5xindex>
  %o_c = kvq_tile.load %o[%c0] : !kvq_tile.ptr<i64>, index -> tensor<5xi64>
  %off = arith.index_cast %o_c : tensor<5xi64> to tensor<5xindex>
  %v = kvq_tile.load %x[%off] mask %m : !kvq_tile.ptr<f32>, tensor<5xindex>, tensor<5xi1> -> tensor<5x24xf32>
  %c24 = arith.constant dense<24> : tensor<5xindex>
  %to = arith.muli %i, %c24 : tensor<5xindex>
  %w = arith.addf %v, %v : tensor<5x24xf32>
  kvq_tile.store %w, %y[%to] mask %m : tensor<5x24xf32>, !kvq_tile.ptr<f32>, tensor<5xindex>, tensor<5xi1>
  return
})";
  std::vector<float> x(200), y(5 * 24, -1.0f);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(i);
  std::vector<int64_t> offsets = {100, 7, 50, int64_t(1) << 60, int64_t(1) << 60}; // the last two would fault
  run(text, GetParam(), {word(x.data()), word(offsets.data()), word(y.data()), 3}, 1);
  for (int r = 0; r < 5; ++r)
    for (int c = 0; c < 24; ++c)
      EXPECT_EQ(y[r * 24 + c], r < 3 ? 2 * x[offsets[r] + c] : -1.0f);
}

TEST_P(Codegen, loops_carry_tiles_and_branches_yield_them) {
  const std::string text = R"(
func.func @f(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>, %n: i64) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %c32 = arith.constant 32 : index
  %rows = arith.index_cast %n : i64 to index
  %z = arith.constant dense<0.0> : tensor<32xf32>
  %one = arith.constant dense<1.0> : tensor<32xf32>
  %a, %b = scf.for %i = %c0 to %rows step %c1 iter_args(%p = %z, %q = %one) -> (tensor<32xf32>, tensor<32xf32>) {
    %at = arith.muli %i, %c32 : index
    %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, index -> tensor<32xf32>
    %odd = arith.remui %i, %c2 : index
    %is = arith.cmpi eq, %odd, %c1 : index
    %t = scf.if %is -> tensor<32xf32> {
      %d = arith.addf %p, %v : tensor<32xf32>
      scf.yield %d : tensor<32xf32>
    } else {
      %d = arith.subf %p, %v : tensor<32xf32>
      scf.yield %d : tensor<32xf32>
    }
    scf.yield %q, %t : tensor<32xf32>, tensor<32xf32>
  }
  %s = arith.addf %a, %b : tensor<32xf32>
  kvq_tile.store %s, %y[%c0] : tensor<32xf32>, !kvq_tile.ptr<f32>, index
  return
})";
  std::vector<float> x(5 * 32), y(32);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>((i * 37) % 101);
  run(text, GetParam(), {word(x.data()), word(y.data()), 5}, 1);
  for (int c = 0; c < 32; ++c) { // the two carried tiles change places in every round
    float p = 0, q = 1;
    for (int r = 0; r < 5; ++r) {
      float t = r % 2 ? p + x[r * 32 + c] : p - x[r * 32 + c];
      p = q;
      q = t;
    }
    EXPECT_EQ(y[c], p + q);
  }
}

TEST_P(Codegen, reductions_along_both_dimensions) {
  const std::string text = R"(
func.func @f(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>, %z: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %i = kvq_tile.iota : tensor<6xindex>
  %c48 = arith.constant dense<48> : tensor<6xindex>
  %off = arith.muli %i, %c48 : tensor<6xindex>
  %v = kvq_tile.load %x[%off] : !kvq_tile.ptr<f32>, tensor<6xindex> -> tensor<6x48xf32>
  %rows = kvq_tile.reduce add %v dim 1 : tensor<6x48xf32> -> tensor<6xf32>
  %cols = kvq_tile.reduce min %v dim 0 : tensor<6x48xf32> -> tensor<48xf32>
  %top = kvq_tile.reduce max %rows dim 0 : tensor<6xf32> -> f32
  %tops = tensor.splat %top : tensor<6xf32>
  %r = arith.subf %rows, %tops : tensor<6xf32>
  kvq_tile.store %r, %y[%c0] : tensor<6xf32>, !kvq_tile.ptr<f32>, index
  kvq_tile.store %cols, %z[%c0] : tensor<48xf32>, !kvq_tile.ptr<f32>, index
  return
})";
  std::vector<float> x(6 * 48), y(6), z(48);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>((i * 61) % 97) - 40;
  run(text, GetParam(), {word(x.data()), word(y.data()), word(z.data())}, 1);
  std::vector<float> sums(6, 0.0f);
  for (int r = 0; r < 6; ++r)
    for (int c = 0; c < 48; ++c)
      sums[r] += x[r * 48 + c]; // small integers: exact in any order
  for (int r = 0; r < 6; ++r)
    EXPECT_EQ(y[r], sums[r] - *std::max_element(sums.begin(), sums.end()));
  for (int c = 0; c < 48; ++c) {
    float least = x[c];
    for (int r = 1; r < 6; ++r)
      least = std::min(least, x[r * 48 + c]);
    EXPECT_EQ(z[c], least);
  }
}

TEST_P(Codegen, broadcast_repeats_elements) {
  const std::string text = R"(
func.func @f(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<12xf32>
  %a = kvq_tile.broadcast %v dims [0] : tensor<12xf32> -> tensor<24xf32>
  %w = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<3xf32>
  %b = kvq_tile.broadcast %w dims [1] : tensor<3xf32> -> tensor<2x48xf32>
  %s = kvq_tile.reduce add %b dim 0 : tensor<2x48xf32> -> tensor<48xf32>
  kvq_tile.store %a, %y[%c0] : tensor<24xf32>, !kvq_tile.ptr<f32>, index
  %c24 = arith.constant 24 : index
  kvq_tile.store %s, %y[%c24] : tensor<48xf32>, !kvq_tile.ptr<f32>, index
  return
})";
  std::vector<float> x(12), y(72);
  for (int i = 0; i < 12; ++i)
    x[i] = static_cast<float>(i * i + 1);
  run(text, GetParam(), {word(x.data()), word(y.data())}, 1);
  for (int i = 0; i < 24; ++i)
    EXPECT_EQ(y[i], x[i / 2]);
  for (int i = 0; i < 48; ++i)
    EXPECT_EQ(y[24 + i], 2 * x[i / 16]);
}

TEST_P(Codegen, constant_tiles_may_vary) {
  const std::string text = R"(
func.func @f(%y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = arith.constant dense<[1.0, -2.0, 4.0, 8.0]> : tensor<4xf32>
  %w = arith.addf %v, %v : tensor<4xf32>
  kvq_tile.store %w, %y[%c0] : tensor<4xf32>, !kvq_tile.ptr<f32>, index
  return
})";
  std::vector<float> y(4);
  run(text, GetParam(), {word(y.data())}, 1);
  EXPECT_EQ(y, (std::vector<float>{2, -4, 8, 16}));
}

} // namespace
