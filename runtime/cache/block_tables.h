// SPDX-License-Identifier: Apache-2.0
//
// The block tables of all sequences in one array: the attend kernel finds a table by an index of 32 bits into it
// (kvq_attend_item). Each table has room behind its entries, where an open step puts the blocks that it has reserved;
// committing makes them entries. So no step copies a table, and one that grows moves now and then, as a vector does.
#pragma once

#include "runtime/format/status.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace kvq {

class BlockTables {
public:
  // Takes memory, which costs nothing until it is used, for tables of all blocks of a pool that no two sequences share:
  // these never allocate.
  BlockTables(int64_t blocks, int slots) { grow(blocks, slots); }
  void grow(int64_t blocks, int slots);

  std::span<const int32_t> of(int slot) const { return {entry(slot, 0), static_cast<size_t>(tables_[slot].size)}; }
  const int32_t *data() const { return entries_.get(); }
  int64_t begin(int slot) const { return tables_[slot].begin; } // of a table in data(), until the next reserve
  // An entry, or the room behind them that was reserved; at() is for writing it.
  int32_t get(int slot, int64_t index) const { return *entry(slot, index); }
  int32_t &at(int slot, int64_t index) {
    Table &table = tables_[slot];
    table.changedBegin = std::min(table.changedBegin, table.begin + index);
    table.changedEnd = std::max(table.changedEnd, table.begin + index + 1);
    return *entry(slot, index);
  }

  // For whoever keeps a copy of data(): the indices [first, second) of a table that were written since the last call,
  // or before it moved there.
  std::pair<int64_t, int64_t> takeChanged(int slot);
  void markAll(); // there is no copy any more
  int64_t capacity() const { return capacity_; }

  // Room for `more` entries behind those that are there. All tables may move. ResourceExhausted if the array becomes
  // too long for its index.
  Status reserve(int slot, int64_t more);
  // The table ends there; room that a larger size takes in must have been reserved and written.
  void resize(int slot, int64_t size) { tables_[slot].size = tables_[slot].needed = size; }
  void dropFront(int slot, int64_t count);

  // Entries that were moved so far: what tests count.
  int64_t moved() const { return moved_; }

private:
  static constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();
  struct Table {
    int64_t begin = 0, size = 0, room = 0;
    int64_t needed = 0;                              // size and what was reserved
    int64_t changedBegin = kNowhere, changedEnd = 0; // indices of the array; it may reach beyond the table
  };
  int32_t *entry(int slot, int64_t index) const { return entries_.get() + tables_[slot].begin + index; }
  static int64_t roomFor(int64_t entries);
  void move(int slot, int64_t begin);
  Status rearrange(int grown, int64_t needed);
  void changeCapacity(int64_t capacity);

  std::vector<Table> tables_;
  std::vector<int> order_; // slots by where their tables begin; scratch of rearrange
  std::unique_ptr<int32_t[]> entries_;
  int64_t capacity_ = 0, end_ = 0; // end_: behind the last table
  int64_t moved_ = 0;
};

} // namespace kvq
