// SPDX-License-Identifier: Apache-2.0
//
// Where pages lie and which blocks sequences get: docs/format-spec.md page_c4, page_c6, and what must not depend on it.
#include "tests/unit/cache_harness.h"

using namespace kvq_test;

namespace {

using Bytes = std::vector<uint8_t>;

// Block rule, window and commit group 32, pages of 32: a page is complete with every 32 tokens beyond the first 32.
CacheSetup pagesOf32(int blocks, int sequences = 4) {
  CacheSetup setup = small(kBlockText, kBlock);
  setup.layers = 2, setup.kvHeads = 2, setup.qHeads = 2, setup.pageTokens = 32;
  setup.blocks = blocks, setup.sequences = sequences;
  return setup;
}

int64_t runBlocks(const Harness &harness) {
  void *pages = nullptr;
  int64_t blockStride = 0, headStride = 0;
  KVQ_EXPECT_OK(kvq_layer_page_strides(harness.cache, 0, &pages, &blockStride, &headStride));
  EXPECT_EQ(blockStride, harness.pageBytes());
  EXPECT_EQ(headStride % blockStride, 0);
  return headStride / blockStride;
}

TEST(Runs, AreAsLongAsPoolAndWindowAllow) {
  for (const auto &[blocks, expected] : {std::pair(1, 1), {2, 2}, {3, 2}, {7, 4}, {15, 8}, {16, 16}, {1000, 16}})
    EXPECT_EQ(runBlocks(Harness(pagesOf32(blocks))), expected) << blocks << " blocks";
  // window_c2: max(window, ring of 96) and 63 tokens more, in pages of 32, and one page.
  for (const auto &[window, expected] : {std::pair(1, 4), {100, 4}, {160, 8}, {380, 8}, {400, 16}, {10000, 16}}) {
    CacheSetup setup = pagesOf32(1000);
    setup.attentionWindow = window;
    EXPECT_EQ(runBlocks(Harness(setup)), expected) << "a window of " << window;
  }
}

TEST(Runs, OfOneSequenceAreInOrder) {
  Harness harness(pagesOf32(18));
  const int32_t a = harness.add();
  harness.extend(a, 132);
  for (int i = 0; i < 18 - 3; ++i)
    harness.extend(a, 32);
  std::vector<int32_t> expected;
  for (int i = 0; i < 16; ++i)
    expected.push_back(i);
  expected.insert(expected.end(), {32, 33}); // two heads
  EXPECT_EQ(harness.blocks(a), expected);
  for (int layer : {0, 1})
    EXPECT_EQ(harness.page(layer, 1, 0) - harness.page(layer, 0, 0), harness.pageBytes());
  harness.checkRead(a);
  kvq_step *step = nullptr;
  KVQ_EXPECT_ERROR(harness.plan({{a}, {32}, {}, 32}, &step), KVQ_RESOURCE_EXHAUSTED, "needs 1 more blocks but 0 of 18");
}

TEST(Runs, OfSequencesInTurnsAreTheirOwn) {
  Harness harness(pagesOf32(12)); // runs of 8 blocks, the second of four only
  const int32_t a = harness.add(), b = harness.add(), c = harness.add();
  for (int i = 0; i < 3; ++i)
    harness.step({{a, b}, {40, 40}, {}, 40}); // 120 tokens: 64 quantized
  EXPECT_EQ(harness.blocks(a), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(harness.blocks(b), (std::vector<int32_t>{16, 17}));
  harness.extend(c, 100); // no run is empty: the lowest free blocks
  EXPECT_EQ(harness.blocks(c), (std::vector<int32_t>{2, 3}));
  harness.extend(a, 32); // what follows is c's
  EXPECT_EQ(harness.blocks(a), (std::vector<int32_t>{0, 1, 4}));
  harness.remove(b);
  const int32_t d = harness.add();
  harness.extend(d, 100);
  EXPECT_EQ(harness.blocks(d), (std::vector<int32_t>{16, 17}));
  for (int32_t sequence : {a, c, d})
    harness.checkRead(sequence);
}

// fork_c1: the writer's copy stands in a run of its own, and what it writes later follows there.
TEST(Runs, OfAForkBeginWithItsFirstCopy) {
  CacheSetup setup = pagesOf32(16);
  setup.pageTokens = 64, setup.blocks = 32;
  Harness harness(setup);
  const int32_t a = harness.add();
  harness.extend(a, 150); // 96 quantized: the second page is half full
  const int32_t b = harness.fork(a);
  harness.extend(b, 100);
  EXPECT_EQ(harness.blocks(a), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(harness.blocks(b), (std::vector<int32_t>{0, 32, 33}));
  harness.extend(a, 100); // a owns its second page alone now
  EXPECT_EQ(harness.blocks(a), (std::vector<int32_t>{0, 1, 2}));
  harness.checkRead(a);
  harness.checkRead(b);
}

// A snapshot holds block after block, in each the pages of its heads, wherever these lie: as when a block's pages lay
// behind each other.
TEST(Runs, DoNotShowInASnapshot) {
  CacheSetup setup = pagesOf32(12, 2);
  Harness harness(setup);
  const int32_t a = harness.add(), b = harness.add();
  for (int i = 0; i < 5; ++i)
    harness.step({{a, b}, {33, 47}, {}, 47});
  const int64_t ring = 32 + 32 + 32, slot = setup.kvHeads * ring * 16 * 4;   // tail_c1; of K, and of V
  const uint8_t *tails = harness.bytes() + 2 * 16 * 2 * harness.pageBytes(); // two layers of two runs
  Bytes expected;
  for (int layer : {0, 1}) {
    for (int32_t block : harness.blocks(b))
      for (int head : {0, 1})
        expected.insert(expected.end(), harness.page(layer, block, head),
                        harness.page(layer, block, head) + harness.pageBytes());
    for (int side : {0, 1}) {
      const uint8_t *tail = tails + ((layer * 2 + side) * 2 + b) * slot;
      expected.insert(expected.end(), tail, tail + slot);
    }
  }
  const Bytes data = harness.snapshot(b);
  ASSERT_GT(data.size(), expected.size());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), data.end() - expected.size()));

  // Into caches whose runs are longer and shorter: the blocks of the new sequence follow each other.
  for (const auto &[blocks, run] : {std::pair(64, 16), {7, 4}}) {
    Harness other([&] {
      CacheSetup changed = setup;
      changed.blocks = blocks;
      return changed;
    }());
    EXPECT_EQ(runBlocks(other), run);
    int32_t c = -1;
    KVQ_ASSERT_OK(kvq_sequence_restore(other.cache, data.data(), data.size(), &c));
    std::vector<int32_t> inOrder;
    for (int i = 0; i < static_cast<int>(harness.blocks(b).size()); ++i)
      inOrder.push_back(i / run * run * 2 + i % run);
    EXPECT_EQ(other.blocks(c), inOrder);
    EXPECT_EQ(other.snapshot(c), data);
    other.model.resize(1);
    other.model[c] = harness.model[b];
    other.checkRead(c);
  }
}

// However a cache came to its size, the memory of a new cache of that size is enough: within a run of 16 blocks, to the
// end of one, past it, from a part of a second one, and into a third.
TEST(Runs, StayWhenTheCacheGrows) {
  const std::pair<int, int> sizes[] = {{2, 2},   {2, 3},   {2, 17},  {2, 33},  {3, 4},   {7, 16},  {15, 16},
                                       {15, 17}, {16, 16}, {16, 17}, {16, 33}, {17, 18}, {17, 33}, {18, 33}};
  for (auto [from, to] : sizes) {
    SCOPED_TRACE(std::to_string(from) + " to " + std::to_string(to));
    Harness harness(pagesOf32(from, 2));
    const int64_t run = runBlocks(harness);
    const int32_t a = harness.add(), b = harness.add();
    harness.step({{a, b}, {70, 66}, {}, 70});
    const std::vector<int32_t> blocks = harness.blocks(a);
    const std::vector<float> before[] = {harness.readAll(a), harness.readAll(b)};
    harness.grow(to, 2);
    EXPECT_EQ(runBlocks(harness), run);
    EXPECT_EQ(harness.blocks(a), blocks);
    EXPECT_EQ(harness.readAll(a), before[0]);
    EXPECT_EQ(harness.readAll(b), before[1]);
    EXPECT_EQ(harness.report().blocks_capacity, to);
    harness.extend(a, 32 * (to - 2)); // all that there is
    EXPECT_EQ(harness.report().blocks_used, to);
    harness.checkRead(a);
    harness.checkRead(b);
  }
}

TEST(Runs, HaveNumbersOf32Bits) {
  Harness harness(pagesOf32(16));
  kvq_cache_config config = harness.config();
  size_t bytes = 0;
  config.kv_heads = config.q_heads = 8;
  config.blocks = 268435440;
  KVQ_EXPECT_OK(kvq_cache_memory_bytes(&config, &bytes));
  ++config.blocks;
  KVQ_EXPECT_ERROR(kvq_cache_memory_bytes(&config, &bytes), KVQ_INVALID_ARGUMENT,
                   "blocks 268435441 is too large: at most 268435440 with 8 kv_heads");
  config.kv_heads = config.q_heads = 65536;
  config.blocks = int64_t(1) << 40;
  KVQ_EXPECT_ERROR(kvq_cache_memory_bytes(&config, &bytes), KVQ_INVALID_ARGUMENT, "at most 32752 with 65536 kv_heads");
}

TEST(Runs, AreNamedByKvqLayerPageStrides) {
  Harness harness(pagesOf32(16));
  void *pages = nullptr;
  int64_t blockStride = 0, headStride = 0;
  KVQ_EXPECT_ERROR(kvq_layer_page_strides(harness.cache, 0, &pages, &blockStride, nullptr), KVQ_INVALID_ARGUMENT,
                   "head_stride is NULL");
  KVQ_EXPECT_ERROR(kvq_layer_page_strides(harness.cache, 2, &pages, &blockStride, &headStride), KVQ_INVALID_ARGUMENT,
                   "layer 2 does not exist");
  EXPECT_EQ(pages, nullptr);
  KVQ_ASSERT_OK(kvq_layer_page_strides(harness.cache, 1, &pages, &blockStride, &headStride));
  EXPECT_EQ(pages, harness.address() + 16 * 2 * harness.pageBytes());
}

TEST(Runs, AreBlocksAsBeforeWithOneHead) {
  void *pages = nullptr;
  int64_t stride = 0;
  KVQ_EXPECT_ERROR(kvq_layer_pages(Harness(pagesOf32(16)).cache, 0, &pages, &stride), KVQ_UNSUPPORTED,
                   "the cache has 2 KV heads, whose pages do not lie together in a block: use kvq_layer_page_strides");
  CacheSetup setup = pagesOf32(16);
  setup.kvHeads = setup.qHeads = 1;
  Harness harness(setup);
  KVQ_ASSERT_OK(kvq_layer_pages(harness.cache, 1, &pages, &stride));
  EXPECT_EQ(pages, harness.address() + 16 * harness.pageBytes());
  EXPECT_EQ(stride, harness.pageBytes());
}

} // namespace
