// SPDX-License-Identifier: Apache-2.0
//
// Calls replaced by bodies: the text that comes out, and what is refused. tests/jit runs such text.
#include "runtime/jit/ptx_inline.h"

#include "runtime/jit/score_hook.h"

#include <gtest/gtest.h>

using namespace kvq;

namespace {

constexpr const char *kHead = ".version 7.0\n.target sm_80\n.address_size 64\n"; // three lines

Result<PtxText> inlined(const std::string &items) {
  const std::string text = kHead + items;
  auto module = PtxModule::parse(text);
  EXPECT_TRUE(module.isOk()) << module.status().message();
  if (!module.isOk())
    return module.status();
  return inlineCalls(module.value());
}
std::string textOf(const std::string &items) {
  auto text = inlined(items);
  EXPECT_TRUE(text.isOk()) << text.status().message();
  return text.isOk() ? text.value().text : "";
}
std::string refusal(const std::string &items) {
  auto text = inlined(items);
  EXPECT_EQ(text.status().code(), Code::InvalidArgument);
  return text.status().message();
}

constexpr const char *kDouble = R"(.func (.param .b32 out) twice(.param .b32 in)
{
  .reg .f32 %f<3>;
  .reg .pred %p;
  ld.param.f32 %f1, [in];
  setp.eq.f32 %p, %f1, 0f00000000;
  @%p bra $L1;
  add.f32 %f2, %f1, %f1;
  st.param.f32 [out+0], %f2;
  @!%p ret;
$L1:
  st.param.f32 [out], 0f3F800000;
  ret;
}
)";

TEST(PtxInline, ABodyStandsAtTheCallWithNamesOfItsOwn) {
  EXPECT_EQ(textOf(std::string(kDouble) + R"(.entry k()
{
  .reg .f32 %f<3>;
  { // callseq
  .param .b32 param0;
  st.param.f32 [param0+0], %f1;
  .param .b32 retval0;
  call.uni (retval0), twice, (param0);
  ld.param.f32 %f2, [retval0+0];
  }
}
)"),
            R"(.version 7.0
.target sm_80
.address_size 64
.entry k()
{
.reg .f32 %f<3>;
{
.reg .b32 %kvq_in0;
mov.b32 %kvq_in0, %f1;
.reg .b32 %kvq_in1;
{
.reg .b32 %kvq_in2p0;
.reg .b32 %kvq_in2q0;
mov.b32 %kvq_in2p0, %kvq_in0;
{
.reg .f32 %kvq_in2_f<3>;
.reg .pred %kvq_in2_p;
mov.b32 %kvq_in2_f1, %kvq_in2p0;
setp.eq.f32 %kvq_in2_p, %kvq_in2_f1, 0f00000000;
@%kvq_in2_p bra kvq_in2_$L1;
add.f32 %kvq_in2_f2, %kvq_in2_f1, %kvq_in2_f1;
mov.b32 %kvq_in2q0, %kvq_in2_f2;
@!%kvq_in2_p bra kvq_in2return;
kvq_in2_$L1:
mov.b32 %kvq_in2q0, 0f3F800000;
}
kvq_in2return:
mov.b32 %kvq_in1, %kvq_in2q0;
}
mov.b32 %f2, %kvq_in1;
}
}
)");
}

TEST(PtxInline, NamesOfTheModuleAreKeptClearOf) {
  const std::string text = textOf(".func f() { .reg .b32 %r; mov.u32 %r, 1; ret; }\n"
                                  ".entry k() { .reg .b32 %kvq_in0_r; call f; }");
  EXPECT_NE(text.find("%kvq_in_0_r, 1;"), std::string::npos) << text;
}

TEST(PtxInline, StructuresAndPiecesGoThroughLocalMemory) {
  const std::string text = textOf(R"(.func (.param .align 4 .b8 out[8]) f(.param .b32 in)
{
  .reg .b16 %h;
  .reg .b32 %r;
  ld.param.u16 %h, [in+2];
  ld.param.u32 %r, [in];
  st.param.v2.b32 [out], {%r, %r};
}
.entry k()
{
  .param .b32 p;
  st.param.b32 [p], 7;
  .param .align 4 .b8 q[8];
  call (q), f, (p);
  ld.param.b32 %r1, [q+4];
})");
  for (const char *line : {".local .align 4 .b8 %kvq_in2p0[4];", "st.local.b32 [%kvq_in2p0], %kvq_in0;",
                           "ld.local.u16 %kvq_in2_h, [%kvq_in2p0+2];", ".local .align 4 .b8 %kvq_in1[8];",
                           "st.local.v2.b32 [%kvq_in1], {%kvq_in2_r, %kvq_in2_r};", "ld.local.b32 %r1, [%kvq_in1+4];"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
}

// ld extends into a wider register, and st takes the low part of one: nvcc writes both.
TEST(PtxInline, WiderRegistersAreConverted) {
  const std::string text = textOf(R"(.func (.param .b32 out) f(.param .b32 in)
{
  .reg .b64 %rd<4>, %wide;
  ld.param.s32 %rd1, [in];
  ld.param.b32 %wide, [in];
  st.param.b32 [out], %rd3;
}
.entry k() { .param .b32 p; .param .b32 q; call (q), f, (p); })");
  for (const char *line : {"cvt.s64.s32 %kvq_in2_rd1, %kvq_in2p0;", "cvt.u64.u32 %kvq_in2_wide, %kvq_in2p0;",
                           "cvt.u32.u64 %kvq_in2q0, %kvq_in2_rd3;"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
}

TEST(PtxInline, RegistersArePassedAndCallsMayBePredicated) {
  const std::string text = textOf(R"(.func (.reg .f32 out) f(.reg .f32 in, .reg .u32 n) { add.f32 out, in, in; ret; }
.entry k()
{
  @!%p1 call (%f2), f, (%f1, 5);
  @%p1 bra.uni $L2;
$L2:
})");
  for (const char *line : {"@%p1 bra kvq_in0skip;", "mov.f32 %kvq_in0p0, %f1;", "mov.u32 %kvq_in0p1, 5;",
                           "add.f32 %kvq_in0q0, %kvq_in0p0, %kvq_in0p0;", "mov.f32 %f2, %kvq_in0q0;", "kvq_in0skip:"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
}

TEST(PtxInline, CallsInFunctionsAreInlinedToo) {
  const std::string text = textOf(R"(.func g() { bar.sync 1; ret; }
.func f() { call g; call g; ret; }
.entry k() { call f; }
.entry l() { call g; })");
  size_t barriers = 0;
  for (size_t at = text.find("bar.sync 1"); at != std::string::npos; at = text.find("bar.sync 1", at + 1))
    ++barriers;
  EXPECT_EQ(barriers, 3u) << text;
  EXPECT_EQ(text.find("call"), std::string::npos);
  EXPECT_EQ(text.find(".func"), std::string::npos);
}

TEST(PtxInline, WhatCannotBeInlinedNamesItsLine) {
  EXPECT_NE(refusal(".func f() { call f; }\n.entry k() { call f; }").find("'f' calls itself"), std::string::npos);
  EXPECT_EQ(refusal(".entry k() {\n call printf;\n}"),
            "line 5 of the PTX ('call printf;'): the function 'printf' is called but nothing defines it");
  EXPECT_NE(refusal(".entry k() { call (q), %rd1, (p), proto; }").find("through a pointer"), std::string::npos);
  EXPECT_NE(refusal(".func f(.param .b32 p) { ret; }\n.entry k() { call f; }").find("takes 1 parameters and gives 0"),
            std::string::npos);
  EXPECT_NE(
      refusal(".func f(.param .b32 p) { ret; }\n.entry k() { .param .b64 q; call f, (q); }").find("has 8 bytes but"),
      std::string::npos);
  EXPECT_NE(refusal(".func f(.param .b32 p) { ret; }\n.entry k() { call f, (%r1); }").find("is no .param variable"),
            std::string::npos);
  EXPECT_NE(refusal(".func f(.param .b32 p) { mov.u64 %rd1, p; }\n.entry k() { .param .b32 q; call f, (q); }")
                .find("address of a parameter"),
            std::string::npos);
  EXPECT_NE(refusal(".func f() { .shared .b32 s; ret; }\n.entry k() { call f; }").find("a variable in .shared"),
            std::string::npos);
  EXPECT_NE(refusal(".entry k() { call f }").find("has no ';'"), std::string::npos);
  EXPECT_NE(refusal(".entry k() { @%p1; }").find("a predicate without an instruction"), std::string::npos);
}

// Cut and changed bodies end in a text or in a Status; sanitizers watch what they read.
TEST(PtxInline, NoChangeBringsItDown) {
  const std::string items = std::string(kDouble) + ".entry k() { .param .b32 p; st.param.b32 [p], 1; .param .b32 q;\n"
                                                   "@%p call.uni (q), twice, (p); ld.param.b32 %r1, [q]; }";
  const std::string text = kHead + items;
  int refused = 0;
  for (size_t at = 0; at < text.size(); ++at)
    for (char c : {'{', '}', ';', ' ', '(', ')', '@', '[', ','}) {
      std::string changed = text;
      changed[at] = c;
      auto module = PtxModule::parse(changed);
      refused += !module.isOk() || !inlineCalls(module.value()).isOk();
    }
  EXPECT_GT(refused, 300);
}

TEST(ScoreHook, NamesOfTheHookAreMadeFresh) {
  const std::string caller = std::string(kHead) + R"(.extern .func (.param .b32 r) kvq_score_mod(.param .b32 a);
.global .b32 table;
.entry k() { .param .b32 p; st.param.b32 [p], 1; .param .b32 q; call (q), kvq_score_mod, (p); mov.u64 %rd1, table; })";
  const std::string hook = R"(.version 8.1
.target sm_80
.visible .global .b32 table;
.func helper() { ret; }
.func (.param .b32 r) kvq_score_mod(.param .b32 a)
{ ld.global.f32 %f1, [table]; st.param.f32 [r], %f1; call helper; ret; })";
  auto joined = linkScoreHook(caller, hook);
  ASSERT_TRUE(joined.isOk()) << joined.status().message();
  const std::string &text = joined.value();
  for (const char *part : {".version 8.1", ".global .b32 table;", "\n.global .b32 kvq_hook_table;", "[kvq_hook_table]",
                           "mov.u64 %rd1, table;"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  EXPECT_EQ(text.find("kvq_score_mod"), std::string::npos);
}

TEST(ScoreHook, WhatDoesNotFitIsRefused) {
  const std::string hook = std::string(kHead) + ".func (.param .b32 r) kvq_score_mod(.param .b32 a) { ret; }";
  const auto message = [](const std::string &ptx, const std::string &with) {
    auto joined = linkScoreHook(ptx, with);
    EXPECT_EQ(joined.status().code(), Code::InvalidArgument);
    return joined.status().message();
  };
  const std::string plain = std::string(kHead) + ".entry k() { ret; }";
  const std::string calling = std::string(kHead) + ".entry k() { call kvq_score_mod; }";
  EXPECT_NE(message(plain, hook).find("no kernel of the PTX calls kvq_score_mod"), std::string::npos);
  EXPECT_NE(message(calling, plain).find("define extern \"C\" __device__ float kvq_score_mod(float score, int batch"),
            std::string::npos);
  EXPECT_NE(message(calling, hook + ".extern .func vprintf();").find("calls 'vprintf'"), std::string::npos);
  EXPECT_NE(message(calling, hook).find("takes 1 parameters"), std::string::npos);
  EXPECT_NE(message(hook, hook).find("defines kvq_score_mod itself"), std::string::npos);
}

} // namespace
