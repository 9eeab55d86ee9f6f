// SPDX-License-Identifier: Apache-2.0
//
// A device with memory and streams of its own whose kernels are the scalar reference: libfake_accelerator.so stands in
// for libkvq-ptxsim.so (KVQ_PTXSIM), so that whatever makes a context on device "ptxsim" gets it. It is as hostile as
// the rules of runtime/device/accelerator.h allow: its memory is closed to the host, work is done only when somebody
// waits for it, and pointers that a kernel gets must be addresses of the device.
#pragma once

#include "runtime/format/layout.h"

#include <cstdint>

namespace kvq_test {

// Of all such devices in the process. Limits count down; -1: none.
struct FakeControl {
  int64_t memoryBytes = int64_t(512) << 20; // of devices that are made from now on
  int64_t allocationsLeft = -1;             // then the memory is full
  int64_t launchesLeft = -1;                // then a kernel fails while it runs
  int64_t changesLeft = -1;                 // then an upload that changes anything never arrives: a planted fault
  bool forgetsWaits = false;                // waits for events do nothing: a planted fault
  kvq::Profile profile = kvq::Profile::Vnni;
  // Counted.
  int64_t live = 0;                 // allocations that were not released
  int64_t pending = 0;              // pieces of work that were handed in and not done
  int64_t merges = 0;               // programs of the last merge
  int64_t uploads = 0, changes = 0; // changes: uploads of other bytes than were there
};

} // namespace kvq_test

extern "C" __attribute__((visibility("default"))) kvq_test::FakeControl *kvq_fake_control();
