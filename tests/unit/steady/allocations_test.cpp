// SPDX-License-Identifier: Apache-2.0
//
// A step like an earlier one allocates nothing: not when it begins a page, quantizes a group, drops a page behind the
// window, is taken back, or begins another split of the keys.
#include "tests/unit/steady/counting_allocator.h"
#include "tests/unit/steady/step_driver.h"

#include <cstdlib>
#include <new>
#include <ostream>
#include <string>
#include <thread>

using namespace kvq_test;

namespace {

// An engine's own loop over its threads: here the order is from the last index to the first.
void backwards(void *, int64_t count, kvq_task task, void *data) {
  while (count > 0)
    task(data, --count);
}

void expectNoAllocation(StepDriver &driver, const std::vector<int32_t> &newTokens, int warmUp, int steps) {
  for (int i = 0; i < warmUp; ++i)
    driver.step(newTokens);
  const int64_t before = allocations();
  for (int i = 0; i < steps; ++i)
    driver.step(newTokens);
  EXPECT_EQ(allocations() - before, 0);
  EXPECT_EQ(driver.failure(), "");
}

TEST(CountingAllocator, CountsEveryRoute) {
  const auto counted = [](auto &&function) {
    const int64_t before = allocations();
    function();
    return allocations() - before;
  };
  void *volatile memory = nullptr; // no compiler leaves out what ends up here
  EXPECT_EQ(counted([&] { memory = ::operator new(8); }), 1);
  EXPECT_EQ(counted([&] { ::operator delete(memory); }), 0);
  EXPECT_EQ(counted([&] { memory = std::malloc(8); }), 1);
  EXPECT_EQ(counted([&] { memory = std::realloc(memory, 1 << 20); }), 1);
  std::free(memory);
  EXPECT_EQ(counted([&] { memory = std::calloc(2, 4); }), 1);
  std::free(memory);
  EXPECT_EQ(counted([&] { memory = std::aligned_alloc(64, 64); }), 1);
  std::free(memory);
  // Of another library, and of another thread.
  EXPECT_GE(counted([] { kvq_error_free(kvq_plan(nullptr, nullptr, nullptr)); }), 1);
  EXPECT_GE(counted([] { std::thread([] { std::free(std::malloc(8)); }).join(); }), 2);
}

struct Case {
  const char *name;
  StepSetup setup;
};
void PrintTo(const Case &one, std::ostream *out) { *out << one.setup.format; }

StepSetup setupOf(const char *format, int sequences, int window = 0, kvq_parallel_for parallel = nullptr) {
  StepSetup setup;
  setup.format = format;
  setup.sequences = sequences;
  setup.attentionWindow = window;
  setup.parallel = parallel;
  return setup;
}

std::vector<Case> cases(bool generated) {
  if (generated && !std::getenv("KVQ_TEST_COMPILER"))
    return {};
  std::vector<Case> all = {{"Block", setupOf("k4c32-v4t16/w32,block", 1)},
                           {"SlidingOfThree", setupOf("k4c32-v2t16/w32,sliding", 3)},
                           {"FlushWithWindow", setupOf("k2c32-v4t16/w64,flush", 2, 40)},
                           {"EightBitsPerToken", setupOf("k8t16-v8t16/w32,block", 8)},
                           {"KeepsSome", setupOf("k4c32-v4t16/w32,keep8,sliding", 2)},
                           {"SlidingWithWindow", setupOf("k4c32-v4t16/w32,sliding", 4, 150)},
                           {"CallersLoop", setupOf("k4c32-v4t16/w32,block", 5, 0, backwards)}};
  for (Case &one : all)
    one.setup.generated = generated;
  return all;
}

class Idle : public ::testing::TestWithParam<Case> {};
class Generated : public ::testing::TestWithParam<Case> {}; // where $KVQ_TEST_COMPILER is set

std::vector<int64_t> ragged(int sequences, int64_t length) {
  std::vector<int64_t> lengths(sequences);
  for (int i = 0; i < sequences; ++i)
    lengths[i] = length + 37 * i;
  return lengths;
}

TEST_P(Idle, Decoding) {
  StepDriver driver(GetParam().setup);
  const int sequences = GetParam().setup.sequences;
  driver.fill(ragged(sequences, 130));
  expectNoAllocation(driver, std::vector<int32_t>(sequences, 1), 70, 600);
}

TEST_P(Generated, Decoding) {
  StepDriver driver(GetParam().setup);
  const int sequences = GetParam().setup.sequences;
  driver.fill(ragged(sequences, 130));
  expectNoAllocation(driver, std::vector<int32_t>(sequences, 1), 70, 300);
}

TEST_P(Idle, StepsOfSeveralChunks) {
  StepSetup setup = GetParam().setup;
  setup.blocks = 2048;
  StepDriver driver(setup);
  std::vector<int32_t> newTokens(setup.sequences, 64);
  newTokens.back() = 41; // after 64 steps it has ended at every place in a page and in a window
  expectNoAllocation(driver, newTokens, 64, 128);
}

TEST_P(Idle, StepsThatAreTakenBack) {
  StepDriver driver(GetParam().setup);
  const std::vector<int32_t> newTokens(GetParam().setup.sequences, 1);
  driver.fill(ragged(GetParam().setup.sequences, 130));
  for (int i = 0; i < 70; ++i)
    driver.step(newTokens);
  const int64_t before = allocations();
  for (int i = 0; i < 100; ++i) {
    driver.abort(newTokens);
    driver.step(newTokens);
  }
  EXPECT_EQ(allocations() - before, 0);
  EXPECT_EQ(driver.failure(), "");
}

std::string nameOf(const ::testing::TestParamInfo<Case> &info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Steps, Idle, ::testing::ValuesIn(cases(false)), nameOf);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Generated);
INSTANTIATE_TEST_SUITE_P(Steps, Generated, ::testing::ValuesIn(cases(true)), nameOf);

// From one split of the keys to as many as there can be, and through every size that a block table has.
TEST(LongContext, GrowsWithoutAllocating) {
  StepSetup setup = setupOf("k4c32-v4t16/w32,block", 1);
  setup.layers = 1;
  setup.blocks = 2048;
  StepDriver driver(setup);
  driver.fill({100});
  expectNoAllocation(driver, {1}, 70, 100'000);
}

TEST(LongContext, SequencesThatComeAndGoAllocateNothingInSteps) {
  StepSetup setup = setupOf("k4c32-v4t16/w32,block", 3);
  setup.layers = 1;
  StepDriver driver(setup);
  driver.fill({2000, 900, 300});
  const std::vector<int32_t> ones = {1, 1, 1};
  for (int i = 0; i < 70; ++i)
    driver.step(ones);
  for (int round = 0; round < 30; ++round) {
    const int index = round % 3;
    const int32_t fork = driver.fork(driver.sequence(index));
    driver.remove(driver.sequence(index));
    driver.replace(index, fork);
    const int64_t before = allocations();
    for (int i = 0; i < 40; ++i)
      driver.step(ones);
    EXPECT_EQ(allocations() - before, 0) << round;
    ASSERT_EQ(driver.failure(), "") << round;
  }
}

} // namespace
