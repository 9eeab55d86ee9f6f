// SPDX-License-Identifier: Apache-2.0
//
// The blocks of a page pool by number: which are free, and how many sequences own each of the others (format-spec
// fork_c1). It holds no memory of the pages themselves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace kvq {

class BlockPool {
public:
  explicit BlockPool(int64_t blocks) { grow(blocks); }

  int64_t capacity() const { return static_cast<int64_t>(owners_.size()); }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  int64_t used() const { return capacity() - free(); }
  int64_t touched() const { return touched_; } // blocks 0 .. touched - 1 have been taken at some time
  bool isUsed(int32_t block) const { return owners_[block] > 0; }
  bool isShared(int32_t block) const { return owners_[block] > 1; }

  // Giving blocks back needs no memory afterwards. The new blocks are taken last: what was never used stays untouched.
  void grow(int64_t blocks) {
    const auto old = static_cast<int32_t>(capacity());
    std::vector<int32_t> free;
    free.reserve(blocks);
    for (auto block = static_cast<int32_t>(blocks - 1); block >= old; --block)
      free.push_back(block);
    free.insert(free.end(), free_.begin(), free_.end());
    owners_.resize(blocks, 0);
    free_ = std::move(free);
  }
  // A free block, which there must be, for one owner.
  int32_t take() {
    const int32_t block = free_.back();
    free_.pop_back();
    owners_[block] = 1;
    touched_ = std::max<int64_t>(touched_, block + 1);
    return block;
  }
  void share(int32_t block) { ++owners_[block]; }
  void release(int32_t block) {
    if (--owners_[block] == 0)
      free_.push_back(block);
  }

private:
  std::vector<int32_t> owners_; // per block
  std::vector<int32_t> free_;   // the next one to use is the last
  int64_t touched_ = 0;
};

} // namespace kvq
