// SPDX-License-Identifier: Apache-2.0
//
// Which block a sequence gets, and what becomes of it. Everything but growing takes the same few steps in any pool.
#include "runtime/cache/block_pool.h"

namespace kvq {

void BlockPool::grow(int64_t blocks) {
  const int64_t old = capacity(), runs = (blocks + runBlocks_ - 1) / runBlocks_;
  freeBlocks_.grow(blocks);
  emptyRuns_.grow(runs);
  for (int64_t index = old; index < blocks; ++index)
    freeBlocks_.insert(index);
  for (auto run = static_cast<int64_t>(usedInRun_.size()); run < runs; ++run)
    emptyRuns_.insert(run);
  owners_.resize(blocks, kNeverTaken);
  usedInRun_.resize(runs, 0);
  free_ += blocks - old;
}

int64_t BlockPool::choose(int32_t previous) const {
  if (previous != kNone) {
    const int64_t next = indexOf(previous) + 1;
    if (next % runBlocks_ != 0 && next < capacity() && freeBlocks_.contains(next))
      return next;
  }
  return emptyRuns_.empty() ? freeBlocks_.first() : emptyRuns_.first() * runBlocks_;
}

int32_t BlockPool::take(int32_t previous) {
  const int64_t index = choose(previous), run = index / runBlocks_;
  touched_ += owners_[index] == kNeverTaken;
  owners_[index] = 1;
  freeBlocks_.erase(index);
  if (usedInRun_[run]++ == 0)
    emptyRuns_.erase(run);
  --free_;
  return numberOf(index);
}

void BlockPool::release(int32_t block) {
  const int64_t index = indexOf(block), run = index / runBlocks_;
  if (--owners_[index] > 0)
    return;
  freeBlocks_.insert(index);
  if (--usedInRun_[run] == 0)
    emptyRuns_.insert(run);
  ++free_;
}

} // namespace kvq
