// SPDX-License-Identifier: Apache-2.0
//
// Schedules that were chosen for kernels: one small text file a key in the folder of the kernel store. Reading one is a
// hash and a file of some hundred bytes. Knows neither compiler nor tuner: a schedule is a text.
#pragma once

#include "runtime/format/schedule.h"
#include "runtime/jit/kernel_store.h"

namespace kvq {

// All that a choice is good for; a schedule that was chosen for another key is never taken.
struct ScheduleKey {
  std::string request;  // canonical text
  std::string score;    // hash of the score function, "": none
  std::string level;    // CPU level or another target
  std::string compiler; // its hash
  std::string machine;  // Device::machine()
};

// Thread-safe; several processes may use one folder.
class ScheduleStore {
public:
  // The folder of a kernel store, which has looked at whom it belongs to.
  explicit ScheduleStore(const KernelStore &store) : directory_(store.directory()) {}
  // The schedule of exactly that key; "" where there is none, or a file that is damaged, carries another key or may be
  // written by others. Writes nothing.
  std::string read(const ScheduleKey &key) const;
  // In the place of what is there, atomically. FailedPrecondition: the store has no folder.
  Status write(const ScheduleKey &key, const std::string &schedule) const;
  // Fine where there is none.
  Status forget(const ScheduleKey &key) const;

private:
  std::string path(const ScheduleKey &key) const;
  Status checkFolder() const;
  std::string directory_;
};

} // namespace kvq
