// SPDX-License-Identifier: Apache-2.0
//
// Check::WarpRace: two lanes of one warp exchange data through shared memory and no bar.warp.sync stands between. It is
// a hint, off by default: a byte remembers the last warp only, and any bar.warp.sync of the warp counts.
#pragma once

#include "runtime/ptxsim/memory/history.h"

#include <vector>

namespace kvq::ptxsim {

class LaneRaces {
public:
  void reset(int64_t bytes) {
    cells_.assign(size_t(bytes), {});
    epochs_.assign(32, 1);
  }
  void sync(int warp) { ++epochs_[size_t(warp)]; }
  void syncAll() {
    for (uint32_t &epoch : epochs_)
      ++epoch;
  }
  // The lane that the access conflicts with; -1: none. Lanes of one instruction do not conflict with each other:
  // `begin` is called once for it.
  void begin() { ++instruction_; }
  int access(int warp, int lane, AccessKind kind, uint32_t offset, uint32_t bytes);

private:
  struct Cell {
    uint32_t epoch = 0;
    int8_t warp = -1, writer = -1;
    uint32_t readers = 0; // lanes
    uint64_t instruction = 0;
  };
  std::vector<Cell> cells_;
  std::vector<uint32_t> epochs_;
  uint64_t instruction_ = 0;
};

} // namespace kvq::ptxsim
