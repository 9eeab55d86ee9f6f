// SPDX-License-Identifier: Apache-2.0
//
// What a handler sees: the warp with its registers, the block it belongs to, and the worker that counts and reports.
#pragma once

#include "runtime/ptxsim/decode/program.h"
#include "runtime/ptxsim/exec/random.h"
#include "runtime/ptxsim/memory/global_memory.h"
#include "runtime/ptxsim/memory/touched_bytes.h"

#include <bit>
#include <memory>
#include <string>

namespace kvq::ptxsim {

struct Block;
struct Worker;
struct WarpAsync;   // memory/async_copy.h: the copies of a warp that are in flight
class SharedMemory; // memory/shared_memory.h
class LocalMemory;  // memory/local_memory.h
class GlobalRaces;  // memory/global_races.h
struct BlockClock;  // likewise

inline constexpr int kLanes = 32;
inline constexpr uint32_t kFull = ~0u;

struct Warp {
  std::byte *frame = nullptr; // aligned to 64
  Block *block = nullptr;
  Worker *worker = nullptr;
  int id = 0;            // in the block
  uint32_t alive = 0;    // lanes that exist and have not exited
  uint32_t existing = 0; // lanes that exist: a block of 40 threads has a second warp of 8
  uint32_t carry = 0;    // the flag of add.cc and its like, a bit a lane
  LocalMemory *local = nullptr;
  WarpAsync *async = nullptr;

  template <typename T> T *at(Slot slot) const { return reinterpret_cast<T *>(frame + slot.lanes); }
  uint32_t &predicate(Slot slot) const { return *reinterpret_cast<uint32_t *>(frame + slot.lanes); }
  uint32_t &written(Slot slot) const { return *reinterpret_cast<uint32_t *>(frame + slot.written); }
};

// A block of threads while it runs.
struct Block {
  uint32_t index[3] = {0, 0, 0};
  uint64_t number = 0; // x + grid.x * (y + grid.y * z)
  std::vector<Warp> warps;
  SharedMemory *shared = nullptr;
  std::shared_ptr<BlockClock> clock; // GlobalRaces makes and renews it by `number`
};

// What the workers of a launch have in common; constant while it runs, except for the memory itself.
struct LaunchState {
  const Kernel *kernel = nullptr;
  const Launch *launch = nullptr;
  Options options;
  GlobalMemory *memory = nullptr;
  GlobalRaces *races = nullptr;                    // null: not checked
  const std::vector<uint8_t> *constants = nullptr; // the .const bank of the module
  int64_t sharedBytes = 0;                         // static and dynamic
};

// One host thread of a launch.
struct Worker {
  const LaunchState *launch = nullptr;
  Counters counters;
  Random random; // of this block: seeded by Options::seed and the block's number
  std::vector<uint64_t> warpExecutions, threadExecutions; // by operation
  std::vector<Finding> findings;
  uint64_t findingsTotal = 0;
  TouchedBytes touched; // TouchedBytes::count() of all workers gives the unique bytes of a launch
  bool check(Check check) const { return launch->options.has(check); }
};

struct Place { // where in memory; for findings
  const char *space = "";
  uint64_t address = 0;
  std::string allocation;
};

// Reports a finding. The first of each (check, line) is kept; lanes is not 0, the lowest lane is named.
void report(Warp &warp, const Op &op, Check check, uint32_t lanes, std::string message, const Place &place = {});

// Calls body(lane) for the lanes of mask; a plain loop over all 32 where mask is full, so that it can be vectorized.
template <typename Body> inline void forLanes(uint32_t mask, Body body) {
  if (mask == kFull) {
    for (int lane = 0; lane < kLanes; ++lane)
      body(lane);
    return;
  }
  for (uint32_t rest = mask; rest; rest &= rest - 1)
    body(std::countr_zero(rest));
}

} // namespace kvq::ptxsim
