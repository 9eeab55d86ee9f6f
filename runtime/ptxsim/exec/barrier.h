// SPDX-License-Identifier: Apache-2.0
//
// The sixteen named barriers of a block: bar.sync, bar.arrive, bar.red and their barrier.* spellings. As on the
// hardware a barrier counts warps: a warp is there when all of its lanes that have not left the kernel are.
#pragma once

#include "runtime/ptxsim/exec/warp_run.h"
#include "runtime/ptxsim/memory/shared_memory.h"

#include <array>
#include <span>

namespace kvq::ptxsim {

// Form::tag of a barrier instruction.
enum class BarrierKind : uint8_t { Sync, Arrive, Popc, And, Or };
BarrierKind barrierKind(const Op &op);
bool barrierAligned(const Op &op); // every lane of the warp must execute it together

class Barriers {
public:
  // For the next block. The runs stay where they are while it runs.
  void reset(std::span<WarpRun> warps);
  // Lanes of a split arrive. True: the split goes on at once (bar.arrive, or it was the last one); otherwise it waits,
  // in state Barrier, and becomes Ready when the last one arrives.
  bool arrive(WarpRun &warp, Split &split, const Op &op);
  // After lanes have left the kernel: barriers that waited only for them are complete.
  void settle();
  uint64_t completed() const { return completed_; } // since the last reset

private:
  struct Named {
    bool used = false;                    // somebody has arrived
    uint32_t threads = 0;                 // expected; 0: the whole block
    std::array<uint32_t, 32> lanes = {};  // that have arrived, by warp
    std::array<uint32_t, 32> values = {}; // their predicates, for bar.red
    uint32_t syncing = 0;                 // warps that wait; the others have only arrived
  };
  bool isComplete(const Named &barrier) const;
  void release(int number);
  void deliver(const Named &barrier, WarpRun &run, const Split &split) const;
  void checkArrival(const Named &barrier, WarpRun &run, const Split &split, const Op &op, uint32_t threads) const;

  std::span<WarpRun> warps_;
  std::array<Named, 16> named_;
  std::array<SharedMemory::Token, 16> tokens_;
  uint64_t completed_ = 0;
};

} // namespace kvq::ptxsim
