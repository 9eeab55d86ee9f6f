// SPDX-License-Identifier: Apache-2.0
//
// What is read of PTX without a compiler of it: target, kernels, parameters.
#include "runtime/format/ptx_text.h"

#include <gtest/gtest.h>

namespace kvq {
namespace {

TEST(PtxText, Targets) {
  const PtxTarget target =
      ptxTarget("// by hand\n/* two */ .version 8.6 // x\n\t.target sm_90a, debug\n.address_size 64");
  EXPECT_EQ(target.name, "sm_90a");
  EXPECT_EQ(target.version, 86);
  for (const char *text : {"", ".version", "garbage", "// .version 7.0", "/* .version", ".target sm_80\n.version 7.0"})
    EXPECT_EQ(ptxTarget(text).name, "") << text;
  EXPECT_TRUE(runsPtx(9, 0, "sm_80") && runsPtx(9, 0, "sm_90") && runsPtx(9, 0, "sm_90a") && runsPtx(12, 0, "sm_90"));
  EXPECT_TRUE(runsPtx(12, 0, "sm_120f"));
  EXPECT_FALSE(runsPtx(9, 0, "sm_100") || runsPtx(12, 0, "sm_90a"));
  EXPECT_FALSE(runsPtx(9, 0, "compute_80") || runsPtx(9, 0, "sm_90x") || runsPtx(12, 0, "sm_100f"));
}

TEST(PtxText, Entries) {
  const std::vector<PtxEntry> entries = ptxEntries(R"(
.version 7.8 .target sm_80 .address_size 64
.extern .entry declared(.param .u64 a);
.file 1 "a/.entry fake() { }"
.func (.param .b32 result) helper(.param .b64 a) { ret; }
.visible .entry none() { .entry_like: ret; }
// .entry comment() { }
.visible .entry $many(
  .param .u8 a, .param .u64 .ptr .global .align 16 b /* , .param .u64 c */, .param .f16x2 d,
  .param .align 16 .b8 e[20], .param .bf16 f)
.maxnreg 64
.reqntid 0x80, 2
{ { mov.u32 %r1, 0; } ret; }
.entry bare .reqntid 32 { ret; }
)");
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name, "none");
  EXPECT_EQ(entries[0].parameterBytes, 0);
  EXPECT_EQ(entries[0].block[0], 0u);
  const PtxEntry &many = entries[1];
  EXPECT_EQ(many.name, "$many");
  const int64_t expected[][2] = {{0, 1}, {8, 8}, {16, 4}, {32, 20}, {52, 2}};
  ASSERT_EQ(many.parameters.size(), std::size(expected));
  for (size_t i = 0; i < std::size(expected); ++i) {
    EXPECT_EQ(many.parameters[i].offset, expected[i][0]) << i;
    EXPECT_EQ(many.parameters[i].size, expected[i][1]) << i;
  }
  EXPECT_EQ(many.parameterBytes, 54);
  EXPECT_EQ(many.block[0], 128u);
  EXPECT_EQ(many.block[1], 2u);
  EXPECT_EQ(many.block[2], 1u);
  EXPECT_EQ(entries[2].name, "bare");
  EXPECT_EQ(entries[2].block[0], 32u);
}

TEST(PtxText, WhatCannotBeReadIsLeftOut) {
  for (const char *text : {".entry", ".entry a", ".entry a(", ".entry a(.param", ".entry a(.param .u64 b", "\"", "/*",
                           ".entry a(.param .u64 b[) {}", ".entry a(.reg .u64 b) {}", ".entry a(.param .pred b) {}",
                           ".entry a(.param .u64 b[0]) {}", ".entry a() .reqntid", "{ .entry a() {} }",
                           ".entry a(.param .align 99999999999 .b8 b[1]) ", ".entry a();"})
    EXPECT_TRUE(ptxEntries(text).empty()) << text;
}

} // namespace
} // namespace kvq
