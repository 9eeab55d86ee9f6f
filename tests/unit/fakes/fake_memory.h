// SPDX-License-Identifier: Apache-2.0
//
// The memory of the fake accelerator: a mapping that nobody may touch except while work of the device runs. A host that
// does it all the same ends with a sentence instead of a wrong result.
#pragma once

#include "runtime/device/accelerator.h"

#include <map>

namespace kvq_test {

class FakeMemory {
public:
  explicit FakeMemory(int64_t bytes);
  ~FakeMemory();
  FakeMemory(const FakeMemory &) = delete;
  FakeMemory &operator=(const FakeMemory &) = delete;

  // Filled with NaN of every element type.
  kvq::Result<kvq::DeviceAddress> allocate(int64_t bytes, const std::string &name);
  kvq::Status release(kvq::DeviceAddress address);
  int64_t freeBytes() const { return bytes_ - used_; }
  // InvalidArgument unless all of it lies in one allocation.
  kvq::Status check(kvq::DeviceAddress address, int64_t bytes) const;

  // While one lives, the memory is open.
  class Open {
  public:
    explicit Open(FakeMemory &memory) : memory_(memory) { memory_.protect(true); }
    ~Open() { memory_.protect(false); }
    Open(const Open &) = delete;
    Open &operator=(const Open &) = delete;

  private:
    FakeMemory &memory_;
  };

private:
  void protect(bool open);

  uint8_t *base_ = nullptr;
  int64_t bytes_, used_ = 0;
  std::map<kvq::DeviceAddress, int64_t> allocations_;
};

} // namespace kvq_test
