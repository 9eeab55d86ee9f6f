// SPDX-License-Identifier: Apache-2.0
//
// Taking tokens back: docs/format-spec.md crop_c1 to crop_c4, without attention windows (window_test.cpp).
#include "tests/unit/cache_harness.h"

using namespace kvq_test;

namespace {

ModelFormat keeping(ModelFormat format, int keep) {
  format.keep = keep;
  return format;
}

// Worked out by hand from crop_c1 and crop_c2; in tokens, frontiers in body tokens.
struct Cut {
  int64_t to, k, v, thawed;
};
struct CutCase {
  CacheSetup setup;
  int tokens;
  int64_t ring; // of both sides before the cut: body tokens - cap
  std::vector<Cut> cuts;
};
std::ostream &operator<<(std::ostream &out, const CutCase &given) { return out << given.setup; }

const std::vector<CutCase> kCases = {
    // C 32, cap 96. The frontier is 160; as it came is what begins at 104, so 128 is the least that loses nothing.
    {small(kBlockText, kBlock),
     200,
     104,
     {{199, 160, 160, 0},
      {168, 128, 128, 0},
      {150, 128, 128, 0},
      {128, 128, 128, 0},
      {127, 96, 96, 8}, // behind it: 96 to 103 are left as codes only
      {100, 96, 96, 4},
      {96, 96, 96, 0},
      {70, 64, 64, 6},
      {1, 0, 0, 1},
      {0, 0, 0, 0}}},
    // K's group 32, V's unit 1, cap 64. Frontiers 192 and 168, rows from 136 on.
    {small(kSlidingText, kSliding),
     200,
     136,
     {{199, 192, 167, 0},
      {192, 192, 160, 0},
      {191, 160, 159, 0},
      {168, 160, 136, 0},
      {161, 160, 136, 0},
      {159, 128, 128, 8}, // V alone could stay at 136, but does not go ahead of K
      {130, 128, 128, 2},
      {128, 128, 128, 0},
      {100, 96, 96, 4},
      {0, 0, 0, 0}}},
    // 64 tokens at once, unit 32, cap 96. Frontier 192, rows from 104 on.
    {small(kFlushText, kFlush),
     200,
     104,
     {{192, 192, 192, 0},
      {191, 128, 128, 0},
      {128, 128, 128, 0},
      {127, 96, 96, 8},
      {97, 96, 96, 1},
      {64, 64, 64, 0},
      {33, 32, 32, 1}}},
    // The same in body tokens: 5 are kept.
    {small("k4c32-v4t16/w32,keep5,block", keeping(kBlock, 5)),
     205,
     104,
     {{133, 128, 128, 0}, {132, 96, 96, 8}, {75, 64, 64, 6}, {6, 0, 0, 1}, {5, 0, 0, 0}, {3, 0, 0, 0}}},
    // Per token all is cut exactly: the unit is 1, cap 48.
    {small("k8t16-v4t16/w10,flush", {{8, false, 16}, {4, false, 16}, 10, ModelRule::Flush}),
     200,
     152,
     {{199, 190, 190, 0}, {153, 152, 152, 0}, {151, 151, 151, 0}, {77, 77, 77, 0}}},
};

class Crop : public ::testing::TestWithParam<CutCase> {
protected:
  CacheSetup setup() const {
    CacheSetup setup = GetParam().setup;
    setup.layers = 2, setup.qHeads = 2, setup.kvHeads = 2, setup.pageTokens = 32;
    return setup;
  }
};
INSTANTIATE_TEST_SUITE_P(Rules, Crop, ::testing::ValuesIn(kCases),
                         [](const auto &info) { return "Case" + std::to_string(info.index); });

// What kvq_read gives of one token, after `readAll` of a sequence of so many.
std::vector<float> rowsOf(const std::vector<float> &read, const CacheSetup &setup, int64_t tokens, int64_t token,
                          bool isK) {
  std::vector<float> rows;
  const int64_t sideK = int64_t(setup.kvHeads) * tokens * setup.dk, sideV = int64_t(setup.kvHeads) * tokens * setup.dv;
  const int channels = isK ? setup.dk : setup.dv;
  for (int layer = 0; layer < setup.layers; ++layer)
    for (int h = 0; h < setup.kvHeads; ++h) {
      const auto at = read.begin() + layer * (sideK + sideV) + (isK ? 0 : sideK) + (h * tokens + token) * channels;
      rows.insert(rows.end(), at, at + channels);
    }
  return rows;
}

// crop_c1, crop_c2: frontiers and counts; what stays codes or is thawed reads as before, the rest as it came.
TEST_P(Crop, FollowsTheHandWorkedExamples) {
  const CutCase &given = GetParam();
  const int keep = given.setup.model.keep;
  for (const Cut &cut : given.cuts) {
    SCOPED_TRACE("to " + std::to_string(cut.to));
    Harness harness(setup());
    const int32_t a = harness.add();
    harness.extend(a, given.tokens);
    const std::vector<float> before = harness.readAll(a);
    const std::vector<ModelHead> came = harness.model[a]; // never cut: its rows are as they came
    harness.crop(a, cut.to, cut.thawed);
    const kvq_sequence_state state = harness.state(a);
    EXPECT_EQ(state.tokens, cut.to);
    EXPECT_EQ(state.k_frontier, cut.k);
    EXPECT_EQ(state.v_frontier, cut.v);
    EXPECT_EQ(state.blocks, (cut.k + 31) / 32);
    EXPECT_EQ(harness.report().blocks_used, (cut.k + 31) / 32);
    const std::vector<float> after = harness.readAll(a);
    for (bool isK : {true, false})
      for (int64_t token = 0; token < cut.to; ++token) {
        const int64_t body = token - keep;
        if (body >= 0 && body < std::max(isK ? cut.k : cut.v, given.ring)) {
          ASSERT_EQ(rowsOf(after, setup(), cut.to, token, isK), rowsOf(before, setup(), given.tokens, token, isK))
              << token;
          continue;
        }
        std::vector<float> original;
        for (const ModelHead &head : came) {
          const auto row = (isK ? head.k : head.v).rows.begin() + token * 16;
          original.insert(original.end(), row, row + 16);
        }
        ASSERT_EQ(rowsOf(after, setup(), cut.to, token, isK), original) << token;
      }
    // It goes on from there, through commits of what was thawed.
    harness.step({{a}, {1}, {}, 1}, false);
    harness.extend(a, 75);
    harness.checkRead(a);
  }
}

// crop_c2: each token is thawed once.
TEST_P(Crop, ThawsOnce) {
  for (const Cut &cut : GetParam().cuts) {
    SCOPED_TRACE("to " + std::to_string(cut.to));
    Harness harness(setup());
    const int32_t a = harness.add();
    harness.extend(a, GetParam().tokens);
    harness.crop(a, cut.to, cut.thawed);
    harness.crop(a, cut.to, 0);
    for (int tokens : {1, 2, 30}) {
      harness.extend(a, tokens);
      harness.crop(a, cut.to, 0);
      harness.checkRead(a);
    }
  }
}

TEST(Crop, WhatCannotBeIsRefusedAndTheSameLengthChangesNothing) {
  Harness harness(small(kBlockText, kBlock));
  const int32_t a = harness.add();
  harness.extend(a, 120);
  const std::vector<uint8_t> before = harness.snapshot(a);
  int64_t thawed = -7;
  KVQ_EXPECT_ERROR(kvq_sequence_crop(harness.cache, a, 121, &thawed), KVQ_INVALID_ARGUMENT,
                   "sequence 0 has 120 tokens and cannot be cropped to 121: give 0 to its length");
  KVQ_EXPECT_ERROR(kvq_sequence_crop(harness.cache, a, -1, &thawed), KVQ_INVALID_ARGUMENT, "cannot be cropped to -1");
  KVQ_EXPECT_ERROR(kvq_sequence_crop(harness.cache, 2, 0, &thawed), KVQ_INVALID_ARGUMENT, "sequence 2 does not exist");
  KVQ_EXPECT_ERROR(kvq_sequence_crop(nullptr, a, 0, &thawed), KVQ_INVALID_ARGUMENT, "cache is NULL");
  EXPECT_EQ(thawed, -7);
  harness.crop(a, 120, 0);
  EXPECT_EQ(harness.snapshot(a), before);
  KVQ_EXPECT_OK(kvq_sequence_crop(harness.cache, a, 10, nullptr));
  EXPECT_EQ(harness.length(a), 10);
}

class Rollback : public ::testing::TestWithParam<CacheSetup> {};
INSTANTIATE_TEST_SUITE_P(Rules, Rollback, ::testing::ValuesIn(oneOfEachRule()), ruleName);

// Bytes of all pages that are quantized whole.
std::vector<uint8_t> wholePages(Harness &harness, int32_t sequence) {
  std::vector<uint8_t> bytes;
  const kvq_sequence_state state = harness.state(sequence);
  const std::vector<int32_t> blocks = harness.blocks(sequence);
  const int64_t whole = std::min(state.k_frontier, state.v_frontier) / harness.pageTokens();
  for (int layer = 0; layer < harness.setup.layers; ++layer)
    for (int64_t page = 0; page < whole; ++page)
      for (int head = 0; head < harness.setup.kvHeads; ++head) {
        const uint8_t *at = harness.page(layer, blocks[page], head);
        bytes.insert(bytes.end(), at, at + harness.pageBytes());
      }
  return bytes;
}

// crop_c3, bit for bit: 32 tokens that came in one step or in many, with steps that were aborted before, between and
// after them.
TEST_P(Rollback, Of32TokensIsAsIfTheyHadNeverBeen) {
  CacheSetup setup = GetParam();
  setup.qHeads = 1, setup.pageTokens = 32;
  for (int length : {140, 191}) {
    Harness plain(setup);
    const int32_t a = plain.add();
    plain.answers({{a}, {length}, {}, length}, 1);
    const std::vector<float> read = plain.readAll(a);
    const std::vector<uint8_t> pages = wholePages(plain, a);
    EXPECT_FALSE(pages.empty());
    const std::vector<float> next = plain.answers({{a}, {1}, {}, 1}, 2), more = plain.answers({{a}, {70}, {}, 70}, 3);
    for (const auto &[aborted, size] : {std::pair(0, 32), {0, 1}, {1, 11}, {33, 32}, {200, 11}}) {
      SCOPED_TRACE(std::to_string(length) + " tokens, aborted " + std::to_string(aborted) + ", in steps of " +
                   std::to_string(size));
      Harness harness(setup);
      const int32_t b = harness.add();
      const auto abort = [&] {
        if (aborted > 0)
          harness.abort({{b}, {aborted}, {}, aborted});
      };
      harness.answers({{b}, {length}, {}, length}, 1);
      abort();
      for (int done = 0; done < 32; done += size)
        harness.extend(b, std::min(size, 32 - done));
      abort();
      harness.crop(b, length, 0);
      abort();
      EXPECT_EQ(harness.readAll(b), read);
      EXPECT_EQ(wholePages(harness, b), pages);
      EXPECT_EQ(harness.answers({{b}, {1}, {}, 1}, 2), next);
      EXPECT_EQ(harness.answers({{b}, {70}, {}, 70}, 3), more);
    }
  }
}

// Cuts at random, as a model that guesses ahead makes them, with steps in between.
TEST_P(Rollback, ManyCutsMatchTheModel) {
  Harness harness(GetParam());
  const int32_t a = harness.add();
  std::mt19937 random(11);
  harness.extend(a, 130);
  for (int i = 0; i < 40; ++i) {
    harness.extend(a, std::uniform_int_distribution<int>(1, 40)(random));
    const int64_t length = harness.length(a), back = std::uniform_int_distribution<int64_t>(0, 45)(random);
    int64_t thawed = 0;
    std::vector<ModelHead> expected = harness.model[a];
    for (ModelHead &head : expected)
      thawed =
          head.crop(harness.setup.model, std::max<int64_t>(0, length - back), 0, [](float value) { return value; });
    harness.crop(a, std::max<int64_t>(0, length - back), thawed);
    harness.checkRead(a);
  }
}

} // namespace
