// SPDX-License-Identifier: Apache-2.0
//
// The cp.async of a warp. A copy is under way from its issue until its thread waits for it: its bytes of shared memory
// are marked, and the data comes at the time that Options::cpAsync says. For the race check the copy writes twice, when
// it is issued and when it is waited for: other warps need a barrier behind the wait. One that arrives at an mbarrier
// writes when the arrival is asked for, which is released to whoever waits for the phase.
#pragma once

#include "runtime/ptxsim/exec/warp.h"

namespace kvq::ptxsim {

struct AsyncCopy {
  uint64_t serial = 0;
  uint32_t lanes = 0;     // under way
  uint32_t delivered = 0; // lanes whose data is in place already
  uint32_t arrived = 0;   // lanes whose arrival at an mbarrier was asked for
  uint32_t group = 0;     // of each of its lanes
  uint32_t bytes = 0;     // of a lane: 4, 8 or 16
  uint32_t to[kLanes];
  const uint8_t *from[kLanes];
  uint8_t fromBytes[kLanes]; // the rest is zeros
};

struct WarpAsync {
  std::vector<AsyncCopy> copies; // in the order of their issue
  uint32_t group[kLanes] = {};   // of each lane: the one that its next copy joins
  uint64_t serial = 0;

  void reset();
  // Takes the copy of these lanes; its group and serial number are set here.
  void issue(Warp &warp, const AsyncCopy &copy);
  void commit(uint32_t lanes);
  // All committed groups of each lane but its last `left` are complete.
  void waitGroups(Warp &warp, uint32_t lanes, uint32_t left);
  void waitAll(Warp &warp, uint32_t lanes);
  // Their copies so far are about to arrive at an mbarrier: for the race check they are written by now.
  void arrive(Warp &warp, uint32_t lanes);
  // Somebody has seen that those with a lower serial number have arrived.
  void completeArrived(Warp &warp, uint32_t lanes, uint64_t before);
};

} // namespace kvq::ptxsim
