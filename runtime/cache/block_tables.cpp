// SPDX-License-Identifier: Apache-2.0
//
// Where the tables lie and how they move.
#include "runtime/cache/block_tables.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace kvq {

static constexpr int64_t kMostEntries = std::numeric_limits<int32_t>::max(); // an index has 32 bits
static constexpr int64_t kLeastRoom = 16;

// Twice what is needed: an entry moves once or twice in its life on average, however long its table becomes.
int64_t BlockTables::roomFor(int64_t entries) { return entries > 0 ? std::max(kLeastRoom, 2 * entries) : 0; }

void BlockTables::grow(int64_t blocks, int slots) {
  tables_.resize(slots);
  order_.reserve(slots);
  // Rearranged tables take half of it at most, so that as many entries come in as are moved before it is full again.
  const int64_t capacity = std::min(kMostEntries, 4 * blocks + 2 * kLeastRoom * slots);
  if (capacity > capacity_)
    changeCapacity(capacity);
}

void BlockTables::changeCapacity(int64_t capacity) {
  auto larger = std::make_unique_for_overwrite<int32_t[]>(capacity);
  std::copy_n(entries_.get(), end_, larger.get());
  moved_ += end_;
  entries_ = std::move(larger);
  capacity_ = capacity;
}

void BlockTables::move(int slot, int64_t begin) {
  Table &table = tables_[slot];
  // All that is needed, for an open step may have filled the room already.
  const int64_t count = std::min(table.needed, table.room);
  std::memmove(entries_.get() + begin, entries_.get() + table.begin, count * sizeof(int32_t));
  moved_ += count;
  table.begin = begin;
  table.changedBegin = begin;
  table.changedEnd = begin + count;
}

std::pair<int64_t, int64_t> BlockTables::takeChanged(int slot) {
  Table &table = tables_[slot];
  const std::pair changed(std::max(table.changedBegin, table.begin),
                          std::min(table.changedEnd, table.begin + table.needed));
  table.changedBegin = kNowhere;
  table.changedEnd = 0;
  return changed;
}

void BlockTables::markAll() {
  for (Table &table : tables_) {
    table.changedBegin = table.begin;
    table.changedEnd = table.begin + table.needed;
  }
}

Status BlockTables::reserve(int slot, int64_t more) {
  Table &table = tables_[slot];
  const int64_t needed = table.size + more;
  if (needed > table.room && roomFor(needed) > capacity_ - end_)
    return rearrange(slot, needed);
  if (needed > table.room) {
    move(slot, end_);
    table.room = roomFor(needed);
    end_ += table.room;
  }
  table.needed = needed;
  return Status::ok();
}

// Packs all tables at the begin of the array, which closes the holes, and then gives each its room, from the last on.
Status BlockTables::rearrange(int grown, int64_t needed) {
  int64_t total = roomFor(needed) - roomFor(tables_[grown].needed);
  for (const Table &table : tables_)
    total += roomFor(table.needed);
  if (total > kMostEntries)
    return {Code::ResourceExhausted, "the block tables of all sequences would take " + std::to_string(total) +
                                         " entries, more than an index of 32 bits can tell apart: remove sequences"};
  if (total > capacity_)
    changeCapacity(std::min(kMostEntries, 2 * total));
  // Nothing fails from here on.
  tables_[grown].needed = needed;
  order_.clear();
  for (int slot = 0; slot < static_cast<int>(tables_.size()); ++slot)
    if (tables_[slot].needed > 0)
      order_.push_back(slot);
    else
      tables_[slot] = {};
  std::sort(order_.begin(), order_.end(), [this](int a, int b) { return tables_[a].begin < tables_[b].begin; });
  int64_t packed = 0;
  for (int slot : order_) {
    move(slot, packed);
    packed += std::min(tables_[slot].needed, tables_[slot].room);
  }
  end_ = total;
  for (auto slot = order_.rbegin(); slot != order_.rend(); ++slot) {
    const int64_t room = roomFor(tables_[*slot].needed);
    total -= room;
    move(*slot, total);
    tables_[*slot].room = room;
  }
  return Status::ok();
}

void BlockTables::dropFront(int slot, int64_t count) {
  Table &table = tables_[slot];
  table.begin += count;
  table.size -= count;
  table.room -= count;
  table.needed = table.size;
}

} // namespace kvq
