// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/memory/shared_memory.h"
#include "runtime/ptxsim/memory/lane_races.h"
#include "runtime/ptxsim/memory/mbarrier.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace kvq::ptxsim {

namespace {

// A segment of a warp: its number and its clock.
constexpr uint32_t segmentOf(int warp, uint32_t clock) { return clock << 5 | uint32_t(warp); }
constexpr int warpOf(uint32_t segment) { return int(segment & 31); }
constexpr uint32_t clockOf(uint32_t segment) { return segment >> 5; }

constexpr uint32_t kEachByte = 0x01010101;

void join(std::array<uint32_t, 32> &into, const std::array<uint32_t, 32> &from) {
  for (size_t i = 0; i < 32; ++i)
    into[i] = std::max(into[i], from[i]);
}

} // namespace

SharedMemory::SharedMemory() : mbarriers_(std::make_unique<Mbarriers>()) { clocks_.fill(1); }
SharedMemory::~SharedMemory() = default;

void SharedMemory::reset(int64_t bytes, uint32_t warps, const Options &options) {
  size_ = bytes;
  const size_t pages = (size_t(bytes) + kPage - 1) >> kPageBits;
  data_.assign(size_t(bytes), 0xff);
  state_.assign(size_t(bytes), 0);
  inFlight_ = 0;
  races_ = options.has(Check::SharedRace);
  warps_ = warps;
  if (cells_.size() < pages * kPage) {
    cells_.resize(pages * kPage, History::kEmpty);
    byteCells_.resize(pages, 0);
  }
  for (uint32_t page : bytePages_)
    byteCells_[page] = 0;
  bytePages_.clear();
  forgetAccesses();
  mbarriers_->reset();
  if (options.has(Check::WarpRace)) {
    if (!laneRaces_)
      laneRaces_ = std::make_unique<LaneRaces>();
    laneRaces_->reset(bytes);
  } else {
    laneRaces_.reset();
  }
}

void SharedMemory::forgetAccesses() {
  if (history_.clear())
    std::fill(cells_.begin(), cells_.end(), History::kEmpty);
  ++generation_;
  ++epoch_;
  if (partial_) {
    clocks_.fill(1);
    for (auto &row : seen_)
      row.fill(0);
    partial_ = false;
  }
  if (anyFence_) {
    fenced_.fill({});
    pending_.fill({});
    published_.clear();
    anyFence_ = false;
  }
}

void SharedMemory::barrier(uint32_t warps) {
  if (laneRaces_)
    laneRaces_->syncAll();
  if (warps == warps_) {
    forgetAccesses();
    return;
  }
  partial_ = true;
  ++generation_;
  std::array<uint32_t, 32> all{};
  for (uint32_t rest = warps; rest; rest &= rest - 1) {
    const int warp = std::countr_zero(rest);
    join(all, seen_[size_t(warp)]);
    all[size_t(warp)] = std::max(all[size_t(warp)], clocks_[size_t(warp)]);
  }
  for (uint32_t rest = warps; rest; rest &= rest - 1) {
    const int warp = std::countr_zero(rest);
    seen_[size_t(warp)] = all;
    ++clocks_[size_t(warp)];
  }
}

void SharedMemory::release(int warp, Token &token) {
  partial_ = true;
  ++generation_;
  if (token.epoch != epoch_)
    token = {epoch_, {}}; // what was released in an epoch before is ordered anyway
  join(token.clocks, seen_[size_t(warp)]);
  uint32_t &own = token.clocks[size_t(warp)];
  own = std::max(own, clocks_[size_t(warp)]);
  ++clocks_[size_t(warp)];
}

void SharedMemory::acquire(int warp, const Token &token) {
  if (token.epoch != epoch_)
    return;
  partial_ = true;
  ++generation_;
  join(seen_[size_t(warp)], token.clocks);
}

void SharedMemory::fence(int warp) {
  if (!races_)
    return;
  anyFence_ = true;
  acquire(warp, pending_[size_t(warp)]);
  pending_[size_t(warp)] = {};
  fenced_[size_t(warp)] = {};
  release(warp, fenced_[size_t(warp)]);
}

void SharedMemory::publish(int warp, uint64_t address, bool isRelease, bool replaces) {
  if (!races_)
    return;
  if (isRelease) {
    anyFence_ = true;
    Token &token = published_[address];
    if (replaces)
      token = {};
    release(warp, token);
    return;
  }
  if (!anyFence_)
    return;
  if (replaces)
    published_[address] = {};
  const Token &fenced = fenced_[size_t(warp)];
  if (fenced.epoch != epoch_)
    return;
  Token &token = published_[address];
  if (token.epoch != epoch_)
    token = {epoch_, {}};
  join(token.clocks, fenced.clocks);
}

void SharedMemory::observe(int warp, uint64_t address, bool atOnce) {
  if (!anyFence_)
    return;
  const auto found = published_.find(address);
  if (found == published_.end() || found->second.epoch != epoch_)
    return;
  if (atOnce)
    return acquire(warp, found->second);
  Token &pending = pending_[size_t(warp)];
  if (pending.epoch != epoch_)
    pending = {epoch_, {}};
  join(pending.clocks, found->second.clocks);
}

void SharedMemory::warpSync(int warp) {
  if (laneRaces_)
    laneRaces_->sync(warp);
}

// Copies are whole words.
void SharedMemory::beginCopy(uint32_t offset, uint32_t bytes) {
  for (uint32_t at = offset; at < offset + bytes; at += 4) {
    uint32_t flags;
    std::memcpy(&flags, state_.data() + at, 4);
    inFlight_ += std::popcount(~flags & kInFlight * kEachByte);
    flags |= kInFlight * kEachByte;
    std::memcpy(state_.data() + at, &flags, 4);
  }
}

void SharedMemory::endCopy(uint32_t offset, uint32_t bytes) {
  for (uint32_t at = offset; at < offset + bytes; at += 4) {
    uint32_t flags;
    std::memcpy(&flags, state_.data() + at, 4);
    inFlight_ -= std::popcount(flags & kInFlight * kEachByte);
    flags = kWritten * kEachByte;
    std::memcpy(state_.data() + at, &flags, 4);
  }
}

History::Step SharedMemory::look(int warp, AccessKind kind, uint32_t list) {
  const uint64_t key = generation_ << 8 | uint64_t(warp) << 2 | uint64_t(kind);
  StepCache::Entry &entry = cache_.entry(list, key);
  if (entry.key != key || entry.list != list) {
    const auto &seen = seen_[size_t(warp)];
    entry.step = history_.step(
        list, kind, segmentOf(warp, clocks_[size_t(warp)]),
        [&](uint32_t segment) { return seen[size_t(warpOf(segment))] >= clockOf(segment); },
        [&](uint32_t segment) { return warpOf(segment) == warp; });
    entry.key = key;
    entry.list = list;
  }
  return entry.step;
}

void SharedMemory::useBytes(uint32_t page) {
  uint32_t *cells = cells_.data() + size_t(page) * kPage;
  for (int i = kPage - 1; i >= 0; --i)
    cells[i] = cells[i / 4];
  byteCells_[page] = 1;
  bytePages_.push_back(page);
}

// A range within one page.
inline uint32_t SharedMemory::step(int warp, AccessKind kind, uint32_t offset, uint32_t bytes) {
  const uint32_t page = offset >> kPageBits;
  if (!byteCells_[page] && ((offset | bytes) & 3))
    useBytes(page);
  const uint32_t shift = byteCells_[page] ? 0 : 2;
  uint32_t *cells = cells_.data() + size_t(page) * kPage + ((offset & (kPage - 1)) >> shift);
  return stepCells(history_, cells, bytes >> shift, [&](uint32_t list) { return look(warp, kind, list); });
}

SharedMemory::Conflict SharedMemory::conflict(uint32_t list, uint32_t lanes) const {
  if (list == History::kEmpty)
    return {};
  const History::Node &node = history_.node(list);
  return {lanes, warpOf(node.segment), node.kind};
}

SharedMemory::Conflict SharedMemory::range(int warp, AccessKind kind, uint32_t offset, uint32_t bytes) {
  uint32_t found = History::kEmpty;
  while (bytes > 0) {
    const uint32_t now = std::min(bytes, kPage - (offset & (kPage - 1)));
    if (const uint32_t list = step(warp, kind, offset, now); found == History::kEmpty)
      found = list;
    offset += now;
    bytes -= now;
  }
  return conflict(found, ~0u);
}

SharedMemory::Conflict SharedMemory::lanes(int warp, AccessKind kind, uint32_t mask, const uint32_t *offsets,
                                           uint32_t bytes) {
  Conflict result;
  const auto add = [&](const Conflict &one, int lane) {
    if (one.warp >= 0)
      result = {result.lanes | 1u << lane, one.warp, one.kind};
  };
  const uint32_t words = bytes / 4;
  uint32_t last = ~0u; // a list that was looked up, and its step
  History::Step step;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    const uint32_t offset = offsets[lane], page = offset >> kPageBits;
    if (((offset | bytes) & 3) || byteCells_[page] || (offset & (kPage - 1)) + bytes > kPage) {
      add(range(warp, kind, offset, bytes), lane);
      continue;
    }
    uint32_t *cells = cells_.data() + size_t(page) * kPage + ((offset & (kPage - 1)) >> 2);
    for (uint32_t i = 0; i < words; ++i) {
      if (const uint32_t from = history_.current(cells[i]); from != last) {
        step = look(warp, kind, from);
        last = from;
      }
      cells[i] = step.next;
      if (step.conflict != History::kEmpty)
        add(conflict(step.conflict, 1u << lane), lane);
    }
  }
  return result;
}

} // namespace kvq::ptxsim
