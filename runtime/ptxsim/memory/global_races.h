// SPDX-License-Identifier: Apache-2.0
//
// Races between the blocks of a launch on global memory: non-atomic accesses of two blocks to one byte, at least one of
// them writing, that no synchronisation orders. The answer does not depend on the order in which blocks run.
//
// A block is one agent. What it did before a fence (membar.gl, fence of gpu or sys scope) is published by its next
// strong store or atomic to an address, or at once by one that is a release itself. Whoever reads there acquires it: an
// atomic or an .acquire at once, a volatile or relaxed load with the next fence. An atomic needs no fence behind it to
// acquire because CUDA's own sample of the pattern "the last block adds up" has none. Atomics and strong accesses do
// not race with each other, unless their scope is the block.
#pragma once

#include "runtime/ptxsim/memory/global_memory.h"
#include "runtime/ptxsim/memory/history.h"
#include "runtime/ptxsim/options.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace kvq::ptxsim {

struct Block;

// What was published at one address: an append-only log, so that a reader keeps a length instead of a copy.
struct PublishedLog {
  struct Entry {
    uint64_t block;
    uint32_t epoch;
  };
  std::vector<Entry> entries;
  std::unordered_map<uint64_t, std::vector<uint32_t>> byBlock; // positions, ascending in position and epoch
  // The latest epoch of the block among the first `count` entries; 0: none.
  uint32_t epochOf(uint64_t block, size_t count) const;
  void add(uint64_t block, uint32_t epoch);
};

// The part of a vector clock that was read at one address.
struct Acquired {
  std::shared_ptr<PublishedLog> log;
  size_t count;
};

// The clock of a block.
struct BlockClock {
  const void *launch = nullptr; // its GlobalRaces
  uint64_t block = 0;
  uint32_t epoch = 1;
  uint32_t segment = 0; // of the epoch that is under way; 0: it has no access yet
  uint64_t version = 1; // of everything that a step of the histories depends on
  std::vector<Acquired> seen, pending, fenced;
  uint32_t fencedEpoch = 0;
  bool anyFence = false;
  StepCache cache;
};

class GlobalRaces {
public:
  struct Conflict {
    uint32_t lanes = 0; // the lanes whose access conflicts; 0: none
    uint64_t block = 0; // of the earlier access
    AccessKind kind = AccessKind::Read;
  };
  // Of one launch. Several workers may call at once; their blocks must not synchronise then.
  GlobalRaces(const Options &options, int workers) : checks_(options.has(Check::GlobalRace)), threaded_(workers > 1) {}
  bool checks() const { return checks_; }
  // Offsets are within the allocation; see SharedMemory::range and lanes.
  Conflict range(Block &block, const Allocation &allocation, AccessKind kind, uint64_t offset, uint64_t bytes);
  Conflict lanes(Block &block, const Allocation &allocation, AccessKind kind, uint32_t mask, const uint64_t *offsets,
                 uint32_t bytes);
  // Of gpu scope or wider.
  void fence(Block &block);
  void publish(Block &block, uint64_t address, bool isRelease, bool replaces);
  void observe(Block &block, uint64_t address, bool atOnce);

private:
  static constexpr int kPageBits = 12;
  static constexpr uint64_t kPage = uint64_t(1) << kPageBits;
  // 1024 cells for words, or 4096 for bytes once something other than whole words was accessed in it.
  struct Page {
    std::vector<uint32_t> cells = std::vector<uint32_t>(kPage / 4);
    bool bytes = false;
    std::atomic_flag busy;
  };
  struct Pages {
    std::vector<std::atomic<Page *>> at;
    explicit Pages(size_t count) : at(count) {}
    ~Pages();
  };
  class Locked;

  BlockClock &clockOf(Block &block);
  Pages &pagesOf(const Allocation &allocation);
  Page &page(Pages &pages, uint64_t index);
  History::Step look(BlockClock &clock, AccessKind kind, uint32_t list);
  uint32_t step(BlockClock &clock, Page &page, AccessKind kind, uint32_t offset, uint32_t bytes);
  Conflict conflict(uint32_t list, uint32_t lanes);
  bool isOrdered(const BlockClock &clock, uint32_t segment) const;

  const bool checks_, threaded_;
  std::mutex mutex_; // of history_, segments_ and pages_
  History history_;
  std::vector<PublishedLog::Entry> segments_{{0, 0}};
  std::unordered_map<uint64_t, std::unique_ptr<Pages>> pages_; // by base of the allocation
  std::unordered_map<uint64_t, std::shared_ptr<PublishedLog>> published_;
  std::pair<uint64_t, Pages *> recent_[16] = {}; // not used where several workers call
};

} // namespace kvq::ptxsim
