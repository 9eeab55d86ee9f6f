// SPDX-License-Identifier: Apache-2.0
//
// The paged cache against a model of it: docs/format-spec.md sections 4 to 7 through the C API on device "ref".
#include "tests/unit/cache_harness.h"

#include <cmath>

using namespace kvq_test;

namespace {

// ---- what a query sees ----

class Formats : public ::testing::TestWithParam<CacheSetup> {};

TEST_P(Formats, RaggedPromptsAndDecodingMatchTheModel) {
  Harness harness(GetParam());
  const int32_t a = harness.add(), b = harness.add(), c = harness.add();
  harness.step({{a, b, c}, {135, 33, 1}, {}, 140});
  for (int i = 0; i < 40; ++i)
    harness.step({{c, a, b}, {1, 1, i % 3 ? 1 : 0}, {}, 1}, i % 2 == 0);
  harness.step({{b, a}, {70, 20}, {5, 0}, 80});
  harness.step({{a, b}, {7, 32}, {}, 32}, false);
  for (int32_t sequence : {a, b, c})
    harness.checkRead(sequence);
}

// fork_c1, crop_c3, prefill_c2 over every format: both copies go on, 32 tokens come off without loss.
TEST_P(Formats, WhatIsForkedTakenBackAndPrefilledRawMatchesTheModel) {
  Harness harness(GetParam());
  const int32_t a = harness.add();
  harness.extend(a, 150);
  const int32_t b = harness.fork(a);
  harness.extend(a, 3);
  harness.step({{b, a}, {40, 1}, {}, 40});
  harness.crop(a, 122, 0);
  harness.checkRead(a);
  harness.extend(a, 45);
  harness.step({{b, a}, {70, 5}, {}, 70, true}, false);
  harness.step({{a, b}, {1, 34}, {2, 0}, 35, true});
  harness.crop(b, 150 + 40 + 70 + 34 - 32, 0);
  for (int i = 0; i < 3; ++i)
    harness.step({{a, b}, {1, 1}, {}, 1}, i == 0);
  harness.checkRead(a);
  harness.checkRead(b);
  harness.remove(b);
  harness.extend(a, 20);
  harness.checkRead(a);
}

// From the first token on, in small steps: kept tokens that are still to come are seen by nobody.
TEST_P(Formats, ShortStepsFromNothingMatchTheModel) {
  Harness harness(GetParam());
  const int32_t a = harness.add(), b = harness.add();
  harness.step({{b}, {40}, {}, 40, true}, false);
  harness.step({{a, b}, {2, 0}, {}, 2, true}, false);
  harness.step({{a, b}, {1, 2}, {}, 2, true});
  for (int i = 0; i < 20; ++i)
    harness.step({{a, b}, {1, i % 4}, {}, 4}, i % 2 == 0);
  harness.crop(a, 1, 0);
  harness.checkRead(a);
  harness.step({{a, b}, {50, 1}, {}, 50});
  harness.checkRead(a);
  harness.checkRead(b);
}

struct Shape {
  int qHeads, kvHeads, dk, dv;
  kvq_dtype dtype;
  int page, layers;
};
CacheSetup with(CacheSetup setup, const Shape &shape) {
  setup.qHeads = shape.qHeads, setup.kvHeads = shape.kvHeads, setup.dk = shape.dk, setup.dv = shape.dv;
  setup.dtype = shape.dtype, setup.pageTokens = shape.page, setup.layers = shape.layers;
  setup.blocks = 40;
  return setup;
}
CacheSetup attending(CacheSetup setup, int window, float scoreCap, bool sinks) {
  setup.attentionWindow = window, setup.scoreCap = scoreCap, setup.sinks = sinks;
  setup.blocks = 40, setup.pageTokens = 32;
  return setup;
}
ModelFormat keeping(ModelFormat format, int keep) {
  format.keep = keep;
  return format;
}
const ModelFormat kEvery = {{8, false, 16}, {4, false, 16}, 0, ModelRule::Flush};
const ModelFormat kWhole = {{4, true, 32}, {2, true, 64}, 64, ModelRule::Flush};

INSTANTIATE_TEST_SUITE_P(
    All, Formats,
    ::testing::Values(
        with(small(kBlockText, kBlock), {6, 2, 16, 32, KVQ_F32, 0, 2}),
        with(small(kSlidingText, kSliding), {3, 1, 16, 16, KVQ_F32, 32, 2}),
        with(small("k2c32-v8t16/w0,block", {{2, true, 32}, {8, false, 16}, 0}), {2, 2, 32, 16, KVQ_F32, 32, 1}),
        with(small("k8t16-v8c32/w40,block", {{8, false, 16}, {8, true, 32}, 40}), {4, 1, 16, 16, KVQ_BF16, 96, 1}),
        with(small("k4c64-v2c128/w64,block", {{4, true, 64}, {2, true, 128}, 64}), {1, 1, 16, 16, KVQ_F32, 128, 1}),
        with(small("k2c32-v4t16/w64,sliding", {{2, true, 32}, {4, false, 16}, 64, ModelRule::Sliding}),
             {8, 1, 16, 16, KVQ_BF16, 256, 1}),
        with(small(kFlushText, kFlush), {2, 1, 80, 48, KVQ_F16, 64, 1}),
        with(small("k8t16-v4t16/w0,flush", kEvery), {2, 2, 48, 16, KVQ_F32, 32, 2}),
        with(small("k4c32-v2c64/w64,flush", kWhole), {2, 1, 16, 16, KVQ_BF16, 64, 1}),
        with(small(kSlidingText, kSliding), {4, 2, 112, 16, KVQ_F16, 32, 1}),
        with(small("k4c32-v4t16/w32,keep5,block", keeping(kBlock, 5)), {2, 1, 16, 16, KVQ_F16, 64, 2}),
        with(small("k4c32-v2t16/w32,keep20,sliding", keeping(kSliding, 20)), {2, 1, 16, 16, KVQ_F32, 32, 1}),
        with(small("k2c32-v4t16/w64,keep3,flush", keeping(kFlush, 3)), {2, 1, 16, 16, KVQ_F32, 32, 1})),
    [](const auto &info) { return "Format" + std::to_string(info.index); });

// attention_c11, attention_c12, window_c1: windows shorter and longer than the one of the format.
INSTANTIATE_TEST_SUITE_P(Models, Formats,
                         ::testing::Values(attending(small(kBlockText, kBlock), 20, 0, false),
                                           attending(small(kBlockText, kBlock), 100, 3.0f, true),
                                           attending(small(kSlidingText, kSliding), 20, 2.0f, false),
                                           attending(small(kSlidingText, kSliding), 75, 0, true),
                                           attending(small(kFlushText, kFlush), 1, 0, false),
                                           attending(small(kFlushText, kFlush), 90, 5.0f, true),
                                           attending(small("k4c32-v4t16/w32,keep2,block", keeping(kBlock, 2)), 33, 0,
                                                     true),
                                           attending(small(kBlockText, kBlock), 0, 1.5f, true)),
                         [](const auto &info) { return "Model" + std::to_string(info.index); });

// Splits of the packed keys, and of a window that is longer than one.
TEST(Attention, LongSequencesAreSplitAndMerged) {
  CacheSetup setup = small("k8c32-v8t16/w1500,block", {{8, true, 32}, {8, false, 16}, 1500});
  setup.blocks = 64;
  Harness harness(setup);
  const int32_t a = harness.add();
  kvq_step *step = nullptr;
  const StepData prompt = {{a}, {4100}, {}, 4100};
  KVQ_ASSERT_OK(harness.plan(prompt, &step));
  Harness::LayerData values = harness.random(prompt);
  KVQ_ASSERT_OK(harness.append(step, 0, values));
  harness.record(prompt, 0, values);
  KVQ_ASSERT_OK(kvq_commit_step(step));
  harness.step({{a}, {1}, {}, 1}, false);
  harness.step({{a}, {5}, {}, 5});
  harness.checkRead(a);
}

// commit_c6.
TEST(Commit, SlidingFollowsKivisStateMachine) {
  const ModelFormat kivi = {{2, true, 32}, {2, false, 16}, 128, ModelRule::Sliding};
  Harness harness(small("k2c32-v2t16/w128,sliding", kivi));
  const int32_t a = harness.add();
  harness.step({{a}, {300}, {}, 300});
  EXPECT_EQ(300 - kivi.kFrontier(300), 44);
  EXPECT_EQ(300 - kivi.vFrontier(300), 128);
  harness.checkRead(a);
  for (int i = 0; i < 84; ++i)
    harness.step({{a}, {1}, {}, 1});
  EXPECT_EQ(harness.length(a) - kivi.kFrontier(384), 0);
  harness.checkRead(a);
}

// commit_c4, prefill_c1: how a prompt is cut into steps changes no code and no answer.
// Which keys share a tile, and whether their V is packed by then, follows the cuts: weights are rounded to 16 bits of
// the largest of their tile (accuracy_c1: 15 are used, so by up to 2^-16 of it), or not at all. What two answers differ
// by has both roundings, each times V's distance from the middle of its codes, here at most 2.
TEST(Commit, CuttingAPromptChangesNoBit) {
  const double rounding = std::ldexp(1.0, -14);
  for (const CacheSetup &setup : oneOfEachRule()) {
    Harness whole(setup), cut(setup);
    const int32_t a = whole.add(), b = cut.add();
    const int tokens = 150;
    const StepData prompt = {{a}, {tokens}, {}, tokens};
    Harness::LayerData values = whole.random(prompt);
    kvq_step *step = nullptr;
    KVQ_ASSERT_OK(whole.plan(prompt, &step));
    KVQ_ASSERT_OK(whole.forward(step, 0, values));
    KVQ_ASSERT_OK(kvq_commit_step(step));
    for (int begin = 0, size = 1; begin < tokens; begin += size, size = size % 45 + 7) {
      size = std::min(size, tokens - begin);
      const StepData part = {{b}, {size}, {begin}, tokens};
      Harness::LayerData same = cut.random({{b}, {tokens}, {}, tokens});
      for (auto member : {&Harness::LayerData::q, &Harness::LayerData::k, &Harness::LayerData::v})
        std::memcpy((same.*member).memory.data(), (values.*member).memory.data(), (values.*member).memory.size());
      KVQ_ASSERT_OK(cut.plan(part, &step));
      KVQ_ASSERT_OK(cut.forward(step, 0, same));
      KVQ_ASSERT_OK(kvq_commit_step(step));
      for (int h = 0; h < 2; ++h)
        for (int t = begin; t < begin + size; ++t)
          for (int c = 0; c < 16; ++c)
            ASSERT_NEAR(same.out.get(same.out.index(0, h, t) + c), values.out.get(values.out.index(0, h, t) + c),
                        rounding);
    }
    EXPECT_EQ(whole.readAll(a), cut.readAll(b));
    // All packed bytes, those of codes that no query can see yet included.
    EXPECT_EQ(std::memcmp(whole.bytes(), cut.bytes(), whole.report().page_bytes_used), 0);
  }
}

// ---- steps ----

class Steps : public ::testing::TestWithParam<CacheSetup> {
protected:
  CacheSetup setup(int layers) const {
    CacheSetup setup = GetParam();
    setup.layers = layers;
    return setup;
  }
};
INSTANTIATE_TEST_SUITE_P(Rules, Steps, ::testing::ValuesIn(oneOfEachRule()), ruleName);

// step_c1. A long step overwrites ring slots that the state before it still needs.
TEST_P(Steps, AbortLeavesTheCacheAsItWas) {
  Harness harness(setup(2));
  const int32_t a = harness.add(), b = harness.add();
  harness.step({{a, b}, {77, 20}, {}, 77});
  const std::vector<float> before[] = {harness.readAll(a), harness.readAll(b)};
  const kvq_cache_report was = harness.report();
  for (int tokens : {1, 32, 33, 70, 200}) {
    const StepData data = {{a, b}, {tokens, tokens / 2}, {}, tokens};
    kvq_step *step = nullptr;
    KVQ_ASSERT_OK(harness.plan(data, &step));
    Harness::LayerData values = harness.random(data);
    KVQ_ASSERT_OK(harness.forward(step, 1, values));
    kvq_abort_step(step);
    EXPECT_EQ(harness.length(a), 77);
    EXPECT_EQ(harness.readAll(a), before[0]) << tokens;
    EXPECT_EQ(harness.readAll(b), before[1]) << tokens;
    EXPECT_EQ(harness.report().blocks_used, was.blocks_used);
  }
  harness.step({{a, b}, {40, 1}, {}, 40});
  harness.checkRead(a);
  harness.checkRead(b);
}

// step_c2, quantize_c1.
TEST_P(Steps, ABadValueIsNamedAndLeavesTheLayerAsItWas) {
  Harness harness(setup(1));
  const int32_t a = harness.add(), b = harness.add();
  harness.step({{a, b}, {50, 60}, {}, 60});
  const std::vector<float> before = harness.readAll(b);
  for (float bad : {NAN, INFINITY, -INFINITY, 65536.0f, -1e30f})
    for (int at : {3, 90}) {
      const StepData data = {{a, b}, {2, 100}, {}, 100};
      kvq_step *step = nullptr;
      KVQ_ASSERT_OK(harness.plan(data, &step));
      Harness::LayerData values = harness.random(data);
      const int64_t index = values.v.index(1, 0, at) + 9;
      const float good = values.v.get(index);
      values.v.set(index, bad);
      KVQ_EXPECT_ERROR(harness.forward(step, 0, values), KVQ_BAD_VALUE,
                       "V of sequence 1, token " + std::to_string(60 + at) + ", head 0, channel 9 is");
      if (at == 3) {
        kvq_abort_step(step);
        EXPECT_EQ(harness.readAll(b), before);
        continue;
      }
      // The step is still open: the same layer may try again.
      values.v.set(index, good);
      KVQ_ASSERT_OK(harness.forward(step, 0, values));
      kvq_abort_step(step);
      EXPECT_EQ(harness.readAll(b), before);
    }
  harness.step({{b, a}, {40, 3}, {}, 40});
  harness.checkRead(b);
}

// What a failed attempt overwrote in the ring is what the next attempt quantizes first.
TEST_P(Steps, ALayerThatTriesAgainGivesTheSameAnswers) {
  Harness harness(setup(1));
  const int32_t a = harness.add();
  harness.step({{a}, {60}, {}, 60});
  const StepData data = {{a}, {100}, {}, 100};
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan(data, &step));
  Harness::LayerData values = harness.random(data);
  const int64_t index = values.v.index(0, 0, 90) + 9;
  const float good = values.v.get(index);
  values.v.set(index, NAN);
  KVQ_EXPECT_ERROR(harness.forward(step, 0, values), KVQ_BAD_VALUE, "token 150");
  values.v.set(index, good);
  KVQ_ASSERT_OK(harness.forward(step, 0, values));
  harness.record(data, 0, values);
  harness.check(data, 0, values);
  KVQ_ASSERT_OK(kvq_commit_step(step));
  harness.checkRead(a);
}

// Kernels may load what they then mask out, so no bad value may lie where they can reach: memory comes uncleared (the
// harness fills it with NaN), and a failed append has written some.
TEST(StepProtocol, NoBadValueStaysInReach) {
  CacheSetup setup = small(kBlockText, kBlock);
  setup.blocks = 2, setup.sequences = 1, setup.pageTokens = 64;
  Harness harness(setup);
  const int32_t a = harness.add();
  harness.step({{a}, {70}, {}, 70}); // 32 tokens in the first block
  const StepData data = {{a}, {9}, {}, 9};
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan(data, &step));
  Harness::LayerData values = harness.random(data);
  values.k.set(values.k.index(0, 0, 7) + 2, NAN);
  values.v.set(values.v.index(0, 0, 8) + 2, INFINITY);
  KVQ_EXPECT_ERROR(harness.forward(step, 0, values), KVQ_BAD_VALUE, "K of sequence 0, token 77, head 0, channel 2");
  kvq_abort_step(step);
  const int64_t page = 512 + 64 + 64 + 512 + 128 + 128; // as in Pool.BytesAreThoseOfTheFormula
  const uint8_t *memory = harness.bytes();
  for (size_t at = 2 * page; at < harness.memory->size(); at += 4) {
    float value;
    std::memcpy(&value, memory + at, 4);
    ASSERT_TRUE(std::isfinite(value)) << "tail byte " << at - 2 * page;
  }
  for (int at = 512 + 32; at < 512 + 64; ++at)
    ASSERT_EQ(memory[at], 0) << "a scale of tokens 32 .. 63, of which there are none";
}

TEST(StepProtocol, LargestValuesAreNotBad) {
  Harness harness(small(kBlockText, kBlock));
  const int32_t a = harness.add();
  const StepData data = {{a}, {70}, {}, 70};
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan(data, &step));
  Harness::LayerData values = harness.random(data);
  values.k.set(values.k.index(0, 0, 1), 65504.0f);
  values.k.set(values.k.index(0, 0, 2), -65504.0f);
  KVQ_ASSERT_OK(harness.forward(step, 0, values));
  harness.record(data, 0, values);
  KVQ_ASSERT_OK(kvq_commit_step(step));
  harness.checkRead(a);
}

TEST(StepProtocol, CallsOutOfOrderAreRefused) {
  CacheSetup setup = small(kBlockText, kBlock);
  setup.layers = 2;
  Harness harness(setup);
  const int32_t a = harness.add(), b = harness.add();
  kvq_step *step = nullptr, *second = nullptr;
  const StepData data = {{a}, {3}, {}, 3};
  KVQ_EXPECT_ERROR(harness.plan({{a, a}, {1, 1}, {}, 1}, &step), KVQ_INVALID_ARGUMENT, "twice");
  KVQ_EXPECT_ERROR(harness.plan({{3}, {1}, {}, 1}, &step), KVQ_INVALID_ARGUMENT, "sequence 3 does not exist");
  KVQ_EXPECT_ERROR(harness.plan({{a}, {-1}, {}, 1}, &step), KVQ_INVALID_ARGUMENT, "new_tokens of sequence 0 is -1");
  KVQ_EXPECT_ERROR(harness.plan({{a}, {1}, {-2}, 1}, &step), KVQ_INVALID_ARGUMENT, "first_tokens of sequence 0 is -2");
  KVQ_ASSERT_OK(harness.plan(data, &step));
  KVQ_EXPECT_ERROR(harness.plan({{b}, {1}, {}, 1}, &second), KVQ_FAILED_PRECONDITION, "already open");
  Harness::LayerData values = harness.random(data);
  KVQ_EXPECT_ERROR(harness.attend(step, 0, values), KVQ_FAILED_PRECONDITION, "layer 0 has not appended");
  KVQ_EXPECT_ERROR(harness.forward(step, 2, values), KVQ_INVALID_ARGUMENT, "layer 2 does not exist");
  KVQ_ASSERT_OK(harness.forward(step, 0, values));
  KVQ_EXPECT_ERROR(harness.forward(step, 0, values), KVQ_FAILED_PRECONDITION, "already appended");
  KVQ_EXPECT_ERROR(kvq_commit_step(step), KVQ_FAILED_PRECONDITION, "layer 1 has not appended");
  KVQ_EXPECT_ERROR(kvq_sequence_remove(harness.cache, a), KVQ_FAILED_PRECONDITION, "takes part in the open step");
  KVQ_EXPECT_ERROR(kvq_cache_grow(harness.cache, 32, 4, nullptr, 0), KVQ_FAILED_PRECONDITION, "step is open");
  KVQ_EXPECT_OK(kvq_sequence_remove(harness.cache, b));
  KVQ_ASSERT_OK(harness.forward(step, 1, values));
  KVQ_ASSERT_OK(kvq_commit_step(step));
  EXPECT_EQ(harness.length(a), 3);
}

TEST(StepProtocol, AttendAfterALongAppendIsRefused) {
  Harness harness(small(kBlockText, kBlock));
  const StepData data = {{harness.add()}, {33}, {}, 33};
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan(data, &step));
  Harness::LayerData values = harness.random(data);
  KVQ_ASSERT_OK(harness.append(step, 0, values));
  KVQ_EXPECT_ERROR(harness.attend(step, 0, values), KVQ_FAILED_PRECONDITION, "use kvq_forward");
  kvq_abort_step(step);
}

TEST(StepProtocol, AStepWithoutTokensDoesNothing) {
  Harness harness(small(kBlockText, kBlock));
  const int32_t a = harness.add();
  harness.step({{a}, {0}, {}, 4});
  harness.step({{a}, {0}, {}, 4}, false);
  EXPECT_EQ(harness.length(a), 0);
  // Strides of an array without elements are whatever its maker left there: NumPy's are 0.
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(harness.plan({{a}, {0}, {}, 0}, &step));
  const kvq_device where = harness.onDevice ? KVQ_CUDA : KVQ_CPU;
  const kvq_tensor empty = {nullptr, KVQ_F32, where, 4, {1, 1, 0, 16}, {0, 0, 0, 0}};
  KVQ_ASSERT_OK(kvq_append(step, 0, &empty, &empty));
  KVQ_ASSERT_OK(kvq_commit_step(step));
}

// ---- pools ----

TEST(Pool, AFullPoolIsRefusedAtPlanAndGrows) {
  CacheSetup setup = small(kBlockText, kBlock);
  setup.layers = 2, setup.blocks = 2, setup.sequences = 2, setup.pageTokens = 64;
  Harness harness(setup);
  const int32_t a = harness.add();
  harness.step({{a}, {150}, {}, 150}); // 96 quantized tokens: both blocks
  const int32_t b = harness.add();
  harness.step({{b}, {63}, {}, 63});
  int32_t none = -1;
  KVQ_EXPECT_ERROR(kvq_sequence_add(harness.cache, &none), KVQ_RESOURCE_EXHAUSTED, "all 2 sequences are in use");
  EXPECT_EQ(none, -1);
  const std::vector<float> before = harness.readAll(a);
  kvq_step *step = nullptr;
  KVQ_EXPECT_ERROR(harness.plan({{b, a}, {70, 50}, {}, 70}, &step), KVQ_RESOURCE_EXHAUSTED, "3 are missing");
  EXPECT_EQ(step, nullptr);
  EXPECT_EQ(harness.readAll(a), before);

  KVQ_EXPECT_ERROR(kvq_cache_grow(harness.cache, 1, 2, harness.address(), harness.memory->size()), KVQ_INVALID_ARGUMENT,
                   "neither may shrink");
  harness.setup.blocks = 5, harness.setup.sequences = 3;
  const kvq_cache_config larger = harness.config();
  size_t bytes = 0;
  KVQ_ASSERT_OK(kvq_cache_memory_bytes(&larger, &bytes));
  auto grown = std::make_unique<Memory>(bytes);
  {
    const Shown shown(harness.context, *grown, harness.onDevice);
    KVQ_EXPECT_ERROR(kvq_cache_grow(harness.cache, 5, 3, shown.data(), bytes - 1), KVQ_INVALID_ARGUMENT, "too small");
    KVQ_EXPECT_ERROR(kvq_cache_grow(harness.cache, 5, 3, shown.data() + 4, bytes), KVQ_INVALID_ARGUMENT, "aligned");
  }
  harness.moveTo(std::move(grown));
  EXPECT_EQ(harness.readAll(a), before);
  harness.step({{b, a}, {70, 50}, {}, 70});
  harness.step({{harness.add()}, {30}, {}, 30});
  harness.checkRead(a);
  harness.checkRead(b);
}

TEST(Pool, RemovedSequencesAreReused) {
  CacheSetup setup = small(kSlidingText, kSliding);
  setup.blocks = 4, setup.pageTokens = 64;
  Harness harness(setup);
  const int32_t a = harness.add(), b = harness.add();
  harness.step({{a, b}, {120, 70}, {}, 120});
  harness.remove(a);
  KVQ_EXPECT_ERROR(kvq_sequence_remove(harness.cache, a), KVQ_INVALID_ARGUMENT, "does not exist");
  int64_t length = -1;
  KVQ_EXPECT_ERROR(kvq_sequence_length(harness.cache, a, &length), KVQ_INVALID_ARGUMENT, "does not exist");
  const int32_t c = harness.add();
  harness.step({{c, b}, {110, 2}, {}, 110});
  harness.checkRead(b);
  harness.checkRead(c);
  harness.remove(b);
  harness.remove(c);
  EXPECT_EQ(harness.report().bytes_used, 0);
}

// tail_c2, page_c2, step_c3, in numbers worked out by hand for k4c32-v4t16, D 16, P 64:
// K 512 bytes of codes, 2 groups * 16 * 2 = 64 of scales and as many of minima; V 512, 1 * 64 * 2 = 128 and 128.
TEST(Pool, BytesAreThoseOfTheFormula) {
  CacheSetup setup = small(kBlockText, kBlock);
  setup.layers = 3, setup.kvHeads = 2, setup.qHeads = 2, setup.pageTokens = 64, setup.blocks = 7, setup.sequences = 4;
  Harness harness(setup);
  const int64_t page = 512 + 64 + 64 + 512 + 128 + 128, cap = 32 + 32 + 32;
  const int64_t block = 3 * 2 * page, slot = 3 * 2 * cap * (16 + 16) * 4;
  EXPECT_EQ(harness.report().bytes_reserved, 8 * block + 4 * slot); // page_c4: 7 blocks are two runs of 4
  EXPECT_EQ(static_cast<int64_t>(harness.memory->size()), 8 * block + 4 * slot);
  EXPECT_EQ(harness.report().blocks_capacity, 7);
  EXPECT_EQ(harness.report().bits_per_element, 0.0);
  const int32_t a = harness.add(), b = harness.add();
  EXPECT_EQ(harness.report().bytes_used, 2 * slot);
  harness.step({{a, b}, {130, 64}, {}, 130}); // 96 and 32 quantized: 2 blocks and 1
  const kvq_cache_report report = harness.report();
  EXPECT_EQ(report.tokens, 194);
  EXPECT_EQ(report.sequences, 2);
  EXPECT_EQ(report.blocks_used, 3);
  EXPECT_EQ(report.blocks_capacity, 7);
  EXPECT_EQ(report.page_bytes_used, 3 * block);
  EXPECT_EQ(report.tail_bytes_used, 2 * slot);
  EXPECT_EQ(report.bytes_used, 3 * block + 2 * slot);
  EXPECT_DOUBLE_EQ(report.bits_per_element, 8.0 * report.bytes_used / (194.0 * 3 * 2 * 32));
}

// ---- threads ----

void backwards(void *, int64_t count, kvq_task task, void *data) {
  for (int64_t i = count - 1; i >= 0; --i)
    task(data, i);
}

TEST(Threads, ResultsDependNeitherOnThreadsNorOnOrder) {
  std::vector<std::vector<float>> outputs;
  for (int way = 0; way < 3; ++way) {
    CacheSetup setup = small(kBlockText, kBlock);
    setup.blocks = 64, setup.threads = way == 1 ? 4 : 1, setup.parallel = way == 2 ? backwards : nullptr;
    Harness harness(setup);
    const StepData prompt = {{harness.add()}, {1300}, {}, 1300}, data = {prompt.sequences, {40}, {}, 40};
    kvq_step *step = nullptr;
    KVQ_ASSERT_OK(harness.plan(prompt, &step));
    Harness::LayerData filling = harness.random(prompt);
    KVQ_ASSERT_OK(harness.append(step, 0, filling));
    KVQ_ASSERT_OK(kvq_commit_step(step));
    KVQ_ASSERT_OK(harness.plan(data, &step));
    Harness::LayerData values = harness.random(data);
    KVQ_ASSERT_OK(harness.forward(step, 0, values));
    KVQ_ASSERT_OK(kvq_commit_step(step));
    std::vector<float> output;
    for (int64_t i = 0; i < 2 * 40; ++i)
      output.push_back(values.lse.get(i));
    for (int64_t i = 0; i < 2 * 40 * 16; ++i)
      output.push_back(values.out.get(i));
    outputs.push_back(output);
  }
  EXPECT_EQ(outputs[0], outputs[1]);
  EXPECT_EQ(outputs[0], outputs[2]);
}

} // namespace
