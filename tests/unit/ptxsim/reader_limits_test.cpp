// SPDX-License-Identifier: Apache-2.0
//
// Hostile text: it is refused, soon and without much memory.
#include "tests/unit/ptxsim/read.h"

#include <chrono>

using namespace kvq::ptxsim;

namespace {

std::string repeat(const std::string &text, int count) {
  std::string out;
  out.reserve(text.size() * count);
  for (int i = 0; i < count; ++i)
    out += text;
  return out;
}

void refused(const std::string &text, const std::string &part) {
  std::string message = refusal(text);
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

} // namespace

TEST(ReaderLimits, Nesting) {
  refused(kernel(repeat("{", 100000)), "nested more than 64 deep");
  refused(kernel("mov.b32 %r1, " + repeat("(", 100000)), "nested too deeply");
  refused(kernel("mov.b32 %r1, " + repeat("-", 100000) + "1;"), "nested too deeply");
  refused(kernel("mov.b32 %r1, " + repeat("1 ? ", 100000)), "nested too deeply");
  refused(kernel("mov.b32 %r1, " + repeat("1 ? 2 : ", 100000)), "nested too deeply");
  refused(kHead + ".global .u32 a" + repeat("[1]", 1000) + ";", "more than 64 dimensions");
  refused(kHead + ".global .u32 a[4] = " + repeat("{", 1000), "braces that no dimension");
  read(kernel(repeat("{", 60) + repeat("}", 60)));
  read(kHead + ".global .u32 a" + repeat("[1]", 60) + " = " + repeat("{", 60) + "1" + repeat("}", 60) + ";");
}

TEST(ReaderLimits, Sizes) {
  refused(kHead + ".global .b8 a[1152921504606846976];", "must be an integer from 1 to 4294967296");
  refused(kHead + ".global .b64 a[4294967296];", "has more than 4294967296 bytes");
  refused(kHead + ".global .b8 a[65536][65536][65536][65536];", "has more than 4294967296 bytes");
  refused(kHead + ".shared .b8 a[1048577];", "must be an integer from 1 to 1048576");
  refused(kHead + ".global .b8 a[134217728] = {1};", "initialised variables have more than 67108864 bytes");
  refused(kHead + ".global .b8 a[60000000] = {1}, b[60000000] = {1};", "initialised variables have more than");
  refused(kHead + ".global .b8 a[][1000000] = {" + repeat("{1},", 100) + "};", "initialised variables have more than");
  refused(kHead + ".global .b8 a[][65536][65536][65536] = {{{{1}}}};", "'a' has more than 4294967296 bytes");
}

TEST(ReaderLimits, Counts) {
  refused(kernel(".reg .b32 %a<1000000>; .reg .b32 %b<100000>;"), "more than 1048576 registers");
  std::string entries = kHead;
  for (int i = 0; i < 6; ++i)
    entries += ".entry k" + std::to_string(i) + "() { .reg .b32 %r<1000000>; }\n";
  refused(entries, "more than 1048576 registers");
  refused(kernel("add" + repeat(".a", 100) + ";"), "too many modifiers of 'add'");
  refused(kernel("add " + repeat("1,", 2000) + "1;"), "too many operands of 'add'");
  refused(kernel("add {" + repeat("1,", 2000) + "1};"), "a vector of more than 1024 elements");
  refused(kernel("call (" + repeat("1,", 2000) + "1), k;"), "too many arguments of a call");
  refused(kHead + ".func f(" + repeat(".param .b8 _,", 2000), "too many parameters");
  refused(std::string(size_t(65) << 20, ' '), "more than 64 MiB");
}

// Time that grows with the square of the text would take minutes here.
TEST(ReaderLimits, Time) {
  auto begin = std::chrono::steady_clock::now();
  std::string names, scopes, labels;
  for (int i = 0; i < 50000; ++i) {
    names += ".reg .b32 %x" + std::to_string(i) + "y<2>;\n";
    labels += "bra L" + std::to_string(49999 - i) + "; L" + std::to_string(i) + ":\n";
  }
  for (int i = 0; i < 50000; ++i)
    scopes += "{ .reg .b32 t; bra END; }\n";
  read(kernel(names + labels + scopes + "END:"));
  refused(kernel(repeat("{", 60) + repeat("bra L;", 50000) + repeat("}", 60)), "the label 'L' is not defined");
  refused(std::string(60 << 20, '/'), "expected .version");
  refused(kHead + repeat("/**/", 1 << 20) + "?", "expected a directive");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

// A module that is cut off anywhere, or has one character changed, is read or refused, nothing else.
TEST(ReaderLimits, EveryPrefixAndEveryChangedCharacter) {
  std::string text =
      kernel("@!%p1 ld.global.nc.v2.f32 {%f1, %f2}, [%rd1+(4*2)]; L: shfl.sync.idx.b32 %r1|%p1, %r2, -1;\n"
             "{ .param .b32 a; call (a), k, (p); } T: .branchtargets L; brx.idx %r1, T;") +
      ".global .u64 g[2][2] = {{1}, {generic(h)+4}};\n.file 1 \"a\"\n.section .debug_x { .b8 1 }";
  text.insert(kHead.size(), ".extern .shared .align 16 .b8 h[];");
  text = text.substr(0, text.find(".global .u64 g")) + ".global .u32 i;" + text.substr(text.find(".global .u64 g"));
  ASSERT_TRUE(parse(text, "a.ptx").isOk()) << parse(text, "a.ptx").status().message();
  for (size_t end = 0; end < text.size(); ++end)
    (void)parse(text.substr(0, end), "a.ptx");
  for (size_t place = 0; place < text.size(); ++place) {
    for (char c : {'{', '}', '(', '[', '%', '.', ';', '0', '"', '\0', '\n', '+'}) {
      std::string changed = text;
      changed[place] = c;
      (void)parse(changed, "a.ptx");
    }
  }
}
