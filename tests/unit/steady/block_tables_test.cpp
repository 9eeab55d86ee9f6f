// SPDX-License-Identifier: Apache-2.0
//
// The block tables: entries survive all moves, which are few, and the array stays where it is.
#include "runtime/cache/block_tables.h"

#include <gtest/gtest.h>

#include <random>

using namespace kvq;

namespace {

std::vector<int32_t> entries(const BlockTables &tables, int slot) {
  const auto table = tables.of(slot);
  return {table.begin(), table.end()};
}

// As a step does it: room, an entry behind the end, and then it belongs to the table.
void push(BlockTables &tables, int slot, int32_t block) {
  ASSERT_TRUE(tables.reserve(slot, 1).isOk());
  const auto size = static_cast<int64_t>(tables.of(slot).size());
  tables.at(slot, size) = block;
  tables.resize(slot, size + 1);
}

TEST(BlockTables, MoveEachEntryAFewTimes) {
  constexpr int kSlots = 3, kEach = 5000;
  BlockTables tables(kSlots * kEach, kSlots);
  for (int i = 0; i < kEach; ++i)
    for (int slot = 0; slot < kSlots; ++slot)
      push(tables, slot, slot * kEach + i);
  for (int slot = 0; slot < kSlots; ++slot) {
    const auto table = tables.of(slot);
    ASSERT_EQ(table.size(), size_t(kEach));
    for (int i = 0; i < kEach; ++i)
      ASSERT_EQ(table[i], slot * kEach + i);
  }
  EXPECT_LE(tables.moved(), 3 * kSlots * kEach);
}

TEST(BlockTables, UnderAWindowMoveEachEntryAFewTimes) {
  constexpr int kSlots = 4, kWindow = 40, kSteps = 20000;
  BlockTables tables(kSlots * (kWindow + 1), kSlots);
  const int32_t *const data = tables.data();
  for (int i = 0; i < kSteps; ++i)
    for (int slot = 0; slot < kSlots; ++slot) {
      push(tables, slot, i);
      if (i >= kWindow)
        tables.dropFront(slot, 1);
    }
  EXPECT_EQ(tables.of(1).size(), size_t(kWindow));
  EXPECT_EQ(tables.of(1).front(), kSteps - kWindow);
  EXPECT_EQ(tables.of(1).back(), kSteps - 1);
  EXPECT_LE(tables.moved(), 3 * kSlots * kSteps);
  EXPECT_EQ(tables.data(), data);
}

// Against plain vectors, the reserved room of an open step included.
TEST(BlockTables, RandomChangesMatchAModel) {
  constexpr int kSlots = 6, kBlocks = 300;
  BlockTables tables(kBlocks, kSlots);
  const int32_t *const data = tables.data();
  std::vector<std::vector<int32_t>> model(kSlots);
  std::mt19937 random(11);
  const auto upTo = [&](int64_t most) { return std::uniform_int_distribution<int64_t>(0, most)(random); };
  int64_t used = 0;
  for (int round = 0; round < 20000; ++round) {
    const int slot = static_cast<int>(upTo(kSlots - 1)), other = static_cast<int>(upTo(kSlots - 1));
    auto &mine = model[slot];
    const int64_t size = static_cast<int64_t>(mine.size());
    switch (upTo(3)) {
    case 0:
    case 1: { // a step of two sequences: all rooms first, then the entries
      const int64_t count = std::min<int64_t>(upTo(8), (kBlocks - used) / 2);
      ASSERT_TRUE(tables.reserve(slot, count).isOk());
      if (other != slot)
        ASSERT_TRUE(tables.reserve(other, count).isOk());
      for (int part : {slot, other}) {
        if (part == other && other == slot)
          break;
        const auto begin = static_cast<int64_t>(model[part].size());
        for (int64_t i = 0; i < count; ++i) {
          model[part].push_back(static_cast<int32_t>(random() >> 1));
          tables.at(part, begin + i) = model[part].back();
        }
        tables.resize(part, begin + count);
        used += count;
      }
      break;
    }
    case 2:
      mine.resize(upTo(size));
      tables.resize(slot, static_cast<int64_t>(mine.size()));
      used -= size - static_cast<int64_t>(mine.size());
      break;
    case 3: {
      const int64_t count = upTo(std::min<int64_t>(size, 3));
      mine.erase(mine.begin(), mine.begin() + count);
      tables.dropFront(slot, count);
      used -= count;
    }
    }
    for (int i = 0; i < kSlots; ++i)
      ASSERT_EQ(entries(tables, i), model[i]) << round;
  }
  EXPECT_EQ(tables.data(), data); // no two sequences share a block: the first memory is enough
}

TEST(BlockTables, GrowWhereSequencesShareBlocks) {
  BlockTables tables(10, 2);
  for (int i = 0; i < 1000; ++i)
    push(tables, i % 2, i / 2 % 10);
  tables.grow(2000, 5);
  push(tables, 4, 77);
  EXPECT_EQ(entries(tables, 4), std::vector<int32_t>{77});
  EXPECT_EQ(tables.of(0).size(), 500u);
  EXPECT_EQ(tables.of(1)[499], 499 % 10);
}

TEST(BlockTables, LengthsBeyondTheIndexAreRefusedAndChangeNothing) {
  BlockTables tables(10, 2);
  push(tables, 0, 5);
  const Status status = tables.reserve(1, int64_t(1) << 31);
  EXPECT_EQ(status.code(), Code::ResourceExhausted);
  EXPECT_NE(status.message().find("32 bits"), std::string::npos) << status.message();
  push(tables, 1, 6);
  EXPECT_EQ(entries(tables, 0), std::vector<int32_t>{5});
  EXPECT_EQ(entries(tables, 1), std::vector<int32_t>{6});
}

} // namespace
