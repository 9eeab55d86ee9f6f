// SPDX-License-Identifier: Apache-2.0
//
// The blocks of a page pool by number (format-spec page_c4): which are free, and how many sequences own each of the
// others (fork_c1). It holds no memory of the pages themselves. Inside, a block is an index 0 .. capacity - 1.
#pragma once

#include "runtime/cache/number_set.h"

#include <cstdint>
#include <vector>

namespace kvq {

class BlockPool {
public:
  static constexpr int32_t kNone = -1; // in place of a number

  BlockPool(int64_t blocks, int64_t runBlocks, int64_t kvHeads)
      : runBlocks_(runBlocks), runNumbers_(runBlocks * kvHeads) {
    grow(blocks);
  }

  int64_t capacity() const { return static_cast<int64_t>(owners_.size()); }
  int64_t free() const { return free_; }
  int64_t used() const { return capacity() - free(); }
  int64_t touched() const { return touched_; } // blocks that have been taken at some time
  bool isUsed(int32_t block) const { return owners_[indexOf(block)] > 0; }
  bool isShared(int32_t block) const { return owners_[indexOf(block)] > 1; }
  int32_t numberOf(int64_t index) const {
    return static_cast<int32_t>(index / runBlocks_ * runNumbers_ + index % runBlocks_);
  }

  // Giving blocks back needs no memory afterwards.
  void grow(int64_t blocks);
  // A free block, which there must be, for one owner (page_c6): the one behind `previous` in its run; or the first of a
  // run that nobody uses, so that what comes next has room behind it; or any, the lowest. What was never used stays
  // untouched as long as the lower ones suffice.
  int32_t take(int32_t previous = kNone);
  void share(int32_t block) { ++owners_[indexOf(block)]; }
  void release(int32_t block);

private:
  static constexpr int32_t kNeverTaken = -1;
  int64_t indexOf(int32_t block) const { return block / runNumbers_ * runBlocks_ + block % runNumbers_; }
  int64_t choose(int32_t previous) const;

  int64_t runBlocks_, runNumbers_;   // blocks of a run, and the numbers that it takes up
  std::vector<int32_t> owners_;      // per block; kNeverTaken counts as 0
  std::vector<int32_t> usedInRun_;   // per run
  NumberSet freeBlocks_, emptyRuns_; // by index
  int64_t free_ = 0, touched_ = 0;
};

} // namespace kvq
