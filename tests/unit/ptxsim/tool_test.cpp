// SPDX-License-Identifier: Apache-2.0
//
// ptx-run's parts: values, arrays in files, the command line.
#include "runtime/ptxsim/tool/arguments.h"
#include "runtime/ptxsim/tool/npy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace kvq::ptxsim {
namespace {

uint64_t bitsOf(const char *type, const char *text) {
  auto bytes = encode(*ptxType(type), text);
  EXPECT_TRUE(bytes.isOk()) << type << ":" << text << " " << bytes.status().message();
  uint64_t bits = 0;
  if (bytes.isOk())
    std::memcpy(&bits, bytes.value().data(), bytes.value().size());
  return bits;
}

TEST(PtxRunValues, Integers) {
  EXPECT_EQ(bitsOf("s8", "-128"), 0x80u);
  EXPECT_EQ(bitsOf("s32", "0xffffffff"), 0xffffffffu);
  EXPECT_EQ(bitsOf("u64", "18446744073709551615"), ~uint64_t(0));
  EXPECT_EQ(bitsOf("s64", "-9223372036854775808"), uint64_t(1) << 63);
  for (const auto &[type, text] :
       {std::pair("s8", "128"), std::pair("s8", "-129"), std::pair("u8", "-1"), std::pair("u8", "0x100"),
        std::pair("u64", "18446744073709551616"), std::pair("s64", "9223372036854775808"), std::pair("u32", "1.5"),
        std::pair("u32", ""), std::pair("u32", "1 "), std::pair("u32", "-")})
    EXPECT_FALSE(encode(*ptxType(type), text).isOk()) << type << ":" << text;
}

TEST(PtxRunValues, Floats) {
  EXPECT_EQ(bitsOf("f16", "1"), 0x3c00u);
  EXPECT_EQ(bitsOf("f16", "65504"), 0x7bffu);
  EXPECT_EQ(bitsOf("f16", "6e-8"), 1u);                  // the least subnormal number
  EXPECT_EQ(bitsOf("f16", "0.000060975551605"), 0x3ffu); // the largest
  EXPECT_EQ(bitsOf("f16", "2049"), 0x6800u);             // a tie, to even
  EXPECT_EQ(bitsOf("f16", "2051"), 0x6802u);
  EXPECT_EQ(bitsOf("f16", "-inf"), 0xfc00u);
  EXPECT_EQ(bitsOf("f16", "0x3c01"), 0x3c01u);
  EXPECT_EQ(bitsOf("bf16", "-1.5"), 0xbfc0u);
  EXPECT_EQ(bitsOf("bf16", "3.3895e38"), 0x7f7fu);
  EXPECT_EQ(bitsOf("f32", "0.1"), 0x3dcccccdu);
  EXPECT_EQ(bitsOf("f32", "0x1p-1"), 0x3f000000u);
  EXPECT_EQ(bitsOf("f64", "-0"), uint64_t(1) << 63);
  for (const auto &[type, text] :
       {std::pair("f16", "65520"), std::pair("bf16", "3.4e38"), std::pair("f32", "1e39"), std::pair("f64", "1e999"),
        std::pair("f16", "0x10000"), std::pair("f32", "one"), std::pair("f32", ""), std::pair("f32", " 1")})
    EXPECT_FALSE(encode(*ptxType(type), text).isOk()) << type << ":" << text;
}

TEST(PtxRunArrays, RoundTrip) {
  for (const std::vector<int64_t> &shape : {std::vector<int64_t>{}, {3}, {2, 0, 4}, {2, 3}}) {
    const std::string head = npyHeader(*numpyType("int16"), shape);
    EXPECT_EQ(head.size() % 64, 0u);
    const int64_t bytes = arrayBytes(*numpyType("int16"), shape).value();
    std::vector<uint8_t> file(head.begin(), head.end());
    for (int64_t i = 0; i < bytes; ++i)
      file.push_back(static_cast<uint8_t>(i));
    auto array = parseNpy(file);
    ASSERT_TRUE(array.isOk()) << array.status().message();
    EXPECT_EQ(array.value().shape, shape);
    EXPECT_STREQ(array.value().type->name, "int16");
    EXPECT_EQ(static_cast<int64_t>(array.value().data.size()), bytes);
  }
}

Status parseHeader(const std::string &dict, size_t data = 0) {
  std::string file = std::string("\x93NUMPY\x02\x00", 8);
  for (int i = 0; i < 4; ++i)
    file += static_cast<char>(dict.size() >> 8 * i);
  file += dict + std::string(data, 'x');
  return parseNpy({reinterpret_cast<const uint8_t *>(file.data()), file.size()}).status();
}

TEST(PtxRunArrays, HeadersOfStrangers) {
  EXPECT_TRUE(parseHeader("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 4).isOk());
  EXPECT_TRUE(parseHeader("{\"shape\": (1, 2), \"fortran_order\": False, \"descr\": '|u1'}\n", 2).isOk());
  EXPECT_TRUE(parseHeader("{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}", 4).isOk());
  for (const char *dict :
       {"", "{", "{}", "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "{'descr': '<f4', 'descr': '<f4'}",
        "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<c8', 'fortran_order': False, 'shape': ()}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", "{'descr': '<f4"})
    EXPECT_FALSE(parseHeader(dict, 4).isOk()) << dict;
  for (size_t size = 0; size < 12; ++size) {
    const std::vector<uint8_t> cut(size, 0x93);
    EXPECT_FALSE(parseNpy(cut).isOk());
  }
  EXPECT_FALSE(parseNpy(std::vector<uint8_t>{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 0xff, 0xff}).isOk());
}

Result<Command> parse(std::initializer_list<std::string> words) {
  std::vector<std::string> all = {"k.ptx", "--grid", "2,3", "--block", "32"};
  all.insert(all.end(), words);
  return parseCommand(all);
}

TEST(PtxRunCommand, Everything) {
  auto command = parse({"--kernel",       "k",          "--shared",     "0x400",     "--arg",    "f32:1",
                        "--checks",       "all,-align", "--schedule",   "lowest-pc", "--seed",   "5",
                        "--mma",          "truncate",   "--subnormals", "flush",     "--approx", "ulp",
                        "--cp-async",     "random",     "--threads",    "3",         "--limit",  "100",
                        "--max-findings", "7",          "--json",       "r.json",    "--list",   "--quiet"});
  ASSERT_TRUE(command.isOk()) << command.status().message();
  const Command &c = command.value();
  EXPECT_EQ(c.grid.y, 3u);
  EXPECT_EQ(c.block.count(), 32u);
  EXPECT_EQ(c.shared, 1024);
  EXPECT_EQ(c.kernel, "k");
  EXPECT_FALSE(c.options.has(Check::Align));
  EXPECT_TRUE(c.options.has(Check::Bounds));
  EXPECT_TRUE(c.options.schedule == Schedule::LowestPc && c.options.mma == MmaMode::Truncate);
  EXPECT_TRUE(c.options.flushSubnormals && c.options.disturb && c.options.cpAsync == CpAsyncMode::Random);
  EXPECT_TRUE(c.options.seed == 5 && c.options.threads == 3 && c.options.limit == 100 && c.options.maxFindings == 7);
  EXPECT_TRUE(c.list && c.quiet && c.json == "r.json" && c.parameters.size() == 1);
}

TEST(PtxRunCommand, Parameters) {
  auto out = parseParameter("out:float16:4x8:o.npy");
  ASSERT_TRUE(out.isOk());
  EXPECT_EQ(out.value().shape, (std::vector<int64_t>{4, 8}));
  EXPECT_EQ(out.value().output, "o.npy");
  EXPECT_EQ(parseParameter("in:a:b.npy").value().file, "a:b.npy");
  EXPECT_EQ(parseParameter("inout:a.npy:b.npy").value().output, "b.npy");
  EXPECT_EQ(parseParameter("fill:-1:int8:3").value().value, std::vector<uint8_t>{0xff});
  EXPECT_EQ(parseParameter("bytes:s.bin").value().file, "s.bin");
  for (const char *text : {"", "f32", "in:", "out:float16:4x8", "out:float16:4x:o", "fill:1:int8", "fill:300:int8:3",
                           "inout:a:b:c", "what:1", "out:bf16:4:o"})
    EXPECT_FALSE(parseParameter(text).isOk()) << text;
}

TEST(PtxRunCommand, Refused) {
  EXPECT_FALSE(parseCommand({}).isOk());
  EXPECT_FALSE(parseCommand({"a.ptx", "--grid", "1"}).isOk());
  EXPECT_TRUE(parseCommand({"--help"}).value().help);
  for (const auto &words : {std::initializer_list<std::string>{"--seed"},
                            {"--seed", "-1"},
                            {"--grid", "1,2,3,4"},
                            {"--grid", "4294967296"},
                            {"--threads", "0"},
                            {"second.ptx"},
                            {"--json", "-", "--list"},
                            {"--checks", ""},
                            {"--checks", "bounds,"},
                            {"--what", "1"}})
    EXPECT_FALSE(parse(words).isOk()) << *words.begin();
}

} // namespace
} // namespace kvq::ptxsim
