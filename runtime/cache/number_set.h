// SPDX-License-Identifier: Apache-2.0
//
// A set of numbers 0 .. count - 1 whose least member is found in a few steps however many there are: a bit for each,
// and above them bits of the words that are not zero, level by level up to one word.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvq {

class NumberSet {
public:
  // Room for the numbers below `count`, no fewer than before; the new ones are not members. Nothing else takes memory.
  void grow(int64_t count) {
    for (size_t level = 0;; ++level) {
      count = (count + 63) / 64; // words of the level
      if (level == levels_.size())
        levels_.emplace_back();
      levels_[level].resize(count, 0);
      if (level > 0) // what was one word may now stand under several
        for (size_t word = 0; word < levels_[level - 1].size(); ++word)
          levels_[level][word / 64] |= uint64_t(levels_[level - 1][word] != 0) << word % 64;
      if (count <= 1)
        return;
    }
  }
  bool empty() const { return levels_.back()[0] == 0; }
  bool contains(int64_t number) const { return levels_[0][number / 64] >> number % 64 & 1; }
  void insert(int64_t number) {
    for (auto &level : levels_) {
      level[number / 64] |= uint64_t(1) << number % 64;
      number /= 64;
    }
  }
  void erase(int64_t number) {
    for (auto &level : levels_) {
      level[number / 64] &= ~(uint64_t(1) << number % 64);
      if (level[number / 64] != 0)
        return;
      number /= 64;
    }
  }
  // The least member, which there must be.
  int64_t first() const {
    int64_t number = 0;
    for (auto level = levels_.rbegin(); level != levels_.rend(); ++level)
      number = number * 64 + std::countr_zero((*level)[number]);
    return number;
  }

private:
  std::vector<std::vector<uint64_t>> levels_; // the members, then what stands above them
};

} // namespace kvq
