// SPDX-License-Identifier: Apache-2.0
//
// Sequences that share blocks: docs/format-spec.md fork_c1, step_c1, tail_c2.
#include "tests/unit/cache_harness.h"

using namespace kvq_test;

namespace {

// Block rule, window and commit group 32, pages of 64: a sequence of 150 tokens has 96 quantized ones in 2 blocks, the
// second half full, and the next commit comes with token 160.
CacheSetup basic(int blocks = 16, int sequences = 4) {
  CacheSetup setup = small(kBlockText, kBlock);
  setup.layers = 2, setup.kvHeads = 2, setup.blocks = blocks, setup.sequences = sequences;
  return setup;
}

class Fork : public ::testing::TestWithParam<CacheSetup> {};
INSTANTIATE_TEST_SUITE_P(Rules, Fork, ::testing::ValuesIn(oneOfEachRule()), ruleName);

// In pages so large that tokens which the forks do not have in common go to blocks which they share.
TEST_P(Fork, BothGoOnIndependently) {
  CacheSetup setup = GetParam();
  setup.pageTokens = 256;
  Harness harness(setup);
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const int32_t b = harness.fork(a), c = harness.fork(b);
  EXPECT_EQ(harness.blocks(a), harness.blocks(b));
  EXPECT_EQ(harness.readAll(a), harness.readAll(b));
  for (int i = 0; i < 4; ++i) {
    std::vector<float> before = harness.readAll(b);
    harness.extend(a, 35);
    EXPECT_EQ(harness.readAll(b), before);
    before = harness.readAll(a);
    harness.extend(b, 20);
    EXPECT_EQ(harness.readAll(a), before);
    harness.step({{a, c, b}, {1, 1, 1}, {}, 1});
  }
  for (int32_t sequence : {a, b, c})
    harness.checkRead(sequence);
}

TEST(ForkBlocks, AreCopiedOnTheFirstWriteAndCounted) {
  Harness harness(basic());
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const kvq_cache_report alone = harness.report();
  const int32_t b = harness.fork(a);
  // tail_c2: shared blocks count once, the tail is there twice.
  EXPECT_EQ(harness.report().blocks_used, 2);
  EXPECT_EQ(harness.report().page_bytes_used, alone.page_bytes_used);
  EXPECT_EQ(harness.report().tail_bytes_used, 2 * alone.tail_bytes_used);
  EXPECT_EQ(harness.report().tokens, 300);

  const std::vector<int32_t> shared = harness.blocks(a);
  EXPECT_EQ(harness.planBlocks({{a}, {9}, {}, 9}), 0);     // 159: nothing is quantized
  EXPECT_EQ(harness.planBlocks({{a}, {10}, {}, 10}), 1);   // 160: tokens 96 to 127 go to the shared page 1
  EXPECT_EQ(harness.planBlocks({{a}, {100}, {}, 100}), 2); // and 128 to 191 to a new page
  EXPECT_EQ(harness.planBlocks({{a, b}, {10, 10}, {}, 10}), 2);
  harness.extend(a, 9);
  EXPECT_EQ(harness.report().blocks_used, 2);
  harness.extend(a, 1);
  EXPECT_EQ(harness.report().blocks_used, 3);
  EXPECT_EQ(harness.blocks(b), shared);
  EXPECT_EQ(harness.blocks(a)[0], shared[0]);
  EXPECT_NE(harness.blocks(a)[1], shared[1]);
  // The other one now owns its page 1 alone.
  EXPECT_EQ(harness.planBlocks({{b}, {10}, {}, 10}), 0);
  harness.extend(b, 10);
  EXPECT_EQ(harness.blocks(b), shared);
  EXPECT_EQ(harness.report().blocks_used, 3);
  harness.checkRead(a);
  harness.checkRead(b);
}

TEST(ForkBlocks, AStepOfAllOwnersLeavesNoneBehind) {
  Harness harness(basic());
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const int32_t b = harness.fork(a), c = harness.fork(a);
  const StepData data = {{c, a, b}, {10, 11, 100}, {}, 100};
  EXPECT_EQ(harness.planBlocks(data), 4);
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan(data, &step));
  EXPECT_EQ(harness.report().blocks_used, 2 + 4);
  kvq_abort_step(step);
  harness.step(data);
  EXPECT_EQ(harness.report().blocks_used, 1 + 3 + 1); // page 0, three times page 1, page 2
  for (int32_t sequence : {a, b, c})
    harness.checkRead(sequence);
  for (int32_t sequence : {b, a, c})
    harness.remove(sequence);
  EXPECT_EQ(harness.report().blocks_used, 0);
}

// step_c1 with copies.
TEST(ForkBlocks, AbortGivesCopiesBack) {
  Harness harness(basic());
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const int32_t b = harness.fork(a);
  const std::vector<int32_t> shared = harness.blocks(a);
  const std::vector<float> before = harness.readAll(a);
  for (int tokens : {10, 33, 200}) {
    harness.abort({{a, b}, {tokens, 1}, {}, tokens});
    harness.abort({{a, b}, {tokens, tokens}, {}, tokens});
    EXPECT_EQ(harness.report().blocks_used, 2);
    EXPECT_EQ(harness.blocks(a), shared);
    EXPECT_EQ(harness.blocks(b), shared);
    EXPECT_EQ(harness.readAll(a), before);
    EXPECT_EQ(harness.readAll(b), before);
  }
  harness.step({{b, a}, {60, 10}, {}, 60});
  harness.checkRead(a);
  harness.checkRead(b);
}

TEST(ForkBlocks, RemovingOneOwnerLeavesTheOther) {
  for (bool removeFirst : {true, false}) {
    Harness harness(basic());
    const int32_t a = harness.add();
    harness.extend(a, 150);
    const int32_t b = harness.fork(a);
    const int32_t left = removeFirst ? b : a;
    harness.remove(removeFirst ? a : b);
    EXPECT_EQ(harness.report().blocks_used, 2);
    EXPECT_EQ(harness.planBlocks({{left}, {10}, {}, 10}), 0);
    const int32_t other = harness.add(); // takes the slot and what blocks there are
    harness.step({{other, left}, {200, 40}, {}, 200});
    harness.checkRead(left);
    harness.checkRead(other);
    harness.remove(left);
    harness.remove(other);
    EXPECT_EQ(harness.report().blocks_used, 0);
  }
}

TEST(ForkBlocks, CropOfAForkLeavesTheOther) {
  Harness harness(basic());
  const int32_t a = harness.add();
  harness.extend(a, 150); // as they came: 54 to 149
  const int32_t b = harness.fork(a);
  const std::vector<float> before = harness.readAll(a);
  harness.crop(b, 40, 8); // behind 64, so from 32 on
  EXPECT_EQ(harness.state(b).blocks, 1);
  EXPECT_EQ(harness.report().blocks_used, 2);
  EXPECT_EQ(harness.readAll(a), before);
  EXPECT_EQ(harness.planBlocks({{b}, {23}, {}, 23}), 0);
  EXPECT_EQ(harness.planBlocks({{b}, {56}, {}, 56}), 1); // 96: tokens 32 to 63 go to the shared page 0
  harness.extend(b, 56);
  EXPECT_EQ(harness.report().blocks_used, 3);
  EXPECT_EQ(harness.readAll(a), before);
  harness.checkRead(b);
  harness.crop(a, 0, 0);
  EXPECT_EQ(harness.report().blocks_used, 1);
  harness.checkRead(b);
  harness.extend(a, 130);
  harness.checkRead(a);
  harness.checkRead(b);
}

TEST(ForkBlocks, FullSlotsAndFullPoolsAreRefusedAndChangeNothing) {
  Harness harness(basic(2, 2));
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const int32_t b = harness.fork(a);
  const kvq_cache_report was = harness.report();
  const std::vector<uint8_t> before[] = {harness.snapshot(a), harness.snapshot(b)};
  const std::vector<int32_t> shared = harness.blocks(a);
  int32_t none = -1;
  KVQ_EXPECT_ERROR(kvq_sequence_fork(harness.cache, a, &none), KVQ_RESOURCE_EXHAUSTED, "all 2 sequences are in use");
  KVQ_EXPECT_ERROR(kvq_sequence_fork(harness.cache, 5, &none), KVQ_INVALID_ARGUMENT, "sequence 5 does not exist");
  KVQ_EXPECT_ERROR(kvq_sequence_fork(harness.cache, a, nullptr), KVQ_INVALID_ARGUMENT, "fork is NULL");
  kvq_step *step = nullptr;
  KVQ_EXPECT_ERROR(harness.plan({{a, b}, {10, 1}, {}, 10}, &step), KVQ_RESOURCE_EXHAUSTED,
                   "the step needs 1 more blocks but 0 of 2 are free: 1 are missing");
  EXPECT_EQ(none, -1);
  EXPECT_EQ(step, nullptr);
  EXPECT_EQ(harness.snapshot(a), before[0]);
  EXPECT_EQ(harness.snapshot(b), before[1]);
  const kvq_cache_report now = harness.report();
  EXPECT_EQ(std::memcmp(&was, &now, sizeof(was)), 0);
  // Growing keeps what is shared shared.
  harness.grow(5, 3);
  EXPECT_EQ(harness.blocks(a), shared);
  EXPECT_EQ(harness.blocks(b), shared);
  EXPECT_EQ(harness.report().blocks_used, 2);
  EXPECT_EQ(harness.snapshot(b), before[1]);
  const int32_t c = harness.fork(b);
  EXPECT_EQ(harness.planBlocks({{a, b, c}, {10, 10, 10}, {}, 10}), 3);
  harness.step({{a, b, c}, {10, 12, 14}, {}, 14});
  EXPECT_EQ(harness.report().blocks_used, 4);
  for (int32_t sequence : {a, b, c})
    harness.checkRead(sequence);
}

// Nothing may touch a sequence of the open step; others are free to change, also those that share blocks with it.
TEST(OpenStep, KeepsItsSequencesToItself) {
  Harness harness(basic());
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const int32_t b = harness.fork(a);
  std::vector<uint8_t> snapshot = harness.snapshot(a);
  const std::vector<uint8_t> before = snapshot;
  const StepData data = {{a}, {50}, {}, 50};
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan(data, &step));
  const kvq_cache_report was = harness.report();
  int32_t id = -1;
  int64_t thawed = -1;
  const char *const part = "sequence 0 takes part in the open step: commit or abort it first";
  KVQ_EXPECT_ERROR(kvq_sequence_fork(harness.cache, a, &id), KVQ_FAILED_PRECONDITION, part);
  KVQ_EXPECT_ERROR(kvq_sequence_crop(harness.cache, a, 10, &thawed), KVQ_FAILED_PRECONDITION, part);
  KVQ_EXPECT_ERROR(kvq_sequence_remove(harness.cache, a), KVQ_FAILED_PRECONDITION, part);
  KVQ_EXPECT_ERROR(kvq_sequence_snapshot(harness.cache, a, snapshot.data(), snapshot.size()), KVQ_FAILED_PRECONDITION,
                   part);
  EXPECT_EQ(snapshot, before);
  EXPECT_EQ(id, -1);
  EXPECT_EQ(thawed, -1);
  EXPECT_EQ(harness.length(a), 150);
  EXPECT_EQ(harness.report().blocks_used, was.blocks_used);
  const float logits[2] = {0, 0};
  KVQ_EXPECT_ERROR(kvq_cache_set_sinks(harness.cache, 0, logits, 2), KVQ_FAILED_PRECONDITION, "step is open");

  const int32_t c = harness.fork(b), d = harness.restore(before, b);
  harness.crop(b, 20, 20);
  harness.remove(c);
  for (int layer : {0, 1}) {
    Harness::LayerData values = harness.random(data);
    KVQ_ASSERT_OK(harness.forward(step, layer, values));
    harness.record(data, layer, values);
    harness.check(data, layer, values);
  }
  KVQ_ASSERT_OK(kvq_commit_step(step));
  harness.step({{b, d, a}, {90, 10, 1}, {}, 90});
  for (int32_t sequence : {a, b, d})
    harness.checkRead(sequence);
}

} // namespace
