// SPDX-License-Identifier: Apache-2.0
//
// The lists that the launches of a chunk read, where an accelerator's kernels see them: one piece of the device's
// memory, into which only what has changed is copied. Layers share all but the offsets into their tensors, and these
// are often the same too. On a host nothing of this is used: its kernels read the lists where they are.
#pragma once

#include "runtime/cache/cache_memory.h"
#include "runtime/cache/planner.h"

#include <array>

namespace kvq {

class LaunchLists {
public:
  enum List {
    Append,
    QuantizeK,
    QuantizeV,
    Positions,
    KFrontier,
    VFrontier,
    Splits,
    QOffsets,
    OutOffsets,
    Status_,
    Attend
  }; // Attend + kernel; Status_ is written by the device
  static constexpr int kLists = Attend + AttendRows::kMost;

  explicit LaunchLists(CacheMemory &memory) : memory_(memory), device_(memory, "work lists of a cache") {}
  // For another chunk, whose lists have so many bytes. Their contents are what the device's memory holds.
  Status place(const std::array<int64_t, kLists> &bytes);
  Status set(int list, const void *data, int64_t bytes);
  // Hands what has changed to the stream.
  void send();
  DeviceAddress address(int list) const { return device_.address() + begin_[list]; }

private:
  CacheMemory &memory_;
  Scratch device_;
  std::array<int64_t, kLists> begin_{};
  std::vector<uint8_t> host_;                 // what the device's memory holds, or will
  int64_t changedBegin_ = 0, changedEnd_ = 0; // of host_
  int64_t sentAt_ = -1;                       // waits() then: until the next wait host_ stays as it is
};

} // namespace kvq
