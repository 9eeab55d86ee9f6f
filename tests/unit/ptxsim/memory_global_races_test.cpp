// SPDX-License-Identifier: Apache-2.0
//
// Races between blocks: single cases, every order of the blocks of a small program, and random programs against a plain
// model.
#include "memory_race_model.h"
#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/memory/global_races.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <thread>

using namespace kvq::ptxsim;

namespace {

constexpr auto kRead = AccessKind::Read, kWrite = AccessKind::Write, kAtomic = AccessKind::Atomic;

struct Races {
  GlobalRaces races{Options(), 1};
  Allocation allocation;
  std::vector<Block> blocks;
  explicit Races(size_t count, int64_t bytes = 8192) : blocks(count) {
    allocation.base = uint64_t(0x7000) << 32;
    allocation.size = bytes;
    for (size_t i = 0; i < count; ++i)
      blocks[i].number = i;
  }
  bool access(size_t block, AccessKind kind, uint64_t offset = 0, uint64_t bytes = 4) {
    return races.range(blocks[block], allocation, kind, offset, bytes).lanes != 0;
  }
  // fence, then an atomic on X: release and acquire.
  void fencedAtomic(size_t block, uint64_t x = 100) {
    races.fence(blocks[block]);
    races.publish(blocks[block], x, false, false);
    races.observe(blocks[block], x, true);
  }
};

TEST(GlobalRaces, BlocksWriteApart) {
  Races r(3);
  EXPECT_FALSE(r.access(0, kWrite, 0));
  EXPECT_FALSE(r.access(1, kWrite, 4));
  EXPECT_FALSE(r.access(2, kRead, 8));
  EXPECT_TRUE(r.access(2, kRead, 0));
  EXPECT_TRUE(r.access(2, kWrite, 4));
}

TEST(GlobalRaces, OneOfManyReadersIsEnough) {
  Races r(5);
  for (size_t block = 0; block < 4; ++block)
    EXPECT_FALSE(r.access(block, kRead));
  EXPECT_FALSE(r.access(4, kRead));
  EXPECT_TRUE(r.access(4, kWrite));
}

TEST(GlobalRaces, BytesAndWordsInOnePage) {
  Races r(3);
  EXPECT_FALSE(r.access(0, kWrite, 0, 4));
  EXPECT_FALSE(r.access(1, kWrite, 5, 1));
  EXPECT_FALSE(r.access(0, kWrite, 4, 1));
  EXPECT_TRUE(r.access(2, kRead, 4, 4));
  EXPECT_FALSE(r.access(2, kWrite, 4092, 8)); // over the end of a page
  EXPECT_TRUE(r.access(1, kRead, 4096, 4));
}

TEST(GlobalRaces, SplitK) {
  for (const bool fenced : {true, false}) {
    Races r(4);
    bool race = false;
    for (size_t block = 0; block < 4; ++block) {
      race |= r.access(block, kWrite, block * 4);
      if (fenced)
        r.races.fence(r.blocks[block]);
      race |= r.access(block, kAtomic, 100);
      r.races.publish(r.blocks[block], 100, false, false);
      r.races.observe(r.blocks[block], 100, true);
    }
    for (size_t other = 0; other < 4; ++other)
      race |= r.access(3, kRead, other * 4);
    EXPECT_EQ(race, !fenced);
  }
}

TEST(GlobalRaces, WhatComesBehindTheFenceIsNotPublished) {
  Races r(2);
  r.access(0, kWrite, 0);
  r.races.fence(r.blocks[0]);
  r.access(0, kWrite, 4);
  r.races.publish(r.blocks[0], 100, false, false);
  r.races.observe(r.blocks[1], 100, true);
  EXPECT_FALSE(r.access(1, kRead, 0));
  EXPECT_TRUE(r.access(1, kRead, 4));
}

TEST(GlobalRaces, OrderIsTransitive) {
  Races r(3);
  r.access(0, kWrite, 0);
  r.fencedAtomic(0, 100);
  r.races.observe(r.blocks[1], 100, true);
  r.fencedAtomic(1, 200);
  r.races.observe(r.blocks[2], 200, true);
  EXPECT_FALSE(r.access(2, kRead, 0));
  EXPECT_FALSE(r.access(2, kWrite, 0));
}

TEST(GlobalRaces, AStoreReplacesWhatWasPublished) {
  Races r(3);
  r.access(0, kWrite, 0);
  r.races.publish(r.blocks[0], 100, true, true);  // st.release
  r.races.publish(r.blocks[1], 100, false, true); // a volatile store of another block
  r.races.observe(r.blocks[2], 100, true);
  EXPECT_TRUE(r.access(2, kRead, 0));
}

TEST(GlobalRaces, AnOtherLaunchKnowsNothing) {
  Races r(2);
  r.access(0, kWrite);
  GlobalRaces next(Options(), 1);
  EXPECT_EQ(next.range(r.blocks[1], r.allocation, kRead, 0, 4).lanes, 0u);
  EXPECT_NE(next.range(r.blocks[0], r.allocation, kWrite, 0, 4).lanes, 0u);
}

// Every block: write its word, fence or not, atomic; the last one reads them all. Whatever the order, the same answer.
TEST(GlobalRaces, AnyOrderOfBlocks) {
  std::vector<size_t> order = {0, 1, 2, 3};
  do {
    for (const bool fenced : {true, false}) {
      Races r(4);
      bool race = false;
      for (size_t i = 0; i < 4; ++i) {
        race |= r.access(order[i], kWrite, order[i] * 4);
        if (fenced)
          r.races.fence(r.blocks[order[i]]);
        r.races.publish(r.blocks[order[i]], 100, false, false);
        r.races.observe(r.blocks[order[i]], 100, true);
      }
      for (size_t other = 0; other < 4; ++other)
        race |= r.access(order[3], kRead, other * 4);
      ASSERT_EQ(race, !fenced);
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

// Which pairs of blocks conflict does not depend on the order: a race is found in any of them or in none.
TEST(GlobalRaces, AnyOrderOfPlainAccesses) {
  Random random(5);
  for (int program = 0; program < 300; ++program) {
    std::vector<std::vector<std::pair<AccessKind, uint64_t>>> blocks(4);
    for (auto &list : blocks)
      for (int i = 0; i < 3; ++i)
        list.push_back({AccessKind(random.below(3)), random.below(12) * 4});
    std::vector<size_t> order = {0, 1, 2, 3};
    int answers = 0, races = 0;
    do {
      Races r(4);
      bool race = false;
      for (size_t block : order)
        for (const auto &[kind, offset] : blocks[block])
          race |= r.access(block, kind, offset);
      ++answers;
      races += race;
    } while (std::next_permutation(order.begin(), order.end()));
    ASSERT_TRUE(races == 0 || races == answers) << "program " << program;
  }
}

// Fences, strong accesses of two addresses, plain accesses, by blocks in turn.
void compareWithModel(uint64_t seed) {
  Random random(seed);
  Races r(4, 64);
  RaceModel model(4, 64);
  std::map<size_t, RaceModel::Clock> fenced, pending;
  std::map<uint64_t, RaceModel::Clock> published;
  for (int step = 0; step < 300; ++step) {
    const size_t block = random.below(4);
    const uint64_t x = 100 + random.below(2) * 4;
    switch (random.below(12)) {
    case 0:
      r.races.fence(r.blocks[block]);
      model.learn(block, pending[block]);
      pending[block].clear();
      fenced[block] = model.snapshot(block);
      model.advance(block);
      break;
    case 1: { // an atomic or a strong store, perhaps a release
      const bool isRelease = random.below(2), replaces = random.below(4) == 0;
      r.races.publish(r.blocks[block], x, isRelease, replaces);
      if (replaces)
        published[x].clear();
      RaceModel::join(published[x], isRelease ? model.snapshot(block) : fenced[block]);
      if (isRelease)
        model.advance(block);
      break;
    }
    case 2: {
      const bool atOnce = random.below(2);
      r.races.observe(r.blocks[block], x, atOnce);
      if (atOnce)
        model.learn(block, published[x]);
      else
        RaceModel::join(pending[block], published[x]);
      break;
    }
    default: {
      const uint32_t bytes = 1u << random.below(4), offset = random.below(64 / bytes) * bytes;
      const auto kind = AccessKind(random.below(3));
      const bool expected = model.wouldRace(block, kind, offset, bytes);
      if (expected && random.below(20)) // mostly programs without races, which are longer
        break;
      model.access(block, kind, offset, bytes);
      const bool found = r.access(block, kind, offset, bytes);
      ASSERT_EQ(found, expected) << "seed " << seed << ", step " << step;
      if (expected) // the check may forget what a race has shown already
        return;
    }
    }
  }
}

TEST(GlobalRacesRandom, AgreeWithThePlainModel) {
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    compareWithModel(seed);
    if (testing::Test::HasFatalFailure())
      return;
  }
}

TEST(GlobalRaces, SeveralWorkers) {
  Races r(64, 1 << 16);
  GlobalRaces races(Options(), 4);
  std::atomic<int> found{0};
  std::vector<std::thread> workers;
  for (size_t worker = 0; worker < 4; ++worker)
    workers.emplace_back([&, worker] {
      for (size_t block = worker; block < 64; block += 4) {
        found += races.range(r.blocks[block], r.allocation, kRead, 0, 8192).lanes != 0; // all read this
        found += races.range(r.blocks[block], r.allocation, kWrite, 8192 + block * 128, 128).lanes != 0;
      }
    });
  for (std::thread &worker : workers)
    worker.join();
  EXPECT_EQ(found, 0);
  EXPECT_NE(races.range(r.blocks[0], r.allocation, kWrite, 100, 4).lanes, 0u);
  EXPECT_NE(races.range(r.blocks[0], r.allocation, kRead, 8192 + 128, 4).lanes, 0u);
}

} // namespace
