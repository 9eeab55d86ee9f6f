// SPDX-License-Identifier: Apache-2.0
//
// What the walk over a tile program keeps where: carried tiles, branches, masks, halves, and products whose extents do
// not fit native vectors. The expected values are computed here; tests/fuzz does the same for random programs.

#include "tests/unit/codegen/run_kernel.h"

#include <algorithm>
#include <numeric>

using namespace kvq_test;

namespace {

class Walk : public testing::TestWithParam<const mlir::kvq::cpu::CpuLevel *> {};
INSTANTIATE_TEST_SUITE_P(Levels, Walk, testing::ValuesIn(hostLevels()), levelName);

// A kernel that reads x and writes y, both f32; %n is the number of the program.
std::string kernel(const std::string &body, const std::string &attributes = "kvq_tile.kernel") {
  return "func.func @f(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {" + attributes +
         "} {\n"
         "  %c0 = arith.constant 0 : index\n  %c1 = arith.constant 1 : index\n  %c3 = arith.constant 3 : index\n"
         "  %c8 = arith.constant 8 : index\n  %n = kvq_tile.program_id 0\n" +
         body + "  return\n}\n";
}

// Offsets of `rows` rows of `stride` elements from `first` on, as %name.
std::string offsets(const std::string &name, int rows, int stride, int first = 0) {
  std::string type = " : tensor<" + std::to_string(rows) + "xindex>\n";
  return "  %" + name + "i = kvq_tile.iota" + type + "  %" + name + "s = arith.constant dense<" +
         std::to_string(stride) + ">" + type + "  %" + name + "f = arith.constant dense<" + std::to_string(first) +
         ">" + type + "  %" + name + "m = arith.muli %" + name + "i, %" + name + "s" + type + "  %" + name +
         " = arith.addi %" + name + "m, %" + name + "f" + type;
}

std::vector<float> counting(size_t count, float first = 1.0f) {
  std::vector<float> x(count);
  std::iota(x.begin(), x.end(), first);
  return x;
}

TEST_P(Walk, carried_tiles_may_change_places) {
  std::vector<float> x = counting(16), y(16);
  run(kernel(R"(
  %a = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<8xf32>
  %b = kvq_tile.load %x[%c8] : !kvq_tile.ptr<f32>, index -> tensor<8xf32>
  %end = arith.addi %n, %c3 : index
  %r:2 = scf.for %i = %c0 to %end step %c1 iter_args(%s = %a, %t = %b) -> (tensor<8xf32>, tensor<8xf32>) {
    scf.yield %t, %s : tensor<8xf32>, tensor<8xf32>
  }
  kvq_tile.store %r#0, %y[%c0] : tensor<8xf32>, !kvq_tile.ptr<f32>, index
  kvq_tile.store %r#1, %y[%c8] : tensor<8xf32>, !kvq_tile.ptr<f32>, index
)"),
      GetParam(), {word(x.data()), word(y.data())}, 1);
  std::rotate(x.begin(), x.begin() + 8, x.end());
  EXPECT_EQ(y, x);
}

TEST_P(Walk, an_accumulator_that_is_also_the_scale_is_not_updated_in_place) {
  std::vector<float> x = counting(64), y(64), expected(x);
  run(kernel(offsets("at", 4, 16) + R"(
  %a = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, tensor<4xindex> -> tensor<4x16xf32>
  %one = arith.constant dense<1.0> : tensor<4x4xf32>
  %half = arith.constant dense<0.5> : tensor<4x16xf32>
  %end = arith.addi %n, %c1 : index
  %r = scf.for %i = %c0 to %end step %c1 iter_args(%s = %a) -> (tensor<4x16xf32>) {
    %d = kvq_tile.dot %half, %one acc %s scale %s contract 0
        : tensor<4x16xf32>, tensor<4x4xf32>, tensor<4x16xf32> -> tensor<4x16xf32>
    scf.yield %d : tensor<4x16xf32>
  }
  kvq_tile.store %r, %y[%at] : tensor<4x16xf32>, !kvq_tile.ptr<f32>, tensor<4xindex>
)",
             "kvq_tile.kernel, kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 16, rows = 1, vectors = 1, "
             "prefetch = 0>"),
      GetParam(), {word(x.data()), word(y.data())}, 1);
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 16; ++c)
      for (int g = 0; g < 4; ++g)
        expected[r * 16 + c] += 0.5f * x[g * 16 + c];
  EXPECT_EQ(y, expected);
}

// %wide is kept as a buffer where the product needs it: in a branch that this program does not take.
TEST_P(Walk, a_tile_kept_in_a_branch_is_not_taken_for_kept_after_it) {
  std::vector<float> x = counting(64), y(512);
  run(kernel(offsets("at", 8, 64) + R"(
  %row = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<64xf32>
  %wide = kvq_tile.broadcast %row dims [1] : tensor<64xf32> -> tensor<8x64xf32>
  %zero = arith.constant dense<0.0> : tensor<8x8xf32>
  %taken = arith.cmpi eq, %n, %c1 : index
  scf.if %taken {
    %d = kvq_tile.dot %wide, %wide acc %zero contract 1 : tensor<8x64xf32>, tensor<8x64xf32> -> tensor<8x8xf32>
    kvq_tile.store %d, %y[%at] : tensor<8x8xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  }
  kvq_tile.store %wide, %y[%at] : tensor<8x64xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
)"),
      GetParam(), {word(x.data()), word(y.data())}, 1);
  for (size_t i = 0; i < y.size(); ++i)
    ASSERT_EQ(y[i], x[i % 64]) << i;
}

TEST_P(Walk, a_constant_mask_has_one_bit_per_element) {
  std::vector<float> x = counting(8), y(8);
  run(kernel(R"(
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<8xf32>
  %mask = arith.constant dense<[true, false, true, true, false, false, true, false]> : tensor<8xi1>
  %zero = arith.constant dense<0.0> : tensor<8xf32>
  %r = arith.select %mask, %v, %zero : tensor<8xi1>, tensor<8xf32>
  kvq_tile.store %r, %y[%c0] : tensor<8xf32>, !kvq_tile.ptr<f32>, index
)"),
      GetParam(), {word(x.data()), word(y.data())}, 1);
  EXPECT_EQ(y, (std::vector<float>{1, 0, 3, 4, 0, 0, 7, 0}));
}

// 4 sets of coefficients for 16 results: narrower than a vector of every level but the least.
TEST_P(Walk, dot_c3_sets_narrower_than_a_vector) {
  std::vector<float> x = counting(80), y(32);
  run(kernel(offsets("at", 4, 16) + offsets("set", 4, 4, 64) + offsets("to", 2, 16) + R"(
  %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, tensor<4xindex> -> tensor<4x16xf32>
  %s = kvq_tile.load %x[%set] : !kvq_tile.ptr<f32>, tensor<4xindex> -> tensor<4x4xf32>
  %one = arith.constant dense<1.0> : tensor<2x4xf32>
  %zero = arith.constant dense<0.0> : tensor<2x16xf32>
  %c = kvq_tile.coeff %one, %s : tensor<2x4xf32>, tensor<4x4xf32> -> tensor<4x2x4xf32>
  %d = kvq_tile.dot %v, %c acc %zero contract 0 : tensor<4x16xf32>, tensor<4x2x4xf32> -> tensor<2x16xf32>
  kvq_tile.store %d, %y[%to] : tensor<2x16xf32>, !kvq_tile.ptr<f32>, tensor<2xindex>
)"),
      GetParam(), {word(x.data()), word(y.data())}, 1);
  for (int n = 0; n < 16; ++n) {
    float sum = 0;
    for (int c = 0; c < 4; ++c)
      sum += x[c * 16 + n] * x[64 + n / 4 * 4 + c];
    EXPECT_EQ(y[n], sum) << n;
    EXPECT_EQ(y[16 + n], sum) << n;
  }
}

TEST_P(Walk, dot_of_an_odd_number_of_results) {
  std::vector<float> x = counting(15), y(5);
  run(kernel(offsets("at", 3, 5) + offsets("to", 1, 5) + R"(
  %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, tensor<3xindex> -> tensor<3x5xf32>
  %one = arith.constant dense<1.0> : tensor<1x3xf32>
  %zero = arith.constant dense<0.0> : tensor<1x5xf32>
  %d = kvq_tile.dot %v, %one acc %zero contract 0 : tensor<3x5xf32>, tensor<1x3xf32> -> tensor<1x5xf32>
  kvq_tile.store %d, %y[%to] : tensor<1x5xf32>, !kvq_tile.ptr<f32>, tensor<1xindex>
)"),
      GetParam(), {word(x.data()), word(y.data())}, 1);
  EXPECT_EQ(y, (std::vector<float>{18, 21, 24, 27, 30}));
}

// Groups of 4 channels per token. Codes lie in rows: address 32 t + c.
TEST_P(Walk, dequantize_c2_groups_shorter_than_a_vector) {
  std::vector<float> x = counting(48), y(64);
  auto *page = reinterpret_cast<uint8_t *>(x.data() + 32); // codes behind scales and minima
  for (int i = 0; i < 64; ++i)
    page[i] = static_cast<uint8_t>(3 * i);
  const char *type = "tensor<2x32xi8, #kvq_tile.layout<\"[ch.0 ch.1] ch:8 tok:2\">>";
  run(kernel(offsets("at", 8, 2) + offsets("of", 8, 2, 16) + offsets("to", 2, 32) + R"(
  %c128 = arith.constant 128 : index
  %p = kvq_tile.advance %x, %c128 : !kvq_tile.ptr<f32> -> !kvq_tile.ptr<i8>
  %s = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, tensor<8xindex> -> tensor<8x2xf32>
  %m = kvq_tile.load %x[%of] : !kvq_tile.ptr<f32>, tensor<8xindex> -> tensor<8x2xf32>
  %codes = kvq_tile.codes %p[%c0, %c0] : !kvq_tile.ptr<i8> -> )" +
             type + "\n  %v = kvq_tile.dequantize %codes, %s, %m axis \"token\" : " + type +
             ", tensor<8x2xf32> -> tensor<2x32xf32>\n"
             "  kvq_tile.store %v, %y[%to] : tensor<2x32xf32>, !kvq_tile.ptr<f32>, tensor<2xindex>\n"),
      GetParam(), {word(x.data()), word(y.data())}, 1);
  for (int t = 0; t < 2; ++t)
    for (int c = 0; c < 32; ++c)
      ASSERT_EQ(y[t * 32 + c], page[t * 32 + c] * x[c / 4 * 2 + t] + x[16 + c / 4 * 2 + t]) << t << " " << c;
}

TEST_P(Walk, halves_are_chosen_and_carried_as_bits) {
  std::vector<uint16_t> x = {0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100}, y(9);
  run(R"(
func.func @f(%x: !kvq_tile.ptr<bf16>, %y: !kvq_tile.ptr<bf16>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c8 = arith.constant 8 : index
  %n = kvq_tile.program_id 0
  %two = arith.constant dense<2.0> : tensor<8xbf16>
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<bf16>, index -> tensor<8xbf16>
  %i = kvq_tile.iota : tensor<8xindex>
  %s = tensor.splat %n : tensor<8xindex>
  %first = arith.cmpi eq, %i, %s : tensor<8xindex>
  %r = arith.select %first, %v, %two : tensor<8xi1>, tensor<8xbf16>
  kvq_tile.store %r, %y[%c0] : tensor<8xbf16>, !kvq_tile.ptr<bf16>, index
  %zero = arith.cmpi eq, %n, %c0 : index
  %h = scf.if %zero -> (bf16) {
    %last = arith.constant 7 : index
    %a = kvq_tile.load %x[%last] : !kvq_tile.ptr<bf16>, index -> bf16
    scf.yield %a : bf16
  } else {
    %one = arith.constant 1.0 : bf16
    scf.yield %one : bf16
  }
  kvq_tile.store %h, %y[%c8] : bf16, !kvq_tile.ptr<bf16>, index
  return
})",
      GetParam(), {word(x.data()), word(y.data())}, 1);
  EXPECT_EQ(y, (std::vector<uint16_t>{0x3f80, 0x4000, 0x4000, 0x4000, 0x4000, 0x4000, 0x4000, 0x4000, 0x4100}));
}

} // namespace
