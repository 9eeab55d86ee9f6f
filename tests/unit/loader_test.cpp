// SPDX-License-Identifier: Apache-2.0
//
// The object loader: an object that a compiler made runs, and nothing that is done to its bytes brings the loader down.
#include "runtime/jit/object_loader.h"

#include <gtest/gtest.h>

#include <elf.h>
#include <fstream>
#include <iterator>
#include <vector>

using namespace kvq;

namespace {

std::vector<uint8_t> readFile(const char *path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(file), {}};
  EXPECT_FALSE(bytes.empty()) << path;
  return bytes;
}

TEST(ObjectLoader, RunsAnObjectWithConstantsDataAndCalls) {
  auto loaded = LoadedObject::load(readFile(FAKE_OBJECT), "fake_kernel");
  ASSERT_TRUE(loaded.isOk()) << loaded.status().message();
  int32_t out[8] = {};
  for (int64_t table : {0, 1})
    for (int64_t i = 0; i < 8; ++i) {
      const uint64_t args[2] = {reinterpret_cast<uint64_t>(out), static_cast<uint64_t>(table)};
      const int64_t id[3] = {i, 0, 0};
      ASSERT_EQ(loaded.value()->fn()(args, id), 0);
      const int32_t primes[] = {2, 3, 5, 7, 11, 13, 17, 19};
      EXPECT_EQ(out[i], 1000 + (table ? i * i : primes[i]));
    }
}

TEST(ObjectLoader, AMissingEntryIsNamed) {
  auto loaded = LoadedObject::load(readFile(FAKE_OBJECT), "other_kernel");
  ASSERT_FALSE(loaded.isOk());
  EXPECT_EQ(loaded.status().code(), Code::Corrupt);
  EXPECT_NE(loaded.status().message().find("other_kernel"), std::string::npos);
  // Data is not a function.
  EXPECT_FALSE(LoadedObject::load(readFile(FAKE_OBJECT), "fake_bias").isOk());
}

TEST(ObjectLoader, AnUndefinedSymbolIsRefused) {
  auto loaded = LoadedObject::load(readFile(FAKE_UNDEFINED), "fake_kernel");
  ASSERT_FALSE(loaded.isOk());
  EXPECT_NE(loaded.status().message().find("does not define"), std::string::npos) << loaded.status().message();
}

TEST(ObjectLoader, EveryTruncationIsRefused) {
  const std::vector<uint8_t> object = readFile(FAKE_OBJECT);
  // The section table comes last, so no proper prefix is whole.
  for (size_t bytes = 0; bytes < object.size(); ++bytes)
    EXPECT_FALSE(LoadedObject::load(std::span(object).first(bytes), "fake_kernel").isOk()) << bytes;
}

// Not every change can be found (code is any bytes; that is what the store's checksum is for), but none may read or
// write outside of the object and the image. Sanitizers watch this.
TEST(ObjectLoader, NoChangedByteBringsItDown) {
  const std::vector<uint8_t> object = readFile(FAKE_OBJECT);
  int refused = 0;
  for (size_t at = 0; at < object.size(); ++at)
    for (uint8_t change : {0xff, 0x80, 0x01}) {
      std::vector<uint8_t> changed = object;
      changed[at] ^= change;
      refused += !LoadedObject::load(changed, "fake_kernel").isOk();
    }
  EXPECT_GT(refused, 100);
}

template <typename Change> Status loadChangedSections(const Change &change) {
  std::vector<uint8_t> object = readFile(FAKE_OBJECT);
  auto *header = reinterpret_cast<Elf64_Ehdr *>(object.data());
  auto *sections = reinterpret_cast<Elf64_Shdr *>(object.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i)
    change(*header, sections[i], object);
  auto loaded = LoadedObject::load(object, "fake_kernel");
  return loaded.isOk() ? Status::ok() : loaded.status();
}

TEST(ObjectLoader, HostileSizesAreRefused) {
  const auto huge = [](Elf64_Ehdr &, Elf64_Shdr &section, std::vector<uint8_t> &) {
    if (section.sh_flags & SHF_ALLOC)
      section.sh_type = SHT_NOBITS, section.sh_size = ~uint64_t(0) / 4;
  };
  EXPECT_EQ(loadChangedSections(huge).code(), Code::Corrupt);
  const auto align = [](Elf64_Ehdr &, Elf64_Shdr &section, std::vector<uint8_t> &) {
    if (section.sh_flags & SHF_ALLOC)
      section.sh_addralign = 24;
  };
  EXPECT_EQ(loadChangedSections(align).code(), Code::Corrupt);
  const auto wrap = [](Elf64_Ehdr &, Elf64_Shdr &section, std::vector<uint8_t> &) {
    if (section.sh_type == SHT_PROGBITS)
      section.sh_offset = ~uint64_t(0) - 15, section.sh_size = 32;
  };
  EXPECT_EQ(loadChangedSections(wrap).code(), Code::Corrupt);
  const auto farRelocation = [](Elf64_Ehdr &, Elf64_Shdr &section, std::vector<uint8_t> &object) {
    for (uint64_t at = 0; section.sh_type == SHT_RELA && at < section.sh_size; at += sizeof(Elf64_Rela))
      reinterpret_cast<Elf64_Rela *>(object.data() + section.sh_offset + at)->r_offset = ~uint64_t(0) - 3;
  };
  EXPECT_EQ(loadChangedSections(farRelocation).code(), Code::Corrupt);
}

} // namespace
