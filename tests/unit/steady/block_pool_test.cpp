// SPDX-License-Identifier: Apache-2.0
//
// Which block a page gets: docs/format-spec.md page_c4 (numbers), page_c6 (order).
#include "runtime/cache/block_pool.h"
#include "tests/unit/steady/work_counter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

using namespace kvq;
using namespace kvq_test;

namespace {

constexpr int kRun = 4, kHeads = 3; // numbers of a run: 12, of which the first four are blocks

// `count` blocks for a sequence that has some.
void takeMore(BlockPool &pool, std::vector<int32_t> &blocks, int count = 1) {
  for (int i = 0; i < count; ++i)
    blocks.push_back(pool.take(blocks.empty() ? BlockPool::kNone : blocks.back()));
}

TEST(BlockPool, OneSequenceTakesRunsInOrder) {
  BlockPool pool(10, kRun, kHeads);
  std::vector<int32_t> a;
  takeMore(pool, a, 10);
  EXPECT_EQ(a, (std::vector<int32_t>{0, 1, 2, 3, 12, 13, 14, 15, 24, 25}));
  EXPECT_EQ(pool.free(), 0);
  for (int index = 0; index < 10; ++index)
    EXPECT_EQ(pool.numberOf(index), a[index]);
}

TEST(BlockPool, SequencesInTurnsHaveRunsOfTheirOwn) {
  BlockPool pool(12, kRun, kHeads);
  std::vector<int32_t> a, b;
  for (int i = 0; i < 4; ++i) {
    takeMore(pool, a);
    takeMore(pool, b);
  }
  EXPECT_EQ(a, (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(b, (std::vector<int32_t>{12, 13, 14, 15}));
  takeMore(pool, b);
  EXPECT_EQ(b.back(), 24);
  takeMore(pool, a); // no run is empty any more: the lowest free block
  EXPECT_EQ(a.back(), 25);
  takeMore(pool, b); // the next one of its run is a's
  EXPECT_EQ(b.back(), 26);
}

TEST(BlockPool, HolesAreFilledWhenNoRunIsEmpty) {
  BlockPool pool(11, kRun, kHeads);
  std::vector<int32_t> a, b;
  takeMore(pool, a, 11);
  for (int32_t block : {13, 2, 25, 1}) {
    pool.release(block);
    EXPECT_FALSE(pool.isUsed(block));
  }
  takeMore(pool, b, 4); // 1, its neighbour, the lowest, the lowest
  EXPECT_EQ(b, (std::vector<int32_t>{1, 2, 13, 25}));
  EXPECT_EQ(pool.free(), 0);
  // The last run has three blocks; it is empty when these are free.
  for (int32_t block : {24, 25, 26, 0})
    pool.release(block);
  EXPECT_EQ(pool.take(), 24);
  EXPECT_EQ(pool.take(24), 25);
  EXPECT_EQ(pool.take(25), 26);
  EXPECT_EQ(pool.take(26), 0); // there is no block 27
}

TEST(BlockPool, SharedBlocksGoBackWithTheirLastOwner) {
  BlockPool pool(4, kRun, kHeads);
  const int32_t block = pool.take();
  pool.share(block);
  EXPECT_TRUE(pool.isShared(block));
  pool.release(block);
  EXPECT_TRUE(pool.isUsed(block));
  EXPECT_FALSE(pool.isShared(block));
  EXPECT_EQ(pool.free(), 3);
  pool.release(block);
  EXPECT_EQ(pool.free(), 4);
}

TEST(BlockPool, CountsBlocksThatWereEverTaken) {
  BlockPool pool(16, kRun, kHeads);
  const int32_t a = pool.take(), b = pool.take();
  EXPECT_EQ(pool.touched(), 2); // though b has the fifth block
  EXPECT_EQ(b, 12);
  pool.release(a);
  EXPECT_EQ(pool.take(), a);
  EXPECT_EQ(pool.touched(), 2);
  pool.take(a);
  EXPECT_EQ(pool.touched(), 3);
}

TEST(BlockPool, GrowsInItsRuns) {
  BlockPool pool(6, kRun, kHeads);
  std::vector<int32_t> a;
  takeMore(pool, a, 6);
  pool.grow(9);
  EXPECT_EQ(pool.capacity(), 9);
  EXPECT_EQ(pool.free(), 3);
  takeMore(pool, a, 3);
  EXPECT_EQ(a, (std::vector<int32_t>{0, 1, 2, 3, 12, 13, 14, 15, 24}));
  EXPECT_EQ(pool.touched(), 9);
}

// The rule as it is written, looked for from the first block on.
struct Plain {
  std::vector<int> owners;
  int run;
  int take(int previous) {
    const int count = static_cast<int>(owners.size());
    const auto is = [&](int index, int used) { return index < count && (owners[index] > 0) == (used != 0); };
    int found = -1;
    if (previous >= 0 && (previous + 1) % run != 0 && is(previous + 1, 0))
      found = previous + 1;
    for (int first = 0; found < 0 && first < count; first += run) {
      bool empty = true;
      for (int i = first; i < std::min(first + run, count); ++i)
        empty &= is(i, 0);
      if (empty)
        found = first;
    }
    for (int index = 0; found < 0; ++index)
      if (is(index, 0))
        found = index;
    ++owners[found];
    return found;
  }
};

TEST(BlockPool, RandomChangesMatchTheRule) {
  std::mt19937 random(7);
  const auto below = [&random](int count) { return static_cast<int>(random() % count); };
  for (int run : {1, 2, 16}) {
    int capacity = 5 * run + 1;
    BlockPool pool(capacity, run, kHeads);
    Plain plain{std::vector<int>(capacity), run};
    std::set<int> touched;
    std::vector<int> taken; // an index for each owner
    for (int i = 0; i < 20000; ++i) {
      const int what = below(100);
      if (what < (i / 1000 % 2 ? 40 : 60) && pool.free() > 0) { // it fills and empties in turns
        const int previous = taken.empty() || what % 4 == 0 ? -1 : taken[below(static_cast<int>(taken.size()))];
        const int index = plain.take(previous);
        ASSERT_EQ(pool.take(previous < 0 ? BlockPool::kNone : pool.numberOf(previous)), pool.numberOf(index));
        taken.push_back(index);
        touched.insert(index);
      } else if (what == 99 && capacity < 300) {
        capacity += below(2 * run) + 1;
        pool.grow(capacity);
        plain.owners.resize(capacity);
      } else if (!taken.empty()) {
        std::swap(taken[below(static_cast<int>(taken.size()))], taken.back());
        if (what % 5 == 0) {
          pool.share(pool.numberOf(taken.back()));
          ++plain.owners[taken.back()];
          taken.push_back(taken.back());
        } else {
          pool.release(pool.numberOf(taken.back()));
          --plain.owners[taken.back()];
          taken.pop_back();
        }
      }
      ASSERT_EQ(pool.used(), std::count_if(plain.owners.begin(), plain.owners.end(), [](int n) { return n > 0; }));
      ASSERT_EQ(pool.touched(), static_cast<int64_t>(touched.size()));
      const int any = below(capacity);
      ASSERT_EQ(pool.isUsed(pool.numberOf(any)), plain.owners[any] > 0);
      ASSERT_EQ(pool.isShared(pool.numberOf(any)), plain.owners[any] > 1);
    }
  }
}

TEST(NumberSet, FindsTheLeast) {
  NumberSet numbers;
  numbers.grow(1);
  EXPECT_TRUE(numbers.empty());
  numbers.insert(0);
  std::set<int64_t> plain = {0};
  std::mt19937_64 random(3);
  for (int64_t count : {1, 64, 65, 4096, 4097, 300000}) {
    numbers.grow(count);
    for (int i = 0; i < 3000; ++i) {
      const int64_t number = static_cast<int64_t>(random() % count);
      if (i % 3 == 0)
        plain.insert(number), numbers.insert(number);
      else if (const int64_t gone = i % 3 == 1 && !plain.empty() ? *plain.begin() : number; true)
        plain.erase(gone), numbers.erase(gone);
      ASSERT_EQ(numbers.contains(number), plain.count(number) > 0);
      ASSERT_EQ(numbers.empty(), plain.empty());
      if (!plain.empty())
        ASSERT_EQ(numbers.first(), *plain.begin());
    }
  }
}

// A full pool with two holes far apart, which are filled and made again.
TEST(BlockPool, WorkIsThatOfASmallPool) {
  const auto workOf = [](int64_t blocks) {
    BlockPool pool(blocks, 16, 8);
    int32_t last = BlockPool::kNone;
    for (int64_t i = 0; i < blocks; ++i)
      last = pool.take(last);
    const Work before = work();
    for (int i = 0; i < 100; ++i) {
      pool.release(last);
      pool.release(0);
      EXPECT_EQ(pool.take(), 0);
      EXPECT_EQ(pool.take(0), last);
    }
    return (work() - before).blocks;
  };
  const int64_t small = workOf(1000);
  EXPECT_GT(small, 0);
  EXPECT_LE(workOf(1000000), 3 * small); // four levels of the set instead of two
}

} // namespace
