// SPDX-License-Identifier: Apache-2.0
//
// Shared memory of a block: its bytes, which of them were written or are still being copied, and the race check between
// warps.
//
// Ordering is by vector clocks of warps, and exact for every barrier: one that all warps meet at starts a new epoch, in
// which nothing before it counts (O(1)); everything else (named barriers of some warps, bar.arrive with bar.sync,
// mbarriers, fences with atomics) releases a Token and acquires it. Atomics and volatile accesses do not race with each
// other. They order other accesses as in global memory: what a warp did before a fence is released by its next atomic
// or volatile store; an atomic that reads acquires at once, a volatile load does with the next fence.
#pragma once

#include "runtime/ptxsim/memory/history.h"
#include "runtime/ptxsim/options.h"

#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

namespace kvq::ptxsim {

class LaneRaces;
class Mbarriers;

class SharedMemory {
public:
  static constexpr uint8_t kWritten = 1, kInFlight = 2; // of state()
  struct Token {                                        // what a warp has done and seen at one moment
    uint32_t epoch = 0;
    std::array<uint32_t, 32> clocks{};
  };
  struct Conflict {
    uint32_t lanes = 0; // the lanes whose access conflicts
    int warp = -1;      // of the earlier access
    AccessKind kind = AccessKind::Read;
  };

  SharedMemory();
  ~SharedMemory();
  // For the next block: `warps` has a bit for each of its warps. Nothing is written, nothing was accessed.
  void reset(int64_t bytes, uint32_t warps, const Options &options);
  int64_t size() const { return size_; }
  uint8_t *data() { return data_.data(); }
  uint8_t *state() { return state_.data(); } // for each byte kWritten and kInFlight

  // All these warps have met: what each did before is ordered before what each does afterwards.
  void barrier(uint32_t warps);
  // What `warp` did so far is ordered before what those do who acquire the token. Tokens collect.
  void release(int warp, Token &token);
  void acquire(int warp, const Token &token);
  // membar and fence of any scope.
  void fence(int warp);
  // A strong store or an atomic: publishes what came before the last fence, or everything where it is a release itself.
  // A store replaces what was published there before, an atomic adds to it. Addresses are generic: a flag in global
  // memory orders the warps of a block as well.
  void publish(int warp, uint64_t address, bool isRelease, bool replaces);
  // A strong load or an atomic has read there: the warp acquires at once, or with its next fence.
  void observe(int warp, uint64_t address, bool atOnce);
  // bar.warp.sync, for Check::WarpRace.
  void warpSync(int warp);

  // Bytes of a copy that is under way.
  void beginCopy(uint32_t offset, uint32_t bytes);
  void endCopy(uint32_t offset, uint32_t bytes); // they are written
  bool anyInFlight() const { return inFlight_ > 0; }

  // The race check. `range`: one access of consecutive bytes by a warp, lanes of `laneBytes` each; `lanes`: one at
  // offsets[lane] for each lane of the mask.
  bool checksRaces() const { return races_; }
  Conflict range(int warp, AccessKind kind, uint32_t offset, uint32_t bytes);
  Conflict lanes(int warp, AccessKind kind, uint32_t mask, const uint32_t *offsets, uint32_t bytes);
  LaneRaces *laneRaces() { return laneRaces_.get(); } // null: not checked
  Mbarriers &mbarriers() { return *mbarriers_; }

private:
  static constexpr uint32_t kPageBits = 8, kPage = 1u << kPageBits;
  History::Step look(int warp, AccessKind kind, uint32_t list);
  uint32_t step(int warp, AccessKind kind, uint32_t offset, uint32_t bytes);
  void useBytes(uint32_t page);
  void forgetAccesses();
  Conflict conflict(uint32_t list, uint32_t lanes) const;

  int64_t size_ = 0;
  std::vector<uint8_t> data_, state_;
  int64_t inFlight_ = 0; // bytes
  bool races_ = false;

  // A page of 256 bytes has 64 cells, or 256 once something other than whole words was accessed in it.
  std::vector<uint32_t> cells_;
  std::vector<uint8_t> byteCells_;
  std::vector<uint32_t> bytePages_;
  History history_;
  StepCache cache_;
  uint64_t generation_ = 0; // of what cache_ holds: grows with every synchronisation

  uint32_t warps_ = 0;
  uint32_t epoch_ = 1;
  bool partial_ = false; // clocks_ or seen_ are not as at the start of an epoch
  std::array<uint32_t, 32> clocks_{};
  std::array<std::array<uint32_t, 32>, 32> seen_{};
  bool anyFence_ = false;
  std::array<Token, 32> fenced_{}, pending_{};
  std::unordered_map<uint64_t, Token> published_;
  std::unique_ptr<LaneRaces> laneRaces_;
  std::unique_ptr<Mbarriers> mbarriers_;
};

} // namespace kvq::ptxsim
