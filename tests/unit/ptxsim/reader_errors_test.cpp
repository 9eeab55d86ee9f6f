// SPDX-License-Identifier: Apache-2.0
//
// Text that is refused: each message with its line.
#include "tests/unit/ptxsim/read.h"

using namespace kvq::ptxsim;

namespace {

// The message without "a.ptx:LINE: ", after that part has been checked.
std::string behindLine(const std::string &text, int line) {
  std::string message = refusal(text), place = "a.ptx:" + std::to_string(line) + ": ";
  EXPECT_EQ(message.substr(0, place.size()), place) << message << "\n" << text;
  return message.size() > place.size() ? message.substr(place.size()) : message;
}

// `text` stands below the head, from line 4; or in a kernel, from line 8.
std::string inModule(const std::string &text, int line = 4) { return behindLine(kHead + text, line); }
std::string inKernel(const std::string &text, int line = 8) { return behindLine(kernel(text), line); }

} // namespace

TEST(ReaderErrors, Head) {
  EXPECT_EQ(behindLine("", 1), "expected .version, with which a module begins, found the end of the text");
  EXPECT_EQ(behindLine("\n.target sm_80", 2), "expected .version, with which a module begins, found '.target'");
  EXPECT_EQ(behindLine(".version 8\n", 1), "expected a version such as 7.8, found '8'");
  EXPECT_EQ(behindLine(".version 8.0\n.entry", 2), "expected .target, which follows .version, found '.entry'");
  EXPECT_EQ(behindLine(".version 8.0\n.target gfx90", 2), "target 'gfx90': not implemented");
  EXPECT_EQ(behindLine(".version 8.0\n.target sm_80,\nmap_f64_to_f32", 3),
            "target option 'map_f64_to_f32': not implemented");
  EXPECT_EQ(behindLine(".version 8.0\n.target sm_80 .address_size 32", 2), ".address_size 32: not implemented");
  EXPECT_EQ(inModule(".target sm_90"), "a second .target");
}

TEST(ReaderErrors, Text) {
  EXPECT_EQ(inModule("\n/* \n\n", 5), "a comment that begins here is never closed");
  EXPECT_EQ(inModule("\n\x80", 5), "a character that PTX does not have: '?'");
  EXPECT_EQ(inModule(std::string("\0", 1)), "a character that PTX does not have: '?'");
  EXPECT_EQ(inModule("# 1 \"file\""), "a character that PTX does not have: '#'");
  EXPECT_EQ(inModule(".file 1 \"abc\n\""), "a string that is not closed on its line: '\"abc'");
  EXPECT_EQ(inKernel("mov.b32 %r1, 0x;"), "a malformed number: '0x'");
  EXPECT_EQ(inKernel("mov.b32 %r1, 12ab;"), "a malformed number: '12ab'");
  EXPECT_EQ(inKernel("mov.b32 %r1, 08;"), "a malformed number: '08'");
  EXPECT_EQ(inKernel("mov.b32 %r1, 0f3F80000;"), "0f takes 8 hexadecimal digits: '0f3F80000'");
  EXPECT_EQ(inKernel("mov.b32 %r1, 0f3F8000000;"), "a malformed number: '0f3F8000000'");
  EXPECT_EQ(inKernel("mov.b32 %r1, 0d3F;"), "0d takes 16 hexadecimal digits: '0d3F'");
  EXPECT_EQ(inKernel("mov.b32 %r1, 18446744073709551616;"), "an integer of more than 64 bits: '1844674407370955161'");
  EXPECT_EQ(inKernel("mov.f64 %rd1, 1.0e999;"), "a floating-point number that a double cannot hold: '1.0e999'");
}

TEST(ReaderErrors, DirectivesThatAreNotImplemented) {
  EXPECT_EQ(inModule(".alias a, b;"), ".alias at module level: not implemented");
  EXPECT_EQ(inModule(".common .global .u32 a;"), ".common: not implemented");
  EXPECT_EQ(inModule(".local .u32 a;"), ".local at module level: not implemented");
  EXPECT_EQ(inModule(".tex .u32 a;"), ".tex at module level: not implemented");
  EXPECT_EQ(inModule(".entry k() .maxclusterrank 4 { }"), ".maxclusterrank: not implemented");
  EXPECT_EQ(inModule(".entry k()\n.reqnctapercluster 4 { }", 5), ".reqnctapercluster: not implemented");
  EXPECT_EQ(inModule(".section .text { }"), "section '.text': not implemented");
  EXPECT_EQ(inModule(".global .attribute(.other) .u32 a;"), ".attribute '.other': not implemented");
  EXPECT_EQ(inModule(".global .texref t;"), "a variable of type '.texref': not implemented");
  EXPECT_EQ(inModule(".const[2] .u32 a;"), "expected the type of a variable, found '['");
  EXPECT_EQ(inModule(".func f(.reg .b32 a);"), "parameters in registers: not implemented");
  EXPECT_EQ(inModule(".entry k(.param .texref a) { }"), "a parameter of type '.texref': not implemented");
  EXPECT_EQ(inKernel("T: .calltargets f;"), ".calltargets in a function: not implemented");
  EXPECT_EQ(inKernel(".reg .v4 .f32 v;"), "registers of type '.v4': not implemented");
  EXPECT_EQ(inKernel(".reg .b128 v;"), "registers of type '.b128': not implemented");
  EXPECT_EQ(inKernel("mov.f32 %f1, %f2.x;"), "a component of a register, '%f2' '.x': not implemented");
  EXPECT_EQ(inKernel("cp.async.bulk.tensor [%r1], [%rd1, {%r2}];"), "an address with coordinates: not implemented");
  EXPECT_EQ(inModule("add.s32;"), "expected a directive, found 'add'");
}

TEST(ReaderErrors, CodesTellWhatIsWrongFromWhatIsMissing) {
  EXPECT_EQ(parse(kHead + ".alias a, b;", "").status().code(), kvq::Code::Unsupported);
  EXPECT_EQ(parse(kHead + "}", "").status().code(), kvq::Code::InvalidArgument);
}

TEST(ReaderErrors, NamesThatAreNotThere) {
  EXPECT_EQ(inKernel("mov.b32 %r1,\n%r8;", 9),
            "'%r8' is neither a declared register nor a special register that is known");
  EXPECT_EQ(inKernel("mov.b32 %r1, %tid.w;"),
            "'%tid.w' is neither a declared register nor a special register that is known");
  EXPECT_EQ(inKernel("mov.b32 %r1, %clusterid.x;"),
            "'%clusterid.x' is neither a declared register nor a special register that is known");
  EXPECT_EQ(inKernel("\nbra L;", 9), "the label 'L' is not defined");
  EXPECT_EQ(inKernel("bra L; { L: }"), "the label 'L' is not defined");
  EXPECT_EQ(inKernel("bra %r1;"), "'%r1' is neither a declared register nor a special register that is known");
  EXPECT_EQ(inKernel("\n\nmov.u64 %rd1, buffer;", 10), "'buffer' is not a register, variable, function or label");
  EXPECT_EQ(inKernel("mov.u64 %rd1, buffer+4;"), "'buffer' is not a register, variable or function");
  EXPECT_EQ(inKernel("ld.b32 %r1, [buffer];"), "'buffer' is not a register, variable or function");
  EXPECT_EQ(inKernel("call f, ();"), "the function 'f' is not declared");
  EXPECT_EQ(inKernel("call %rd1, P;"), "the label 'P' is not defined");
  EXPECT_EQ(inKernel("@%p9 ret;"), "the predicate '%p9' is not declared");
  EXPECT_EQ(inKernel("T: .branchtargets A,\nB; A:", 9), "the label 'B' is not defined");
  EXPECT_EQ(inKernel("{ .reg .b32 t; }\nmov.b32 t, 1;", 9), "'t' is not a register, variable, function or label");
  EXPECT_EQ(inModule(".global .u64 a = b;"), "'b' is not a variable or function that was declared before");
}

TEST(ReaderErrors, NamesThatAreThereTwice) {
  EXPECT_EQ(inModule(".global .u32 a;\n.global .u32 a;", 5), "'a' is declared twice");
  EXPECT_EQ(inModule(".extern .global .u32 a;\n.global .u64 a;", 5), "'a' is declared twice");
  EXPECT_EQ(inModule(".global .u32 a;\n.func a();", 5), "'a' is declared twice");
  EXPECT_EQ(inModule(".func a();\n.global .u32 a;", 5), "'a' is declared twice");
  EXPECT_EQ(inModule(".entry k() { }\n.entry k() { }", 5), "'k' is defined twice");
  EXPECT_EQ(inModule(".func f();\n.func f(.param .b32 a);", 5), "'f' is declared with other parameters in line 4");
  EXPECT_EQ(inModule(".func f(.param .b32 a,\n.param .b32 a) { }", 5), "'a' is declared twice");
  EXPECT_EQ(inKernel(".reg .b32 %r<2>;"), "'%r': a register of this range is declared twice");
  EXPECT_EQ(inKernel(".reg .b32 %r7;"), "'%r7' is declared twice");
  EXPECT_EQ(inKernel(".reg .b32 %x3;\n.reg .b32 %x<4>;", 9), "'%x': a register of this range is declared twice");
  EXPECT_EQ(inKernel(".reg .b32 %x<20>;\n.reg .b32 %x1<2>;", 9), "'%x1': a register of this range is declared twice");
  EXPECT_EQ(inKernel(".reg .b32 %x1<2>;\n.reg .b32 %x<20>;", 9), "'%x': a register of this range is declared twice");
  EXPECT_EQ(inKernel("L:\nL:", 9), "'L' is declared twice");
  EXPECT_EQ(inKernel(".shared .b32 a; .reg .b32 a;"), "'a' is declared twice");
  EXPECT_EQ(inKernel(".reg .b32 p;"), "'p' is declared twice");
}

TEST(ReaderErrors, Instructions) {
  EXPECT_EQ(inKernel("add.s32 %r1, %r2 %r3;"), "expected ',' or ';' after an operand of 'add.s32', found '%r3'");
  EXPECT_EQ(inKernel("add.s32 %r1, ;"), "expected a constant, found ';'");
  EXPECT_EQ(inKernel("mov.b32 {%r1, {%r2}}, 1;"), "expected an element of a vector, found '{'");
  EXPECT_EQ(inKernel("mov.b32 {%r1, %r2, 1;"), "expected '}' after the elements of a vector, found ';'");
  EXPECT_EQ(inKernel("ld.b32 %r1, [%r2;"), "expected ']' after an address, found ';'");
  EXPECT_EQ(inKernel("ld.b32 %r1, [%r1+%r2];"), "expected a constant, found '%r2'");
  EXPECT_EQ(inKernel("ld.b32 %r1, [k];"), "an address begins with a register, a variable or a constant");
  EXPECT_EQ(inKernel("ld.b32 %r1, [1.0];"), "a floating-point constant is no address");
  EXPECT_EQ(inKernel("ld.b32 %r1, [%rd1+1.0];"), "an offset must be an integer");
  EXPECT_EQ(inKernel("setp.eq.and.s32 %p1, %r1, %r2, !%r3;"), "'!' stands before a predicate");
  EXPECT_EQ(inKernel("setp.eq.s32 %p1|p, %r1, %r2;"), "'|' joins two registers");
  EXPECT_EQ(inKernel("@%r1 ret;"), "the guard '%r1' is not a predicate");
  EXPECT_EQ(inKernel("@%p1;"), "expected an instruction behind its guard, found ';'");
  EXPECT_EQ(inKernel("@5 ret;"), "expected the predicate of a guard, found '5'");
  EXPECT_EQ(inKernel("5;"), "expected an instruction, a directive or a label, found '5'");
  EXPECT_EQ(inKernel("ld.global.L2::cache_hint.b32 %r1, [%rd1];"),
            ".L2::cache_hint needs a policy of 64 bits as the last operand");
  EXPECT_EQ(inKernel("ld.global.L2::cache_hint.b32 %r1, [%rd1], %r2;"),
            ".L2::cache_hint needs a policy of 64 bits as the last operand");
  EXPECT_EQ(inKernel("cp.async.cg.shared.global [%r1], [%rd1], 8;"),
            "cp.async.cg copies 16 bytes; other sizes take .ca");
  EXPECT_EQ(inKernel("call (p, g;"), "'g' is not a register, variable or function");
  EXPECT_EQ(inKernel("call (p) k;"), "expected ',' after the results of a call, found 'k'");
}

TEST(ReaderErrors, Constants) {
  EXPECT_EQ(inKernel("mov.b32 %r1, 1/0;"), "a division by zero");
  EXPECT_EQ(inKernel("mov.b32 %r1, 1%(2-2);"), "a division by zero");
  EXPECT_EQ(inKernel("mov.b32 %r1, 1<<64;"), "a constant is shifted by more than 63");
  EXPECT_EQ(inKernel("mov.b32 %r1, 1.0+2.0;"), "an operator that floating-point constants do not have");
  EXPECT_EQ(inKernel("mov.b32 %r1, ~1.0;"), "an operator that floating-point constants do not have");
  EXPECT_EQ(inKernel("mov.b32 %r1, !1.0;"), "an operator that floating-point constants do not have");
  EXPECT_EQ(inKernel("mov.b32 %r1, (.s64) 1.0;"), "a floating-point constant is not converted to an integer");
  EXPECT_EQ(inKernel("mov.b32 %r1, (.f32) 1;"), "expected (.s64) or (.u64), found '.f32'");
  EXPECT_EQ(inKernel("mov.b32 %r1, (1;"), "expected ')' after a constant expression, found ';'");
  EXPECT_EQ(inKernel("mov.b32 %r1, 1 ? 2;"), "expected ':' between the values of '?', found ';'");
}

TEST(ReaderErrors, Declarations) {
  EXPECT_EQ(inModule(".global .u32 a[0];"), "the length of an array must be an integer from 1 to 4294967296");
  EXPECT_EQ(inModule(".global .u32 a[-1];"), "the length of an array must be an integer from 1 to 4294967296");
  EXPECT_EQ(inModule(".global .u32 a[2][];"), "expected a constant, found ']'");
  EXPECT_EQ(inModule(".global .u32 a[];"), "the array 'a' has no length and no initialiser");
  EXPECT_EQ(inModule(".global .u32 a[] = {};"), "the array 'a' has no length and no values");
  EXPECT_EQ(inModule(".global .align 3 .u32 a;"), "an alignment must be a power of two");
  EXPECT_EQ(inModule(".global .pred a;"), "a variable of type '.pred': not implemented");
  EXPECT_EQ(inModule(".shared .u32 a = 5;"), "only .global and .const variables have initialisers, not 'a'");
  EXPECT_EQ(inModule(".extern .global .u32 a = 5;"), "the .extern variable 'a' has an initialiser");
  EXPECT_EQ(inModule(".global .u32 a = {5};"), "expected a constant, found '{'");
  EXPECT_EQ(inModule(".global .u32 a[2] = 5;"), "expected '{' before the values of an array, found '5'");
  EXPECT_EQ(inModule(".global .u32 a[2] = {1, 2,\n3};", 5), "too many values for 'a'");
  EXPECT_EQ(inModule(".global .u32 a[2] = {{1}};"), "braces that no dimension of 'a' has");
  EXPECT_EQ(inModule(".global .u32 a[2][2] = {1, {1}};"), "braces that no dimension of 'a' has");
  EXPECT_EQ(inModule(".global .b8 a = 256;"), "an integer that does not fit 1 bytes");
  EXPECT_EQ(inModule(".global .b8 a = -129;"), "an integer that does not fit 1 bytes");
  EXPECT_EQ(inModule(".global .f32 a = 1;"),
            "a floating-point variable takes floating-point constants such as 0f3F800000");
  EXPECT_EQ(inModule(".global .b16 a = 0f3F800000;"), "a floating-point constant does not fit a variable of 2 bytes");
  EXPECT_EQ(inModule(".global .b32 b; .global .b32 a = b;"), "an address needs an element of 64 bits");
  EXPECT_EQ(inModule(".global .b32 b; .global .u8 a[8] = {0xFF(b)};"),
            "a masked address in an initialiser: not implemented");
  EXPECT_EQ(inKernel(".reg .b32 %x<1048577>;"), "the number of registers must be an integer from 0 to 1048576");
}

TEST(ReaderErrors, Functions) {
  EXPECT_EQ(inModule(".entry\n(", 5), "expected the name of a function, found '('");
  EXPECT_EQ(inModule(".entry k(.param .b8 a[]) { }"), "a parameter of the entry 'k' has no length");
  EXPECT_EQ(inModule(".entry k()\nret;", 5), "expected '{' or ';' after the head of a function, found 'ret'");
  EXPECT_EQ(inModule("\n.entry k() {\nret;\n", 5), "the body of 'k' is not closed");
  EXPECT_EQ(inModule(".entry k() { { }"), "the body of 'k' is not closed");
  EXPECT_EQ(inModule(".entry k() { } }"), "expected a directive, found '}'");
  EXPECT_EQ(inModule(".extern .func f() { }"), "the .extern function 'f' has a body");
  EXPECT_EQ(inModule(".func f() .maxntid 4 { }"), ".maxntid belongs to an .entry");
  EXPECT_EQ(inModule(".entry k() .maxntid 0 { }"), "a launch bound must be an integer from 1 to 1048576");
  EXPECT_EQ(inModule(".section .debug_x\n{ .b8 1", 4), "the section that begins here is not closed");
  EXPECT_EQ(inModule(".loc 1 2;"), "expected a number in .loc, found ';'");
  EXPECT_EQ(inModule(".loc 1 2 3, from 4"), "expected function_name or inlined_at, found 'from'");
  EXPECT_EQ(inModule(".file \"a\""), "expected the number of a file, found the string 'a'");
  EXPECT_EQ(inModule(".pragma nounroll;"), "expected a string after .pragma, found 'nounroll'");
}
