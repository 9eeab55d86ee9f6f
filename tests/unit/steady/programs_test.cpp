// SPDX-License-Identifier: Apache-2.0
//
// The list of attention's programs: every key once, the longest first, as many as there should be, and the same for a
// sequence whatever else is in the batch.
#include "runtime/cache/planner.h"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

using namespace kvq;

namespace {

CacheConfig configOf(int64_t window = 0) {
  CacheConfig config;
  config.format = parseCache("k4c32-v4t32/w128,block").value();
  config.qHeads = 4, config.kvHeads = 2;
  config.sequences = 16;
  config.attentionWindow = window;
  return config;
}

StepPart partOf(const CacheConfig &config, int sequence, int64_t length, int newTokens = 1) {
  StepPart part;
  part.sequence = sequence;
  part.begin = length;
  part.frontier = bodyFrontier(config.format, length);
  part.newTokens = newTokens;
  return part;
}

Chunk planned(const CacheConfig &config, const std::vector<StepPart> &parts, int stride = 1) {
  const Geometry geometry(config);
  const std::vector<int32_t> table(1 << 16);
  Chunk chunk;
  Planner planner(config, geometry, stride);
  planner.plan(parts, table.data(), 0, chunk);
  return chunk;
}

int64_t keys(const kvq_attend_item &item) {
  return item.packed_end - item.packed_begin + item.raw_end - item.raw_begin;
}

TEST(Programs, CoverEveryKeyOnce) {
  const CacheConfig config = configOf();
  for (int64_t length : {0, 1, 127, 1024, 1200, 40000, 65536, 65700, 300000, 1 << 20}) {
    const Chunk chunk = planned(config, {partOf(config, 0, length)});
    std::map<std::tuple<int, int>, std::pair<int, int>> packed, raw; // by head and begin
    int64_t sum = 0;
    for (const kvq_attend_item &item : chunk.attend[0]) {
      sum += keys(item);
      if (item.packed_end > item.packed_begin)
        EXPECT_TRUE(packed.emplace(std::tuple(item.kv_head, item.packed_begin), std::pair(item.packed_end, 0)).second);
      EXPECT_LT(item.split, chunk.splits[0]);
    }
    EXPECT_EQ(sum, config.kvHeads * (length + 1)) << length;
    for (int head = 0; head < config.kvHeads; ++head) {
      int at = 0;
      for (auto found = packed.find({head, at}); found != packed.end(); found = packed.find({head, at}))
        at = found->second.first;
      EXPECT_EQ(at, partOf(config, 0, length + 1).frontier.k) << length;
    }
  }
}

TEST(Programs, BringInWhatTheirThreadReadsNext) {
  const CacheConfig config = configOf();
  std::vector<StepPart> parts = {partOf(config, 0, 5000), partOf(config, 1, 100), partOf(config, 2, 40000)};
  parts[1].tableBase = 50, parts[2].tableBase = 100;
  for (int stride : {1, 2, 7}) {
    const std::vector<kvq_attend_item> items = planned(config, parts, stride).attend[0];
    ASSERT_GT(items.size(), 20u);
    int others = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      const kvq_attend_item &item = items[i], &follower = items[std::min(i + stride, items.size() - 1)];
      // A program of tail tokens alone has no page.
      const bool other = i + stride < items.size() && follower.packed_begin < follower.packed_end;
      const kvq_attend_item &next = other ? follower : item;
      EXPECT_EQ(item.next_entry, next.table_base + next.packed_begin / config.pageTokens) << i;
      EXPECT_EQ(item.next_head, next.kv_head) << i;
      others += other;
    }
    EXPECT_GT(others, 10);
  }
}

TEST(Programs, AreEnoughForManyThreadsAndNoMore) {
  struct Case {
    int kvHeads, length, least, most; // splits
  };
  for (const Case &one : {Case{2, 900, 1, 1},
                          {2, 32768, 32, 32},
                          {2, 131072, 64, 64},
                          {2, 131500, 32, 33},
                          {2, 1 << 20, 32, 64},
                          {8, 16384, 16, 16},
                          {8, 32768, 16, 16},
                          {8, 131072, 16, 16},
                          {32, 131072, 16, 16},
                          {3, 131072, 22, 42}}) {
    CacheConfig config = configOf();
    config.qHeads = config.kvHeads = one.kvHeads;
    const Chunk chunk = planned(config, {partOf(config, 0, one.length)});
    EXPECT_GE(chunk.maxSplits, one.least) << one.length << " tokens, " << one.kvHeads << " heads";
    EXPECT_LE(chunk.maxSplits, one.most) << one.length << " tokens, " << one.kvHeads << " heads";
    EXPECT_EQ(chunk.attend[0].size(), size_t(chunk.maxSplits) * config.kvHeads);
  }
}

TEST(Programs, AreAsThePolicySays) {
  struct Case {
    SplitPolicy policy;
    int kvHeads, length, splits;
  };
  for (const Case &one : {Case{{1024, 128, 16, 64}, 2, 32768, 32},
                          {{256, 128, 16, 64}, 2, 16000, 62},
                          {{256, 128, 16, 64}, 2, 17000, 33}, // of 512 tokens, as 64 of 256 do not do
                          {{256, 8, 1, 64}, 2, 32768, 4},
                          {{256, 8, 1, 64}, 8, 32768, 1},
                          {{256, 8, 1, 2}, 1, 32768, 2},
                          {{300, 128, 512, 512}, 2, 2560 + 128, 10}, // of four pages
                          {{16, 128, 512, 512}, 2, 1024 + 128, 19},  // of a page at least; the tail has three of them
                          {{1 << 20, 128, 512, 512}, 2, 100000, 1}}) {
    CacheConfig config = configOf();
    config.qHeads = config.kvHeads = one.kvHeads;
    config.splits = one.policy;
    const Chunk chunk = planned(config, {partOf(config, 0, one.length)});
    EXPECT_EQ(chunk.maxSplits, one.splits) << toText(one.policy) << ", " << one.length << " tokens";
    EXPECT_EQ(chunk.attend[0].size(), size_t(one.splits) * one.kvHeads);
  }
}

TEST(Programs, HaveTheKernelWithTheFewestRowsThatHoldThem) {
  for (int ratio : {1, 3, 4, 12, 64}) {
    const AttendRows kernels(ratio);
    ASSERT_LE(kernels.size(), AttendRows::kMost);
    EXPECT_EQ(kernels.rows(0), ratio);
    EXPECT_EQ(kernels.most(), std::max(32, ratio));
    for (int rows = 1; rows <= kernels.most(); ++rows) {
      const int kernel = kernels.kernelFor(rows);
      EXPECT_GE(kernels.rows(kernel), rows);
      EXPECT_TRUE(kernel == 0 || kernels.rows(kernel - 1) < rows);
    }
    for (int rows = ratio; rows <= 8; rows += ratio) // no row too many where it would cost most
      EXPECT_EQ(kernels.rows(kernels.kernelFor(rows)), rows);
  }
  CacheConfig config = configOf();
  config.qHeads = 4 * config.kvHeads;
  for (const auto &[newTokens, rows, count] :
       {std::tuple(1, 4, 4), {2, 8, 8}, {3, 12, 12}, {5, 20, 20}, {7, 28, 28}, {8, 32, 32}, {20, 16, 16}}) {
    const Chunk chunk = planned(config, {partOf(config, 0, 5000, newTokens)});
    const auto &list = chunk.attend[AttendRows(4).kernelFor(rows)];
    ASSERT_FALSE(list.empty()) << newTokens;
    EXPECT_EQ(list.front().row_count, count) << newTokens;
  }
}

TEST(Programs, OfAcceleratorsHaveAsManyRowsAsRegistersHold) {
  CacheConfig config = configOf();
  config.onAccelerator = true;
  struct Case {
    ElementType type;
    Accuracy accuracy;
    int dk, dv, most;
  };
  constexpr ElementType f16 = ElementType::F16, bf16 = ElementType::BF16, f32 = ElementType::F32;
  constexpr Accuracy exact = Accuracy::Exact, full = Accuracy::Full;
  for (const auto &[type, accuracy, dk, dv, most] : {
           Case{f16, exact, 64, 64, 16},
           {bf16, exact, 128, 128, 16},
           {f16, exact, 64, 144, 8},
           {f16, exact, 192, 128, 8},
           {f16, exact, 256, 256, 8},
           {f16, full, 64, 64, 16},
           {f16, full, 64, 80, 8},
           {f16, full, 128, 128, 8}, // a row takes twice as much
           {f32, exact, 64, 64, 16},
           {f32, exact, 80, 64, 8},
           {f32, full, 128, 128, 8},
       }) {
    config.type = type, config.accuracy = accuracy, config.dk = dk, config.dv = dv;
    const AttendRows kernels(config);
    EXPECT_EQ(kernels.rows(0), 8);
    EXPECT_EQ(kernels.most(), most) << toText(type) << " " << toText(accuracy) << " " << dk << " " << dv;
  }
  config.qHeads = 16 * config.kvHeads; // two programs of the large heads
  const Chunk chunk = planned(config, {partOf(config, 0, 100)});
  ASSERT_EQ(chunk.attend[0].size(), size_t(2) * config.kvHeads);
  for (const kvq_attend_item &item : chunk.attend[0])
    EXPECT_EQ(item.row_count, 8);
}

TEST(Programs, TheLongestComeFirst) {
  const CacheConfig config = configOf();
  const Chunk chunk = planned(config, {partOf(config, 0, 100), partOf(config, 1, 9000), partOf(config, 2, 2500)});
  ASSERT_GT(chunk.attend[0].size(), 20u);
  const auto cost = [](const kvq_attend_item &item) {
    return item.packed_end - item.packed_begin + 4 * (item.raw_end - item.raw_begin);
  };
  for (size_t i = 1; i < chunk.attend[0].size(); ++i)
    EXPECT_GE(cost(chunk.attend[0][i - 1]), cost(chunk.attend[0][i])) << i;
}

TEST(Programs, OfASequenceAreTheSameInAnyBatch) {
  for (int64_t window : {0, 300}) {
    const CacheConfig config = configOf(window);
    const auto programs = [](const Chunk &chunk, int slot) {
      std::map<std::tuple<int, int, int>, std::array<int, 5>> found;
      for (const auto &list : chunk.attend)
        for (const kvq_attend_item &item : list)
          if (item.tail_slot == slot)
            found[{item.kv_head, item.row_begin, item.split}] = {item.packed_begin, item.packed_end, item.raw_begin,
                                                                 item.raw_end, item.v_raw_begin};
      return found;
    };
    for (int newTokens : {1, 20}) {
      const StepPart part = partOf(config, 3, 70000, newTokens);
      const Chunk alone = planned(config, {part});
      const Chunk among = planned(config, {partOf(config, 1, 500), part, partOf(config, 2, 9000, 32)});
      EXPECT_FALSE(programs(alone, 3).empty());
      EXPECT_EQ(programs(alone, 3), programs(among, 3));
    }
  }
}

} // namespace
