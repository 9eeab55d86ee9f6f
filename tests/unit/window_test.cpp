// SPDX-License-Identifier: Apache-2.0
//
// Attention windows: docs/format-spec.md window_c1, window_c2, crop_c4, and prefill_c2 under them.
#include "tests/unit/cache_harness.h"

using namespace kvq_test;

namespace {

// Pages of 32 tokens; window 40, shorter than the tail of 96, 64 or 96 rows, or 150, longer than each.
CacheSetup windowed(CacheSetup setup, int window) {
  setup.attentionWindow = window, setup.pageTokens = 32, setup.blocks = 24;
  return setup;
}

class Window : public ::testing::TestWithParam<CacheSetup> {
protected:
  CacheSetup setup() const { return GetParam(); }
  // window_c2.
  int64_t bound() const { return (std::max<int64_t>(setup().attentionWindow, setup().model.cap()) + 63 + 31) / 32 + 1; }
  // window_c2 by its words: pages whose tokens are all at most n - 32 - Wa and below both frontiers.
  int64_t firstPage(Harness &harness, int32_t sequence) const {
    const kvq_sequence_state state = harness.state(sequence);
    const int64_t body = state.tokens - setup().model.keep;
    int64_t page = 0;
    while (32 * page + 31 <= body - 32 - setup().attentionWindow &&
           32 * page + 32 <= std::min(state.k_frontier, state.v_frontier))
      ++page;
    return page;
  }
  void checkBlocks(Harness &harness, int32_t sequence) const {
    const kvq_sequence_state state = harness.state(sequence);
    ASSERT_EQ(state.first_block, firstPage(harness, sequence)) << state.tokens;
    ASSERT_EQ(state.blocks, (std::max(state.k_frontier, state.v_frontier) + 31) / 32 - state.first_block);
    ASSERT_LE(state.blocks, bound());
  }
};

std::vector<CacheSetup> windows() {
  std::vector<CacheSetup> all;
  for (const CacheSetup &setup : oneOfEachRule())
    for (int window : {40, 150})
      all.push_back(windowed(setup, window));
  ModelFormat late = kFlush; // a page and more that no query sees waits to be quantized
  late.window = 128;
  all.push_back(windowed(small("k2c32-v4t16/w128,flush", late), 8));
  ModelFormat kept = kSliding;
  kept.keep = 6;
  all.push_back(windowed(small("k4c32-v2t16/w32,keep6,sliding", kept), 70));
  return all;
}
INSTANTIATE_TEST_SUITE_P(Rules, Window, ::testing::ValuesIn(windows()), [](const auto &info) {
  return ruleName({info.param, 0}) + std::to_string(info.param.attentionWindow);
});

TEST_P(Window, BlocksStayWithinTheBoundWhileDecoding) {
  Harness harness(setup());
  const int32_t a = harness.add();
  for (int i = 0; i < 420; ++i) {
    harness.step({{a}, {1}, {}, 1}, i % 2 == 0);
    checkBlocks(harness, a);
    EXPECT_EQ(harness.report().blocks_used, harness.state(a).blocks);
  }
  EXPECT_GT(harness.state(a).first_block, 0);
  harness.checkRead(a);
}

// A prompt far longer than the window takes no more blocks than the window needs: new pages take turns in them.
TEST_P(Window, LongPromptsGoThroughBlocksThatTakeTurns) {
  const StepData data = {{0}, {1000}, {}, 1000};
  for (int before : {0, 1, 90, 333}) {
    Harness harness(setup());
    const int32_t a = harness.add();
    harness.extend(a, before);
    checkBlocks(harness, a);
    EXPECT_EQ(harness.planBlocks(data), bound());
    harness.step(data);
    checkBlocks(harness, a);
    EXPECT_EQ(harness.report().blocks_used, harness.state(a).blocks);
    harness.checkRead(a);
    harness.step({{a}, {1}, {}, 1}, false);
    harness.extend(a, 130);
    checkBlocks(harness, a);
    harness.checkRead(a);
    harness.remove(a);
    EXPECT_EQ(harness.report().blocks_used, 0);
  }
}

TEST_P(Window, HowALongPromptIsCutChangesNothing) {
  Harness whole(setup()), cut(setup());
  const int32_t a = whole.add(), b = cut.add();
  const StepData prompt = {{a}, {700}, {}, 700};
  Harness::LayerData values = whole.random(prompt);
  kvq_step *step = nullptr;
  KVQ_ASSERT_OK(whole.plan(prompt, &step));
  KVQ_ASSERT_OK(whole.forward(step, 0, values));
  whole.record(prompt, 0, values);
  KVQ_ASSERT_OK(kvq_commit_step(step));
  cut.model[b] = whole.model[a];
  for (int begin = 0, size = 3; begin < 700; begin += size, size = size % 200 + 61) {
    size = std::min(size, 700 - begin);
    KVQ_ASSERT_OK(cut.plan({{b}, {size}, {begin}, 700}, &step));
    KVQ_ASSERT_OK(cut.forward(step, 0, values));
    KVQ_ASSERT_OK(kvq_commit_step(step));
    checkBlocks(cut, b);
  }
  EXPECT_EQ(whole.readAll(a), cut.readAll(b));
  EXPECT_EQ(whole.answers({{a}, {40}, {}, 40}, 3), cut.answers({{b}, {40}, {}, 40}, 3));
}

// step_c1: also of a step whose pages take turns, and of one that would drop pages.
TEST_P(Window, AbortLeavesBlocksAndAnswers) {
  for (int tokens : {1, 50, 600}) {
    Harness harness(setup()), plain(setup());
    const int32_t a = harness.add(), b = plain.add();
    harness.answers({{a}, {300}, {}, 300}, 1);
    plain.answers({{b}, {300}, {}, 300}, 1);
    const std::vector<int32_t> blocks = harness.blocks(a);
    harness.abort({{a}, {tokens}, {}, tokens});
    EXPECT_EQ(harness.blocks(a), blocks);
    EXPECT_EQ(harness.report().blocks_used, static_cast<int64_t>(blocks.size()));
    EXPECT_EQ(harness.readAll(a), plain.readAll(b));
    EXPECT_EQ(harness.answers({{a}, {1}, {}, 1}, 2), plain.answers({{b}, {1}, {}, 1}, 2));
    EXPECT_EQ(harness.answers({{a}, {500}, {}, 500}, 3), plain.answers({{b}, {500}, {}, 500}, 3));
  }
}

// crop_c4: as far back as the window of the next query reaches, and not one token further.
TEST_P(Window, CropGoesBackAsFarAsTheWindowIsThere) {
  for (int length : {320, 341, 500}) {
    Harness harness(setup());
    const int32_t a = harness.add();
    harness.extend(a, length);
    const std::vector<uint8_t> before = harness.snapshot(a);
    const int64_t first = harness.state(a).first_block * 32 + setup().model.keep;
    ASSERT_GT(first, setup().model.keep);
    const int64_t least = first + setup().attentionWindow - 1; // its next query sees `first` and what follows
    EXPECT_LE(least, length - 32);
    for (int64_t tokens : {least - 1, setup().model.keep + int64_t(1)}) {
      int64_t thawed = -1;
      KVQ_EXPECT_ERROR(kvq_sequence_crop(harness.cache, a, tokens, &thawed), KVQ_FAILED_PRECONDITION,
                       "so at most " + std::to_string(length - least) + " tokens can be taken back");
      EXPECT_EQ(thawed, -1);
      EXPECT_EQ(harness.snapshot(a), before);
    }
    const int32_t b = harness.fork(a), c = harness.fork(a), d = harness.fork(a);
    harness.crop(d, setup().model.keep, 0); // crop_c4: without a body token nothing is needed that was dropped
    EXPECT_EQ(harness.state(d).first_block, 0);
    EXPECT_EQ(harness.state(d).blocks, 0);
    harness.extend(d, 90);
    harness.checkRead(d);
    harness.remove(d);
    harness.crop(a, length - 32, 0); // crop_c3
    harness.checkRead(a);
    const auto cropTo = [&](int32_t sequence, int64_t tokens) {
      int64_t thawed = 0;
      for (ModelHead head : harness.model[sequence])
        thawed = head.crop(setup().model, tokens, first - setup().model.keep, [](float value) { return value; });
      harness.crop(sequence, tokens, thawed);
      harness.checkRead(sequence);
    };
    cropTo(b, least);
    cropTo(c, least + 7);
    EXPECT_EQ(harness.state(b).first_block * 32 + setup().model.keep, first);
    // Raw, which looks at what is before the step alone, and stored.
    harness.step({{b, c, a}, {5, 70, 1}, {}, 70, true}, false);
    harness.step({{b, c, a}, {1, 1, 20}, {}, 20});
    harness.extend(b, 200);
    for (int32_t sequence : {a, b, c}) {
      harness.checkRead(sequence);
      ASSERT_LE(harness.state(sequence).blocks, bound());
    }
  }
}

// prefill_c2 and window_c1: a query sees the past through its own window, not through that of the step's begin.
TEST_P(Window, RawStepsSeeThePastThroughTheirOwnWindow) {
  Harness harness(setup());
  const int32_t a = harness.add(), b = harness.add();
  harness.step({{a, b}, {90, 250}, {}, 250, true});
  for (int tokens : {1, 33, 210})
    harness.step({{a, b}, {tokens, 40}, {}, std::max(tokens, 40), true}, tokens != 33);
  harness.step({{a, b}, {10, 1}, {}, 10});
  harness.checkRead(a);
  harness.checkRead(b);
}

TEST_P(Window, SnapshotsHoldWhatIsLeft) {
  Harness harness(setup());
  const int32_t a = harness.add();
  harness.extend(a, 500);
  const std::vector<uint8_t> data = harness.snapshot(a);
  const int32_t b = harness.restore(data, a);
  EXPECT_EQ(harness.state(b).first_block, harness.state(a).first_block);
  EXPECT_EQ(harness.snapshot(b), data);
  harness.step({{a, b}, {300, 1}, {}, 300});
  harness.checkRead(a);
  harness.checkRead(b);
}

TEST_P(Window, ForksDropWhatOthersStillHave) {
  Harness harness(setup());
  const int32_t a = harness.add();
  harness.extend(a, 300);
  const int32_t b = harness.fork(a);
  const std::vector<float> before = harness.readAll(a);
  const int64_t pages = harness.state(a).blocks;
  harness.extend(b, 400);
  EXPECT_EQ(harness.readAll(a), before);
  EXPECT_EQ(harness.report().blocks_used, pages + harness.state(b).blocks); // none is common any more
  harness.extend(a, 100);
  harness.checkRead(a);
  harness.checkRead(b);
  harness.remove(a);
  harness.remove(b);
  EXPECT_EQ(harness.report().blocks_used, 0);
}

TEST(WindowRead, BeginsWhereTokensAreLeft) {
  Harness harness(windowed(small(kBlockText, kBlock), 40));
  const int32_t a = harness.add();
  harness.extend(a, 300); // frontier 256; 300 - 32 - 40 = 228 is the last token that nobody needs: page 7 is left
  ASSERT_EQ(harness.state(a).first_block, 7);
  const auto read = [&](int64_t first, int tokens) {
    Rows k(1, 1, tokens, 16, KVQ_F32), v(1, 1, tokens, 16, KVQ_F32);
    return Outcome(harness.read(a, 0, first, k, v));
  };
  EXPECT_EQ(read(224, 76).code, KVQ_OK);
  EXPECT_EQ(read(299, 1).code, KVQ_OK);
  EXPECT_EQ(read(300, 0).code, KVQ_OK);
  const Outcome dropped = read(223, 77), behind = read(301, 0), negative = read(-1, 300), wrong = read(224, 75),
                least = read(std::numeric_limits<int64_t>::min(), 300);
  EXPECT_EQ(dropped.code, KVQ_FAILED_PRECONDITION);
  EXPECT_NE(dropped.message.find("tokens before 224 of sequence 0 were dropped"), std::string::npos) << dropped.message;
  EXPECT_NE(behind.message.find("first is 301 but must be 0 to the 300 tokens of sequence 0"), std::string::npos);
  EXPECT_NE(negative.message.find("first is -1 but"), std::string::npos) << negative.message;
  EXPECT_EQ(least.code, KVQ_INVALID_ARGUMENT);
  EXPECT_NE(wrong.message.find("k has shape [1, 75, 16] but must have [1, 76, 16]"), std::string::npos);
  // Where nothing was dropped, the last rows of the whole.
  Harness whole(small(kBlockText, kBlock));
  const int32_t b = whole.add();
  whole.extend(b, 100);
  const std::vector<float> all = whole.readAll(b);
  for (int first : {0, 31, 63, 64, 99}) {
    Rows k(1, 1, 100 - first, 16, KVQ_F32), v(1, 1, 100 - first, 16, KVQ_F32);
    KVQ_ASSERT_OK(whole.read(b, 0, first, k, v));
    for (int i = 0; i < (100 - first) * 16; ++i) {
      ASSERT_EQ(k.get(i), all[first * 16 + i]);
      ASSERT_EQ(v.get(i), all[1600 + first * 16 + i]);
    }
  }
}

// Kept tokens that are still to come and a window cannot both be told to a kernel (runtime/cache/planner.h).
TEST(WindowRaw, StepsFromAmongTheKeptTokensAreRefusedWhereTheWindowWouldCut) {
  ModelFormat kept = kBlock;
  kept.keep = 8;
  Harness harness(windowed(small("k4c32-v4t16/w32,keep8,block", kept), 40));
  const int32_t a = harness.add();
  kvq_step *step = nullptr;
  harness.step({{a}, {3}, {}, 3, true});
  KVQ_EXPECT_ERROR(harness.plan({{a}, {38}, {}, 38, true}, &step), KVQ_UNSUPPORTED,
                   "sequence 0 has 3 of the 8 tokens that it keeps in full precision");
  harness.step({{a}, {37}, {}, 37, true}, false);
  harness.step({{a}, {60}, {}, 60, true}, false);
  harness.checkRead(a);
}

} // namespace
