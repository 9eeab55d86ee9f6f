// SPDX-License-Identifier: Apache-2.0
//
// PTX as CUDA C++: what the source is, and which line of the PTX each line of it came from.
#include "runtime/jit/ptx_wrapper.h"

#include <gtest/gtest.h>

using namespace kvq;

namespace {

constexpr const char *kHead = ".version 7.0\n.target sm_80\n.address_size 64\n"; // three lines

WrappedKernel wrapped(const std::string &items, std::string_view entry = "k") {
  auto kernel = wrapPtx(kHead + items, entry);
  EXPECT_TRUE(kernel.isOk()) << kernel.status().message();
  return kernel.isOk() ? kernel.value() : WrappedKernel();
}
std::string refusal(const std::string &items) {
  auto kernel = wrapPtx(kHead + items, "k");
  EXPECT_EQ(kernel.status().code(), Code::InvalidArgument);
  return kernel.status().message();
}

TEST(PtxWrapper, ABodyIsOneAsmStatement) {
  const WrappedKernel kernel = wrapped(R"(.visible .entry k(.param .u64 k_param_0, .param .f32 k_param_1)
.reqntid 64, 2, 1
.minnctapersm 3
{
	.reg .b64 	%rd<2>; // registers
	.loc	1 3 4

	@!%p1 bra $L__1; .pragma "nounroll";
	ret;
}
)");
  EXPECT_EQ(kernel.source,
            R"(extern "C" __global__ void __launch_bounds__(128, 3) k(unsigned long long p0, unsigned int p1) {
  asm volatile(
"{\n"
".reg .b64 %rd<2>;\n"
"@!%p1 bra $L__1; .pragma \"nounroll\";\n"
"ret;\n"
"}\n"
);
}
)");
  EXPECT_EQ(kernel.lines, (std::vector<int>{7, 8, 11, 12, 13}));
  EXPECT_EQ(kernel.target, "sm_80");
  EXPECT_EQ(kernel.version, "7.0");
}

TEST(PtxWrapper, VariablesGoWhereTheyCan) {
  const WrappedKernel kernel = wrapped(R"(.extern .shared .align 16 .b8 memory[];
.shared .align 4 .b8 tile[64];
.const .align 4 .b8 table[4] = {1, 2, 3, 4};
.global .u64 pointer = other;
.global .align 4 .b8 other[4];
.global .align 4 .b8 unused[4];
.visible .global .align 4 .f32 shown[2] = {0f3F800000, -1};
.entry k(.param .align 16 .b8 given[20]) {
  mov.u64 %rd1, memory; mov.u64 %rd2, tile; mov.u64 %rd3, table; mov.u64 %rd4, pointer; ld.param.b32 %r1, [given+16];
}
)");
  EXPECT_EQ(kernel.source, R"(struct __align__(16) KvqParameter0 { unsigned char bytes[20]; };
extern __shared__ __align__(16) unsigned char kvq_shared_0[];
extern "C" { __device__ __align__(4) unsigned int shown[2] = {0x3F800000,-1}; }
extern "C" __global__ void k(KvqParameter0 p0) {
  asm volatile(
"{\n"
".shared .align 4 .b8 tile[64];\n"
".const .align 4 .b8 table[4] = {1, 2, 3, 4};\n"
".global .u64 pointer = other;\n"
".global .align 4 .b8 other[4];\n"
"mov.u64 %%rd1, kvq_shared_0; mov.u64 %%rd2, tile; mov.u64 %%rd3, table; mov.u64 %%rd4, pointer; ld.param.b32 %%r1, [k_param_0+16];\n"
"}\n"
:: "l"(kvq_shared_0));
}
)");
}

TEST(PtxWrapper, ALimitOfRegistersTakesThePlaceOfLaunchBounds) {
  const auto limits = [](const std::string &bounds, uint32_t given) {
    auto kernel = wrapPtx(kHead + (".entry k() " + bounds + " { ret; }"), "k", given);
    EXPECT_TRUE(kernel.isOk());
    return std::pair(kernel.value().source.find("__launch_bounds__") != std::string::npos, kernel.value().maxRegisters);
  };
  EXPECT_EQ(limits(".maxntid 128", 0), std::pair(true, 0u));
  EXPECT_EQ(limits(".maxntid 128", 64), std::pair(false, 64u));
  EXPECT_EQ(limits(".maxntid 128 .maxnreg 40", 64), std::pair(false, 40u));
  EXPECT_EQ(limits(".maxntid 128 .maxnreg 40", 32), std::pair(false, 32u));
  EXPECT_EQ(limits(".minnctapersm 2", 0), std::pair(true, 0u));
}

TEST(PtxWrapper, CallsAreInlinedFirstAndKeepTheLineOfTheCall) {
  const WrappedKernel kernel = wrapped(R"(.func f() {
  bar.sync 0;
  ret;
}
.entry other() { ret; }
.entry k() {
  call f;
  ret;
})");
  EXPECT_EQ(kernel.source.find("call"), std::string::npos) << kernel.source;
  EXPECT_NE(kernel.source.find("\"bar.sync 0;\\n\""), std::string::npos) << kernel.source;
  for (int line : kernel.lines)
    EXPECT_TRUE(line >= 9 && line <= 12) << line;
  EXPECT_EQ(std::count(kernel.lines.begin(), kernel.lines.end(), 10), 5); // four braces and the barrier
}

TEST(PtxWrapper, WhatCannotBeWrappedNamesItsLine) {
  EXPECT_EQ(refusal(".entry other() { ret; }"), "the PTX has no kernel 'k': it has other");
  EXPECT_EQ(refusal(""), "the PTX has no kernel 'k': it has none at all");
  EXPECT_EQ(refusal(".extern .global .b32 x;\n.entry k() { mov.u64 %rd1, x; }"),
            "line 4 of the PTX ('.extern .global .b32 x;'): the module does not define 'x'");
  EXPECT_NE(refusal(".visible .global .u64 x = k;\n.entry k() { ret; }").find("'k' is neither"), std::string::npos);
  EXPECT_NE(refusal(".visible .global .b8 x[2][2] = {{1}};\n.entry k() { ret; }").find("line 4"), std::string::npos);
  EXPECT_NE(refusal(".entry k(.reg .b32 x) { ret; }").find("of the space .param only"), std::string::npos);
  EXPECT_NE(refusal(".entry k(.param .b8 x[40000]) { ret; }").find("must have 1 to 32764 bytes"), std::string::npos);
}

} // namespace
