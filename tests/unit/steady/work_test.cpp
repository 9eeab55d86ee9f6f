// SPDX-License-Identifier: Apache-2.0
//
// No work that grows with the context, for any token: what the runtime does in a step, counted and not timed. Kernels
// are idle; their programs, of which there are at most 64 splits a sequence, are the only thing that may grow.
#include "tests/unit/steady/step_driver.h"
#include "tests/unit/steady/work_counter.h"

using namespace kvq_test;

namespace {

constexpr int kPeriod = 128; // tokens after which pages and groups begin again

StepSetup longSetup(int sequences, int window) {
  StepSetup setup;
  setup.sequences = sequences;
  setup.attentionWindow = window;
  setup.blocks = int64_t(sequences) * (window ? 64 : 16800);
  setup.layers = 1;
  setup.qHeads = setup.kvHeads = 1;
  setup.threads = 1;
  setup.longest = 4096;
  return setup;
}

// Of kPeriod decode steps at a context of so many tokens, per step.
Work atLength(const StepSetup &setup, int64_t length) {
  StepDriver driver(setup);
  driver.fill(std::vector<int64_t>(setup.sequences, length));
  const std::vector<int32_t> one(setup.sequences, 1);
  for (int i = 0; i < kPeriod; ++i)
    driver.step(one);
  const Work before = work();
  for (int i = 0; i < kPeriod; ++i)
    driver.step(one);
  const Work done = work() - before;
  EXPECT_EQ(driver.failure(), "");
  EXPECT_EQ(driver.length(0), length + 2 * kPeriod);
  return {done.blocks / kPeriod, done.bytes / kPeriod};
}

TEST(WorkCounter, SeesTheRuntime) {
  const Work before = work();
  kvq_error_free(kvq_plan(nullptr, nullptr, nullptr));
  EXPECT_GT((work() - before).blocks, 0);
}

// The list of programs is the same from 64k tokens on; below it has one entry for 1024 tokens and KV head.
TEST(Work, OfAStepDoesNotGrowWithTheContext) {
  const StepSetup setup = longSetup(1, 0);
  const Work shortest = atLength(setup, 4096), full = atLength(setup, 1 << 17), longest = atLength(setup, 1 << 20);
  EXPECT_LE(longest.blocks, full.blocks * 1.1);
  EXPECT_LE(longest.bytes, full.bytes * 1.1 + 64);
  // Programs are planned, sorted and launched: some 100 basic blocks for each of 60.
  EXPECT_LE(full.blocks - shortest.blocks, 60 * 200);
  EXPECT_LE(full.bytes - shortest.bytes, 60 * 200);
}

TEST(Work, OfAStepUnderAWindowIsTheSameAtAnyLength) {
  const StepSetup setup = longSetup(1, 256);
  const Work shortest = atLength(setup, 4096), longest = atLength(setup, 1 << 20);
  EXPECT_LE(longest.blocks, shortest.blocks * 1.02);
  EXPECT_LE(longest.bytes, shortest.bytes * 1.02);
}

TEST(Work, OfABatchIsThatOfItsSequences) {
  const Work one = atLength(longSetup(1, 0), 1 << 16), eight = atLength(longSetup(8, 0), 1 << 16);
  EXPECT_LE(eight.blocks, 8 * one.blocks * 1.6); // the list of programs is sorted: n log n
  EXPECT_LE(eight.bytes, 8 * one.bytes * 1.25);
}

// Tables that become longer move now and then: over all tokens that is little for each of them.
TEST(Work, OfALongRunIsThatOfItsSteps) {
  StepSetup setup = longSetup(3, 0);
  setup.blocks = 3 * 2100;
  StepDriver driver(setup);
  driver.fill({3000, 40000, 90000});
  const std::vector<int32_t> ones = {1, 1, 1};
  for (int i = 0; i < kPeriod; ++i)
    driver.step(ones);
  const auto steps = [&](int count) {
    const Work before = work();
    for (int i = 0; i < count; ++i)
      driver.step(ones);
    return work() - before;
  };
  const Work first = steps(kPeriod), all = steps(30 * 1024);
  EXPECT_EQ(driver.failure(), "");
  const int64_t periods = 30 * 1024 / kPeriod;
  EXPECT_LE(all.blocks, first.blocks * periods * 1.3); // the shortest sequence goes from 3 splits to 33
  EXPECT_LE(all.bytes, first.bytes * periods * 1.3);
}

} // namespace
