// SPDX-License-Identifier: Apache-2.0
//
// Mbarriers of a block. The object in shared memory holds the counts, as a program may only see it through its
// instructions; what the race check needs lies beside it, by address.
#pragma once

#include "runtime/ptxsim/memory/shared_memory.h"

namespace kvq::ptxsim {

struct Warp;

// The 8 bytes of an mbarrier: the parity of the phase that is under way, arrivals still expected in it, arrivals of a
// whole phase, and bytes of bulk copies still expected.
struct MbarrierWord {
  static constexpr uint32_t kMaxCount = (1u << 20) - 1;
  uint32_t phase = 0; // counts on; its parity is what programs ask for
  uint32_t pending = 0, expected = 0;
  int32_t bytes = 0;
};

class Mbarriers {
public:
  // Copies of a warp that arrive at the mbarrier when they are complete: those of the lanes that were issued before.
  struct Copies {
    Warp *warp;
    uint32_t lanes;
    uint64_t before; // serial number
  };
  struct State {
    MbarrierWord word;
    SharedMemory::Token current, completed;      // released in the phase under way, and in the last complete one
    std::vector<Copies> copies, completedCopies; // likewise; delivered when somebody sees the phase complete
  };
  void reset() { states_.clear(); }
  State *find(uint32_t offset) {
    const auto found = states_.find(offset);
    return found == states_.end() ? nullptr : &found->second;
  }
  State &init(uint32_t offset, uint32_t count) {
    State &state = states_[offset] = State();
    state.word.pending = state.word.expected = count;
    return state;
  }
  void inval(uint32_t offset) { states_.erase(offset); }

private:
  std::unordered_map<uint32_t, State> states_;
};

} // namespace kvq::ptxsim
