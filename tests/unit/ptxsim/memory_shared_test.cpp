// SPDX-License-Identifier: Apache-2.0
//
// The race check of shared memory: single cases, and random programs against a plain model.
#include "memory_race_model.h"
#include "runtime/ptxsim/exec/random.h"
#include "runtime/ptxsim/memory/lane_races.h"
#include "runtime/ptxsim/memory/shared_memory.h"

#include <gtest/gtest.h>

using namespace kvq::ptxsim;

namespace {

constexpr auto kRead = AccessKind::Read, kWrite = AccessKind::Write, kAtomic = AccessKind::Atomic;

struct SharedRaces : testing::Test {
  SharedMemory shared;
  Options options;
  void SetUp() override { shared.reset(4096, 0xf, options); }
  int access(int warp, AccessKind kind, uint32_t offset = 0, uint32_t bytes = 4) {
    return shared.range(warp, kind, offset, bytes).warp;
  }
};

TEST_F(SharedRaces, WriteAndReadNeedABarrier) {
  EXPECT_EQ(access(0, kWrite), -1);
  EXPECT_EQ(access(0, kRead), -1);
  EXPECT_EQ(access(1, kRead), 0);
  shared.barrier(0xf);
  EXPECT_EQ(access(1, kRead), -1);
}

TEST_F(SharedRaces, AWriteMeetsEveryReader) {
  for (int reader = 0; reader < 4; ++reader) {
    shared.barrier(0xf);
    for (int warp = 0; warp < 4; ++warp)
      if (warp != 3)
        EXPECT_EQ(access(warp, kRead), -1);
    SharedMemory::Token token; // all but one of the readers are ordered before the write
    for (int warp = 0; warp < 3; ++warp)
      if (warp != reader)
        shared.release(warp, token);
    shared.acquire(3, token);
    EXPECT_EQ(access(3, kWrite), reader < 3 ? reader : -1);
  }
}

TEST_F(SharedRaces, BytesOfOneWordAreApart) {
  EXPECT_EQ(access(0, kWrite, 0, 1), -1);
  EXPECT_EQ(access(1, kWrite, 1, 1), -1);
  EXPECT_EQ(access(2, kRead, 2, 2), -1);
  EXPECT_EQ(access(2, kRead, 0, 4), 0);
}

TEST_F(SharedRaces, ABarrierOfSomeWarpsOrdersOnlyThem) {
  access(0, kWrite);
  shared.barrier(0x3);
  EXPECT_EQ(access(1, kRead), -1);
  EXPECT_EQ(access(2, kRead), 0);
}

TEST_F(SharedRaces, WhatComesAfterAReleaseIsNotReleased) {
  SharedMemory::Token token;
  access(0, kWrite, 0);
  shared.release(0, token);
  access(0, kWrite, 4);
  shared.acquire(1, token);
  EXPECT_EQ(access(1, kRead, 0), -1);
  EXPECT_EQ(access(1, kRead, 4), 0);
}

TEST_F(SharedRaces, ATokenOfAnOlderEpochOrdersNothing) {
  SharedMemory::Token token;
  for (int i = 0; i < 5; ++i)
    shared.release(0, token);
  shared.barrier(0xf);
  access(0, kWrite);
  shared.acquire(1, token);
  EXPECT_EQ(access(1, kRead), 0);
}

TEST_F(SharedRaces, AtomicsDoNotRaceWithEachOther) {
  EXPECT_EQ(access(0, kAtomic), -1);
  EXPECT_EQ(access(1, kAtomic), -1);
  EXPECT_EQ(access(2, kRead), 1);
}

TEST_F(SharedRaces, AFenceAndAFlagOrder) {
  access(0, kWrite, 0);
  shared.fence(0);
  access(0, kWrite, 4); // behind the fence
  shared.publish(0, 100, false, false);
  shared.observe(1, 100, true);
  EXPECT_EQ(access(1, kRead, 0), -1);
  EXPECT_EQ(access(1, kRead, 4), 0);
  // A volatile load acquires with the next fence only.
  shared.observe(2, 100, false);
  EXPECT_EQ(access(2, kRead, 0), 0);
  shared.observe(3, 100, false);
  shared.fence(3);
  EXPECT_EQ(access(3, kRead, 0), -1);
}

TEST_F(SharedRaces, AFlagWithoutAFenceDoesNot) {
  access(0, kWrite, 0);
  shared.publish(0, 100, false, false);
  shared.observe(1, 100, true);
  EXPECT_EQ(access(1, kRead, 0), 0);
}

TEST_F(SharedRaces, TheNextBlockStartsClean) {
  access(0, kWrite);
  shared.data()[0] = 1;
  shared.state()[0] = SharedMemory::kWritten;
  shared.reset(64, 0x3, options);
  EXPECT_EQ(shared.state()[0], 0);
  EXPECT_EQ(shared.size(), 64);
  EXPECT_EQ(access(1, kRead), -1);
}

TEST_F(SharedRaces, CopiesAreInFlightUntilTheyEnd) {
  shared.beginCopy(16, 16);
  EXPECT_TRUE(shared.anyInFlight());
  EXPECT_EQ(shared.state()[16] & SharedMemory::kInFlight, SharedMemory::kInFlight);
  shared.endCopy(16, 16);
  EXPECT_FALSE(shared.anyInFlight());
  EXPECT_EQ(shared.state()[31], SharedMemory::kWritten);
}

TEST(LaneRaces, NeedAWarpSync) {
  LaneRaces races;
  races.reset(64);
  races.begin();
  EXPECT_EQ(races.access(0, 0, kWrite, 0, 4), -1);
  EXPECT_EQ(races.access(0, 1, kWrite, 4, 4), -1);
  races.begin();
  EXPECT_EQ(races.access(0, 1, kRead, 0, 4), 0);
  races.sync(0);
  races.begin();
  EXPECT_EQ(races.access(0, 1, kRead, 0, 4), -1);
  races.begin();
  EXPECT_EQ(races.access(0, 0, kWrite, 0, 4), 1);
}

// A random program of four warps over 16 bytes.
void compareWithModel(uint64_t seed) {
  Random random(seed);
  SharedMemory shared;
  shared.reset(16, 0xf, Options());
  RaceModel model(4, 16);
  SharedMemory::Token tokens[2];
  RaceModel::Clock clocks[2];
  for (int step = 0; step < 400; ++step) {
    const int warp = int(random.below(4));
    const uint32_t what = random.below(40), which = random.below(2);
    if (what == 0) { // a barrier of some warps, or of all
      const uint32_t warps = random.below(3) ? 1 + random.below(15) : 15;
      shared.barrier(warps);
      RaceModel::Clock all;
      for (size_t w = 0; w < 4; ++w)
        if (warps >> w & 1)
          RaceModel::join(all, model.snapshot(w));
      for (size_t w = 0; w < 4; ++w)
        if (warps >> w & 1) {
          model.learn(w, all);
          model.advance(w);
        }
    } else if (what < 3) {
      shared.release(warp, tokens[which]);
      RaceModel::join(clocks[which], model.snapshot(size_t(warp)));
      model.advance(size_t(warp));
    } else if (what < 5) {
      shared.acquire(warp, tokens[which]);
      model.learn(size_t(warp), clocks[which]);
    } else {
      const uint32_t bytes = 1u << random.below(4), offset = random.below(16 / bytes) * bytes;
      const auto kind = AccessKind(random.below(3));
      const bool expected = model.wouldRace(size_t(warp), kind, offset, bytes);
      if (expected && random.below(20)) // mostly programs without races, which are longer
        continue;
      model.access(size_t(warp), kind, offset, bytes);
      const bool found = shared.range(warp, kind, offset, bytes).warp >= 0;
      ASSERT_EQ(found, expected) << "seed " << seed << ", step " << step;
      if (expected) // the check may forget what a race has shown already
        return;
    }
  }
}

TEST(SharedRacesRandom, AgreeWithThePlainModel) {
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    compareWithModel(seed);
    if (HasFatalFailure())
      return;
  }
}

} // namespace
