// SPDX-License-Identifier: Apache-2.0
//
// The reader of cubins over files that are put together here, of both ABI generations; tests/jit compares what it reads
// from real ones with ptxas.
#include "runtime/jit/cubin.h"

#include <gtest/gtest.h>

#include <cstring>
#include <elf.h>

using namespace kvq;

namespace {

void append(std::string &bytes, const void *data, size_t size) { bytes.append(static_cast<const char *>(data), size); }

std::string words(std::initializer_list<uint32_t> values) {
  std::string bytes;
  for (uint32_t value : values)
    append(bytes, &value, sizeof(value));
  return bytes;
}
std::string sized(uint8_t attribute, const std::string &value) {
  const uint8_t head[4] = {4, attribute, static_cast<uint8_t>(value.size()), 0};
  return std::string(reinterpret_cast<const char *>(head), 4) + value;
}
std::string small(uint8_t format, uint8_t attribute, uint16_t value) {
  const uint8_t head[4] = {format, attribute, static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8)};
  return {reinterpret_cast<const char *>(head), 4};
}

struct Section {
  std::string name;
  uint32_t type;
  std::string content;
  uint64_t size = 0; // of a section without bytes
  uint32_t link = 0;
  uint64_t flags = 0;
};

// A file as ptxas writes it: the sections, and their table at the end.
std::vector<uint8_t> makeFile(std::vector<Section> sections, uint8_t abi, uint32_t flags) {
  std::string names(1, '\0');
  sections.push_back({".shstrtab", SHT_STRTAB, "", 0, 0});
  for (const Section &section : sections)
    names += section.name + '\0';
  sections.back().content = names;
  Elf64_Ehdr header{};
  std::string bytes(sizeof(header), '\0');
  std::vector<Elf64_Shdr> table(sections.size());
  uint32_t name = 1;
  for (size_t i = 0; i < sections.size(); ++i) {
    table[i].sh_name = name;
    table[i].sh_type = sections[i].type;
    table[i].sh_offset = bytes.size();
    table[i].sh_size = sections[i].type == SHT_NOBITS ? sections[i].size : sections[i].content.size();
    table[i].sh_link = sections[i].link;
    table[i].sh_flags = sections[i].flags;
    bytes += sections[i].content;
    name += static_cast<uint32_t>(sections[i].name.size()) + 1;
  }
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_ABIVERSION] = abi;
  header.e_machine = 190;
  header.e_flags = flags;
  header.e_shoff = bytes.size();
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = static_cast<uint16_t>(table.size());
  header.e_shstrndx = static_cast<uint16_t>(table.size() - 1);
  for (const Elf64_Shdr &section : table)
    append(bytes, &section, sizeof(section));
  std::memcpy(bytes.data(), &header, sizeof(header));
  return {bytes.begin(), bytes.end()};
}

std::vector<Section> sample(uint64_t shared) {
  std::string symbols(sizeof(Elf64_Sym), '\0');
  Elf64_Sym symbol{};
  symbol.st_name = 1;
  append(symbols, &symbol, sizeof(symbol));
  symbol.st_name = 3;
  append(symbols, &symbol, sizeof(symbol));
  const std::string parameters = sized(0x17, words({0, 2u | 16u << 16, 20u << 18})) +
                                 sized(0x17, words({0, 1u | 8u << 16, 8u << 18})) +
                                 sized(0x17, words({0, 0, 8u << 18}));
  return {
      {".strtab", SHT_STRTAB, std::string("\0k\0helper\0", 10), 0, 0},
      {".symtab", SHT_SYMTAB, symbols, 0, 0} /* its names: section 0 */,
      {".nv.info", SHT_LOPROC,
       sized(0x2f, words({1, 62})) + sized(0x2f, words({2, 99})) + sized(0x11, words({1, 40})) +
           sized(0x12, words({1, 48})),
       0, 0},
      {".nv.info.k", SHT_LOPROC,
       small(1, 0x35, 0) + parameters + small(3, 0x19, 36) + small(2, 0x4c, 1) + sized(0x05, words({128, 2, 1})), 0, 0},
      {".text.k", SHT_PROGBITS, std::string(384, 'c'), 0, 0},
      {".nv.shared.k", SHT_NOBITS, "", shared, 0},
      {".nv.local.k", SHT_NOBITS, "", 24, 0},
  };
}

void expectSample(const std::vector<uint8_t> &file, int processor) {
  auto info = readCubin(file);
  ASSERT_TRUE(info.isOk()) << info.status().message();
  EXPECT_EQ(info.value().processor, processor);
  ASSERT_EQ(info.value().kernels.size(), 1u);
  const CubinKernel &kernel = *info.value().find("k");
  EXPECT_EQ(kernel.registers, 62);
  EXPECT_EQ(kernel.barriers, 1);
  EXPECT_EQ(kernel.frameBytes, 40);
  EXPECT_EQ(kernel.stackBytes, 48);
  EXPECT_EQ(kernel.sharedBytes, 512);
  EXPECT_EQ(kernel.localBytes, 24);
  EXPECT_EQ(kernel.codeBytes, 384);
  EXPECT_EQ(kernel.parameterBytes, 36);
  EXPECT_EQ(kernel.maxThreads[0], 128u);
  EXPECT_EQ(kernel.maxThreads[1], 2u);
  EXPECT_EQ(kernel.requiredThreads[0], 0u);
  ASSERT_EQ(kernel.parameters.size(), 3u);
  EXPECT_EQ(kernel.parameters[1].offset, 8);
  EXPECT_EQ(kernel.parameters[2].offset, 16);
  EXPECT_EQ(kernel.parameters[2].size, 20);
  EXPECT_EQ(info.value().find("helper"), nullptr);
}

TEST(Cubin, BothGenerationsAreRead) {
  expectSample(makeFile(sample(512), 7, 0x00500550), 80);        // CUDA 12
  expectSample(makeFile(sample(512), 8, 0x06005004), 80);        // CUDA 13
  expectSample(makeFile(sample(512 + 1024), 7, 0x005a055a), 90); // the system's part does not count
  expectSample(makeFile(sample(512 + 1024), 8, 0x06007802), 120);
}

TEST(Cubin, BarriersOfTheOldGenerationStandInFlags) {
  std::vector<Section> sections = sample(512);
  std::string &attributes = sections[3].content;
  attributes.erase(attributes.find(small(2, 0x4c, 1)), 4);
  sections[4].flags = SHF_ALLOC | SHF_EXECINSTR | 5u << 20;
  auto info = readCubin(makeFile(sections, 7, 0x00500550));
  ASSERT_TRUE(info.isOk()) << info.status().message();
  EXPECT_EQ(info.value().kernels[0].barriers, 5);
  EXPECT_EQ(readCubin(makeFile(sections, 8, 0x06005004)).value().kernels[0].barriers, 0);
}

TEST(Cubin, EveryTruncationIsRefused) {
  const std::vector<uint8_t> file = makeFile(sample(512), 8, 0x06005004);
  for (size_t size = 0; size < file.size(); ++size)
    EXPECT_EQ(readCubin(std::span(file).first(size)).status().code(), Code::Corrupt) << size;
}

TEST(Cubin, NoChangedByteBringsItDown) {
  const std::vector<uint8_t> file = makeFile(sample(512), 8, 0x06005004);
  int refused = 0;
  for (size_t at = 0; at < file.size(); ++at)
    for (uint8_t change : {0xff, 0x80, 0x10, 0x01}) {
      std::vector<uint8_t> changed = file;
      changed[at] ^= change;
      refused += !readCubin(changed).isOk();
    }
  EXPECT_GT(refused, 200);
}

TEST(Cubin, WhatIsWrongIsSaid) {
  const auto message = [](std::vector<Section> sections) {
    auto info = readCubin(makeFile(std::move(sections), 8, 0x06005004));
    EXPECT_EQ(info.status().code(), Code::Corrupt);
    return info.status().message();
  };
  const auto with = [](size_t section, const std::string &content) {
    std::vector<Section> sections = sample(512);
    sections[section].content = content;
    return sections;
  };
  EXPECT_EQ(message(with(2, sized(0x2f, words({9, 62})))),
            "the cubin cannot be read because an attribute names symbol 9 of 3; compile it again");
  EXPECT_NE(message(with(2, sized(0x2f, words({1})))).find("attribute 47 is too short"), std::string::npos);
  EXPECT_NE(message(with(3, "abc")).find("end in the middle"), std::string::npos);
  EXPECT_NE(message(with(3, sized(0x05, words({1})))).find("attribute 5 is too short"), std::string::npos);
  EXPECT_NE(message(with(3, sized(0x17, words({0, 9999, 0})))).find("a parameter 9999"), std::string::npos);
  EXPECT_NE(message(with(4, "")).find("kernel 'k' has no code"), std::string::npos);
  std::vector<Section> huge = sample(512);
  huge[6].size = ~uint64_t(0) / 4;
  EXPECT_NE(message(huge).find("memory of a size that no GPU has"), std::string::npos);
  std::vector<uint8_t> host = makeFile(sample(512), 8, 0);
  host[18] = EM_X86_64;
  EXPECT_NE(readCubin(host).status().message().find("machine 62"), std::string::npos);
}

TEST(Cubin, SpillsComeFromTheLog) {
  constexpr const char *kLog = "ptxas info    : Function properties for other\n"
                               "ptxas         .     8 bytes stack frame, 1 bytes spill stores, 2 bytes spill loads\n"
                               "ptxas info    : Function properties for k\n"
                               "    8 bytes stack frame, 24 bytes spill stores, 36 bytes spill loads\n";
  const auto spills = readSpills(kLog, "k");
  ASSERT_TRUE(spills);
  EXPECT_EQ(spills->stores, 24);
  EXPECT_EQ(spills->loads, 36);
  EXPECT_FALSE(readSpills(kLog, "absent"));
  EXPECT_FALSE(readSpills("", "k"));
}

} // namespace
