// SPDX-License-Identifier: Apache-2.0
//
// What the reader makes of each construct of PTX.
#include "tests/unit/ptxsim/read.h"

#include <bit>

using namespace kvq::ptxsim;
using Kind = Operand::Kind;
using Literal = Operand::Literal;

namespace {

uint64_t immediate(const std::string &expression) {
  Instruction one = readOne("mov.b64 %rd0, " + expression + ";");
  EXPECT_EQ(one.operands[1].kind, Kind::Immediate) << expression;
  return one.operands[1].bits;
}

std::vector<uint8_t> valueBytes(const std::string &declaration) {
  Module module = read(kHead + declaration);
  return module.variables.empty() ? std::vector<uint8_t>() : module.variables.back().bytes;
}

template <typename T> std::vector<T> values(const std::string &declaration) {
  std::vector<uint8_t> bytes = valueBytes(declaration);
  std::vector<T> out(bytes.size() / sizeof(T));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t *>(out.data()));
  return out;
}

} // namespace

TEST(Reader, Head) {
  Module module = read("// c\n/* c\n */.version 9.0 .target sm_90a, debug\n.address_size 64\n");
  EXPECT_EQ(module.versionMajor, 9);
  EXPECT_EQ(module.versionMinor, 0);
  EXPECT_EQ(module.target, "sm_90a");
  EXPECT_EQ(module.addressSize, 64);
  EXPECT_EQ(read(".version 8.0\n.target sm_80, texmode_independent\n").target, "sm_80");
}

TEST(Reader, RegistersAndRanges) {
  Module module =
      read(kHead + ".entry k() { .reg .b32 %r<3>, a, $b; .reg .pred p; .reg .f16x2 %h<0>; .reg .f64 %r3; }");
  const auto &registers = module.functions[0].registers;
  ASSERT_EQ(registers.size(), 7u);
  const char *names[] = {"%r0", "%r1", "%r2", "a", "$b", "p", "%r3"};
  Type types[] = {Type::B32, Type::B32, Type::B32, Type::B32, Type::B32, Type::Pred, Type::F64};
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(registers[i].name, names[i]);
    EXPECT_EQ(registers[i].type, types[i]);
  }
}

TEST(Reader, RangesWhoseNamesLookAlike) {
  Module module = read(kHead + ".entry k() { .reg .b32 %r<12>; .reg .b64 %rd<12>; .reg .b32 %r0x<2>; .reg .b16 %r2<0>;"
                               " mov.b32 %r11, %r0x1; mov.b64 %rd11, %rd1; }");
  const Function &function = module.functions[0];
  EXPECT_EQ(function.registers[function.instructions[0].operands[0].index].name, "%r11");
  EXPECT_EQ(function.registers[function.instructions[0].operands[1].index].name, "%r0x1");
  EXPECT_EQ(function.registers[function.instructions[1].operands[0].index].name, "%rd11");
}

TEST(Reader, ScopesHoldNamesOfTheirOwn) {
  Module module =
      read(kernel("{ .reg .pred p; .reg .b32 t; mov.b32 t, 1; @p bra L1; L1: { .reg .b64 t; mov.b64 t, 2; }\n"
                  "bra L1; } { .reg .b32 t; L1: mov.b32 t, 3; bra L1; } mov.b32 %r1, 4;"));
  const Function &function = module.functions[0];
  ASSERT_EQ(function.instructions.size(), 7u);
  const Register &first = function.registers[function.instructions[0].operands[0].index];
  const Register &second = function.registers[function.instructions[2].operands[0].index];
  const Register &third = function.registers[function.instructions[4].operands[0].index];
  EXPECT_EQ(first.name, "t");
  EXPECT_EQ(second.type, Type::B64);
  EXPECT_NE(&first, &third);
  ASSERT_EQ(function.labels.size(), 2u);
  EXPECT_EQ(function.instructions[1].operands[0].index, 0u);
  EXPECT_EQ(function.instructions[3].operands[0].index, 0u);
  EXPECT_EQ(function.instructions[5].operands[0].index, 1u);
  EXPECT_EQ(function.labels[0].instruction, 2u);
  EXPECT_EQ(function.labels[1].instruction, 4u);
}

TEST(Reader, ALabelFurtherOutAndAtTheEnd) {
  Module module = read(kernel("{ { @%p1 bra OUT; } } ret; OUT:"));
  const Function &function = module.functions[0];
  EXPECT_EQ(function.labels[function.instructions[0].operands[0].index].name, "OUT");
  EXPECT_EQ(function.labels[0].instruction, 2u);
  EXPECT_EQ(function.endLine, 9);
}

TEST(Reader, Guards) {
  Instruction one = readOne("@%p2 mov.b32 %r1, %r2;");
  EXPECT_EQ(one.guard, 2);
  EXPECT_FALSE(one.guardNegated);
  EXPECT_EQ(one.line, 8);
  one = readOne("\n@!%p1\nexit;");
  EXPECT_EQ(one.guard, 1);
  EXPECT_TRUE(one.guardNegated);
  EXPECT_EQ(one.line, 9);
  EXPECT_EQ(readOne("ret;").guard, -1);
}

TEST(Reader, Names) {
  EXPECT_EQ(readOne("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0,%f1}, {%r1}, {%r2}, {%f0,%f1};").name(),
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32");
  EXPECT_EQ(readOne("ld.shared::cta .b32 %r1, [%r2];").name(), "ld.shared::cta.b32");
  EXPECT_EQ(readOne("mbarrier.x.y::z::w;").modifiers[1], "y::z::w");
}

TEST(Reader, HintsAndTheirPolicies) {
  Instruction one = readOne("ld.global.nc.L1::no_allocate.L2::cache_hint.L2::128B.v2.f32 {%f0, %f1}, [%rd1], %rd2;");
  EXPECT_EQ(one.name(), "ld.global.v2.f32");
  EXPECT_EQ(one.operands.size(), 2u);
  EXPECT_EQ(readOne("st.global.cs.b32 [%rd1], %r1;").name(), "st.global.b32");
  EXPECT_EQ(readOne("cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16;").name(), "cp.async.shared.global");
  EXPECT_EQ(readOne("cp.async.ca.shared.global [%r1], [%rd1], 4, %r2;").operands.size(), 4u);
  EXPECT_EQ(readOne("atom.global.add.L2::cache_hint.u32 %r1, [%rd1], %r2, %rd3;").operands.size(), 3u);
  // Not hints: what they say is what the instruction does.
  EXPECT_EQ(readOne("createpolicy.fractional.L2::evict_last.b64 %rd1, 1.0;").name(),
            "createpolicy.fractional.L2::evict_last.b64");
  EXPECT_EQ(readOne("prefetch.global.L2 [%rd1];").name(), "prefetch.global.L2");
  EXPECT_EQ(readOne("atom.global.cg.u32 %r1, [%rd1], %r2;").name(), "atom.global.cg.u32");
  EXPECT_TRUE(isHint("ld", "nc"));
  EXPECT_FALSE(isHint("st", "nc"));
  EXPECT_FALSE(isHint("ld", "volatile"));
  EXPECT_FALSE(isHint("add", "ca"));
}

TEST(Reader, OperandsOfEveryKind) {
  Instruction one = readOne("x.y %r1, _, !%p1, %p1|%p2, _|%p1, %p0|_, {%r1, _, 5}, %tid.x, %laneid, p, p+4, k;");
  const auto &o = one.operands;
  ASSERT_EQ(o.size(), 12u);
  EXPECT_EQ(o[0].kind, Kind::Register);
  EXPECT_EQ(o[1].kind, Kind::Sink);
  EXPECT_EQ(o[2].kind, Kind::Register);
  EXPECT_TRUE(o[2].negated);
  EXPECT_EQ(o[3].kind, Kind::Pair);
  EXPECT_EQ(o[3].elements[1].index, 2u);
  EXPECT_EQ(o[4].elements[0].kind, Kind::Sink);
  EXPECT_EQ(o[5].elements[1].kind, Kind::Sink);
  EXPECT_EQ(o[6].kind, Kind::Vector);
  ASSERT_EQ(o[6].elements.size(), 3u);
  EXPECT_EQ(o[6].elements[1].kind, Kind::Sink);
  EXPECT_EQ(o[6].elements[2].bits, 5u);
  EXPECT_EQ(o[7].kind, Kind::Special);
  EXPECT_EQ(Special(o[7].index), Special::TidX);
  EXPECT_EQ(Special(o[8].index), Special::Laneid);
  EXPECT_EQ(o[9].kind, Kind::Symbol);
  EXPECT_FALSE(o[9].global);
  EXPECT_EQ(o[10].offset, 4);
  EXPECT_EQ(o[11].kind, Kind::Function);
}

TEST(Reader, SpecialRegisters) {
  for (const char *name :
       {"%tid.y",           "%ntid.z",      "%ctaid.x",        "%nctaid.y",      "%warpid",      "%nwarpid",
        "%lanemask_eq",     "%lanemask_le", "%lanemask_lt",    "%lanemask_ge",   "%lanemask_gt", "%dynamic_smem_size",
        "%total_smem_size", "%gridid",      "%smid",           "%nsmid",         "%clock",       "%clock64",
        "%clock_hi",        "%globaltimer", "%globaltimer_lo", "%globaltimer_hi"})
    EXPECT_EQ(readOne("mov.b32 %r1, " + std::string(name) + ";").operands[1].kind, Kind::Special) << name;
}

TEST(Reader, Addresses) {
  struct Case {
    const char *text;
    Kind base;
    int64_t offset;
  };
  for (const Case &c :
       {Case{"[%rd1]", Kind::Register, 0}, Case{"[%rd1+4]", Kind::Register, 4},
        Case{"[ %r1 + -4 ]", Kind::Register, -4}, Case{"[%rd1-8]", Kind::Register, -8},
        Case{"[%rd1+4*2+1]", Kind::Register, 9}, Case{"[%rd1+(1<<4)]", Kind::Register, 16},
        Case{"[p]", Kind::Symbol, 0}, Case{"[p+0x10]", Kind::Symbol, 16}, Case{"[4096]", Kind::Immediate, 0}}) {
    Instruction one = readOne("ld.b32 %r1, " + std::string(c.text) + ";");
    ASSERT_EQ(one.operands[1].kind, Kind::Address) << c.text;
    EXPECT_EQ(one.operands[1].elements[0].kind, c.base) << c.text;
    EXPECT_EQ(one.operands[1].offset, c.offset) << c.text;
    EXPECT_EQ(one.operands[1].elements[0].offset, 0) << c.text;
  }
}

TEST(Reader, Integers) {
  EXPECT_EQ(immediate("0"), 0u);
  EXPECT_EQ(immediate("0x1F"), 31u);
  EXPECT_EQ(immediate("0XfFU"), 255u);
  EXPECT_EQ(immediate("017"), 15u);
  EXPECT_EQ(immediate("0b101"), 5u);
  EXPECT_EQ(immediate("42U"), 42u);
  EXPECT_EQ(immediate("-5"), uint64_t(-5));
  EXPECT_EQ(immediate("-9223372036854775808"), uint64_t(1) << 63);
  EXPECT_EQ(immediate("18446744073709551615"), ~uint64_t(0));
  EXPECT_EQ(immediate("WARP_SZ"), 32u);
}

TEST(Reader, ConstantExpressions) {
  EXPECT_EQ(immediate("(1<<3)+2"), 10u);
  EXPECT_EQ(immediate("1+2*3"), 7u);
  EXPECT_EQ(immediate("10-3-2"), 5u);
  EXPECT_EQ(immediate("-7/2"), uint64_t(-3));
  EXPECT_EQ(immediate("-7 % 3"), uint64_t(-1));
  EXPECT_EQ(immediate("0xffffffffffffffff / 2"), ~uint64_t(0) >> 1);
  EXPECT_EQ(immediate("-9223372036854775808 / -1"), uint64_t(1) << 63);
  EXPECT_EQ(immediate("-8 >> 1"), uint64_t(-4));
  EXPECT_EQ(immediate("(.u64) -8 >> 60"), 15u);
  EXPECT_EQ(immediate("(.s64) 0xfffffffffffffff8 >> 1"), uint64_t(-4));
  EXPECT_EQ(immediate("~0"), ~uint64_t(0));
  EXPECT_EQ(immediate("!5"), 0u);
  EXPECT_EQ(immediate("1 < 2"), 1u);
  EXPECT_EQ(immediate("-1 < 1U"), 0u);
  EXPECT_EQ(immediate("2 >= 3"), 0u);
  EXPECT_EQ(immediate("3 == 3 && 1 != 2"), 1u);
  EXPECT_EQ(immediate("0 || 4"), 1u);
  EXPECT_EQ(immediate("6 & 3 | 8 ^ 1"), 11u);
  EXPECT_EQ(immediate("1 ? 2 : 3"), 2u);
  EXPECT_EQ(immediate("0 ? 2 : 0 ? 4 : 5"), 5u);
}

TEST(Reader, FloatingConstants) {
  Instruction one = readOne("x 0f3F800000, 0d3FF0000000000000, 1.5, -1.0, -0F7fc00000, 2e3;");
  EXPECT_EQ(one.operands[0].literal, Literal::Float32);
  EXPECT_EQ(one.operands[0].bits, 0x3f800000u);
  EXPECT_EQ(one.operands[1].literal, Literal::Float64);
  EXPECT_EQ(std::bit_cast<double>(one.operands[1].bits), 1.0);
  EXPECT_EQ(one.operands[2].literal, Literal::Float64);
  EXPECT_EQ(std::bit_cast<double>(one.operands[2].bits), 1.5);
  EXPECT_EQ(std::bit_cast<double>(one.operands[3].bits), -1.0);
  EXPECT_EQ(one.operands[4].bits, 0xffc00000u);
  EXPECT_EQ(std::bit_cast<double>(one.operands[5].bits), 2000.0);
}

TEST(Reader, VariablesOfTheModule) {
  Module module = read(kHead + ".extern .shared .align 16 .b8 smem[];\n.visible .global .align 4 .u32 a, b[3][2];\n"
                               ".shared .v4 .f32 v[2]; .weak .const .s16 c[] = {1, -2, 3};\n"
                               ".global .attribute(.managed) .u64 m; .extern .global .f32 e;");
  const auto &v = module.variables;
  ASSERT_EQ(v.size(), 7u);
  EXPECT_TRUE(v[0].isExtern);
  EXPECT_EQ(v[0].space, Space::Shared);
  EXPECT_EQ(v[0].elements, 0);
  EXPECT_EQ(v[0].align, 16);
  EXPECT_EQ(v[1].size(), 4);
  EXPECT_FALSE(v[1].initialised);
  EXPECT_EQ(v[2].elements, 6);
  EXPECT_EQ(v[2].line, 5);
  EXPECT_EQ(v[3].size(), 32);
  EXPECT_EQ(v[3].align, 16);
  EXPECT_EQ(v[4].elements, 3);
  EXPECT_EQ(v[4].bytes, (std::vector<uint8_t>{1, 0, 0xfe, 0xff, 3, 0}));
  EXPECT_EQ(v[5].align, 8);
}

TEST(Reader, AnExternVariableMayBeDefinedLater) {
  Module module = read(kHead + ".extern .global .u32 a[];\n.global .u32 a[2] = {1, 2};\n.extern .global .u32 a[2];");
  ASSERT_EQ(module.variables.size(), 1u);
  EXPECT_FALSE(module.variables[0].isExtern);
  EXPECT_EQ(module.variables[0].bytes.size(), 8u);
}

TEST(Reader, Initialisers) {
  EXPECT_EQ(values<uint32_t>(".global .u32 a = 7;"), std::vector<uint32_t>{7});
  EXPECT_EQ(values<int32_t>(".global .b32 a[4] = {-1, (1<<3)+2};"), (std::vector<int32_t>{-1, 10, 0, 0}));
  EXPECT_EQ(values<int32_t>(".const .s32 a[2][3] = {{1, 2}, {3}};"), (std::vector<int32_t>{1, 2, 0, 3, 0, 0}));
  EXPECT_EQ(values<int32_t>(".const .s32 a[2][3] = {1, 2, 3, 4};"), (std::vector<int32_t>{1, 2, 3, 4, 0, 0}));
  EXPECT_EQ(values<int32_t>(".const .s32 a[][2] = {{1}, {2, 3}, 4};"), (std::vector<int32_t>{1, 0, 2, 3, 4, 0}));
  EXPECT_EQ(values<int32_t>(".global .s32 a[2] = {};"), (std::vector<int32_t>{0, 0}));
  EXPECT_EQ(values<float>(".global .f32 a[3] = {0f3F800000, 0d4000000000000000, -0.5};"),
            (std::vector<float>{1, 2, -0.5}));
  EXPECT_EQ(values<double>(".global .f64 a[2] = {0f3F800000, 1.25};"), (std::vector<double>{1, 1.25}));
  EXPECT_EQ(values<uint32_t>(".global .b32 a = 0f3F800000;"), std::vector<uint32_t>{0x3f800000});
  EXPECT_EQ(values<uint8_t>(".global .b8 a[3] = {255, -128, 0x7f};"), (std::vector<uint8_t>{255, 128, 127}));
  EXPECT_EQ(values<uint64_t>(".global .u64 a = 0xffffffffffffffff;"), std::vector<uint64_t>{~uint64_t(0)});
}

TEST(Reader, AddressesInInitialisers) {
  Module module = read(kHead + ".global .u32 a[4];\n.func f();\n.global .u64 p[5] = {a, 5, generic(a)+8, a-4, f};\n"
                               ".global .u64 q = generic(a + 4);");
  const Variable &p = module.variables[1];
  ASSERT_EQ(p.addresses.size(), 4u);
  EXPECT_EQ(p.bytes[8], 5);
  EXPECT_EQ(p.addresses[0].variable, 0u);
  EXPECT_FALSE(p.addresses[0].generic);
  EXPECT_EQ(p.addresses[1].offset, 16);
  EXPECT_TRUE(p.addresses[1].generic);
  EXPECT_EQ(p.addresses[1].addend, 8);
  EXPECT_EQ(p.addresses[2].addend, -4);
  EXPECT_TRUE(p.addresses[3].function);
  EXPECT_EQ(p.addresses[3].size, 8);
  EXPECT_EQ(module.variables[2].addresses[0].addend, 4);
}

TEST(Reader, EntriesAndTheirDirectives) {
  Module module =
      read(kHead + ".visible .entry k(\n.param .u64 .ptr .global .align 16 a,\n.param .align 8 .b8 s[24],\n"
                   ".param .u8 c, .param .u64 .ptr .align 1 d)\n.maxntid 128, 2\n.minnctapersm 3\n.maxnreg 40\n"
                   ".pragma \"nounroll\";\n{ ret; }\n.weak .entry l .reqntid 32 { }");
  const Function &k = module.functions[0];
  EXPECT_TRUE(k.entry);
  EXPECT_TRUE(k.defined);
  EXPECT_EQ(k.line, 4);
  EXPECT_EQ(k.endLine, 12);
  ASSERT_EQ(k.params.size(), 4u);
  EXPECT_EQ(k.params[0].align, 8); // 16 is said about what it points to
  EXPECT_EQ(k.params[1].size(), 24);
  EXPECT_EQ(k.params[1].align, 8);
  EXPECT_EQ(k.params[2].size(), 1);
  EXPECT_EQ(k.params[3].align, 8);
  EXPECT_EQ(k.maxntid[0], 128u);
  EXPECT_EQ(k.maxntid[1], 2u);
  EXPECT_EQ(k.maxntid[2], 1u);
  EXPECT_EQ(k.minnctapersm, 3u);
  EXPECT_EQ(k.maxnreg, 40u);
  EXPECT_EQ(k.reqntid[0], 0u);
  EXPECT_EQ(k.variables.size(), 4u);
  EXPECT_EQ(module.functions[1].reqntid[0], 32u);
}

TEST(Reader, FunctionsAndCalls) {
  Module module =
      read(kHead + ".func (.param .b32 r) f (.param .b32 a, .param .align 8 .b8 b[8])\n;\n"
                   ".extern .func g() .noreturn;\n.func h(.param .b32 n, .param .align 8 .b8 rest[]);\n"
                   ".func (.param .b32 r) f (.param .b32 x, .param .align 8 .b8 y[8])\n{\n.reg .b32 %r<2>;\n"
                   ".reg .b64 %rd<2>;\n{ // callseq 0, 0\n.param .b32 r0; .param .b32 p0;\n.param .align 8 .b8 p1[8];\n"
                   "call.uni (r0), \nf, \n(\np0, \np1\n);\n}\ncall g;\ncall g, ();\n"
                   "P : .callprototype (.param .b32 _) _ (.param .b32 _, .param .b64 _);\n"
                   "call (r), %rd1, (x, y), P;\ncall %rd1, Q;\nQ: .callprototype _ ();\nret;\n}\n");
  ASSERT_EQ(module.functions.size(), 3u);
  const Function &f = module.functions[0];
  EXPECT_FALSE(f.entry);
  EXPECT_TRUE(f.defined);
  EXPECT_FALSE(module.functions[1].defined);
  EXPECT_EQ(module.functions[2].params[1].elements, 0);
  ASSERT_EQ(f.variables.size(), 6u);
  EXPECT_EQ(f.variables[0].name, "x");
  EXPECT_EQ(f.variables[2].name, "r");
  EXPECT_EQ(f.variables[3].name, "r0");
  EXPECT_EQ(f.variables[3].space, Space::Param);
  const Instruction &call = f.instructions[0];
  EXPECT_EQ(call.name(), "call.uni");
  EXPECT_EQ(call.line, 15);
  ASSERT_EQ(call.operands.size(), 3u);
  EXPECT_EQ(call.operands[0].elements[0].index, 3u);
  EXPECT_EQ(call.operands[1].kind, Kind::Function);
  EXPECT_EQ(call.operands[1].index, 0u);
  EXPECT_EQ(call.operands[2].elements.size(), 2u);
  for (int i : {1, 2}) {
    EXPECT_TRUE(f.instructions[i].operands[0].elements.empty());
    EXPECT_EQ(f.instructions[i].operands[1].index, 1u);
    EXPECT_TRUE(f.instructions[i].operands[2].elements.empty());
  }
  ASSERT_EQ(f.prototypes.size(), 2u);
  EXPECT_EQ(f.instructions[3].operands[1].kind, Kind::Register);
  EXPECT_EQ(f.instructions[3].operands[3].kind, Kind::Label);
  EXPECT_EQ(f.instructions[3].operands[3].index, f.prototypes[0].label);
  EXPECT_EQ(f.prototypes[0].params.size(), 2u);
  EXPECT_EQ(f.prototypes[0].returns.size(), 1u);
  EXPECT_EQ(f.instructions[4].operands[3].index, f.prototypes[1].label);
}

TEST(Reader, BranchTargets) {
  Module module = read(kernel("T: .branchtargets\nA,\nB, A;\nbrx.idx.uni %r1, T;\nA: ret;\nB: ret;"));
  const Function &k = module.functions[0];
  ASSERT_EQ(k.branchTargets.size(), 1u);
  EXPECT_EQ(k.branchTargets[0].label, k.instructions[0].operands[1].index);
  ASSERT_EQ(k.branchTargets[0].labels.size(), 3u);
  EXPECT_EQ(k.labels[k.branchTargets[0].labels[1]].name, "B");
  EXPECT_EQ(k.branchTargets[0].labels[0], k.branchTargets[0].labels[2]);
}

TEST(Reader, VariablesOfAFunction) {
  Module module = read(kernel(".shared .align 4 .b8 tile[64];\n.local .b32 stack[4];\n.global .u32 counter = 3;\n"
                              "mov.u64 %rd1, tile+8;\nst.local.b32 [stack+4], %r1;\nmov.u64 %rd2, counter;"));
  const Function &k = module.functions[0];
  ASSERT_EQ(k.variables.size(), 3u);
  EXPECT_EQ(k.variables[1].space, Space::Shared);
  EXPECT_EQ(k.instructions[0].operands[1].index, 1u);
  EXPECT_EQ(k.instructions[0].operands[1].offset, 8);
  EXPECT_EQ(k.instructions[1].operands[0].elements[0].index, 2u);
  EXPECT_TRUE(k.instructions[2].operands[1].global);
  ASSERT_EQ(module.variables.size(), 1u);
}

TEST(Reader, WhatHasNoEffectIsSkipped) {
  Module module =
      read(kHead + ".file 1 \"a \\\"b\\\".cu\", 5, 6\n.entry k() {\n.loc 1 2 3\n.pragma \"nounroll\";\n"
                   ".loc 1 2 3, function_name $L__s0, inlined_at 1 21 3\n"
                   ".loc 1 2 3, function_name .debug_str+16, inlined_at 1 21 3\nret;;\n}\n"
                   ".section .debug_info\n{\n.b32 5, -1\nL:\n.b64 k\n.b32 .debug_loc+62\n}\n.section\t.debug_loc {}\n");
  EXPECT_EQ(module.functions[0].instructions.size(), 1u);
  EXPECT_EQ(module.functions[0].instructions[0].line, 10);
}
