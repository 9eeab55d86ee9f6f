// SPDX-License-Identifier: Apache-2.0
//
// Global memory of the simulated device: allocations, their names and regions, and for each byte whether it was
// written. Every allocation has windows of 4 GiB of addresses for itself, so that an address beyond its end belongs to
// nobody and `address >> 32` finds an allocation without a search.
#pragma once

#include "runtime/format/status.h"
#include "runtime/ptxsim/options.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvq::ptxsim {

// A named part of an allocation. Where an allocation has regions, a single access must lie within one of them, and
// bytes outside every region are out of bounds.
struct Region {
  int64_t begin, end; // offsets
  std::string name;
};

struct Allocation {
  uint64_t base = 0;
  int64_t size = 0;
  std::string name;
  bool readOnly = false;        // for kernels; the host may write
  std::vector<uint8_t> data;    // size bytes
  std::vector<uint8_t> written; // one byte each: 1 where somebody wrote
  std::vector<Region> regions;  // sorted, disjoint; empty: one region
};

class GlobalMemory {
public:
  GlobalMemory();
  ~GlobalMemory();
  // Memory of its own, aligned to 256 bytes, uninitialised. At most 64 GiB in all: ResourceExhausted.
  Result<uint64_t> allocate(int64_t bytes, std::string name);
  Status release(uint64_t base); // InvalidArgument unless base is an allocation's
  Status write(uint64_t address, std::span<const uint8_t> bytes);
  Status read(uint64_t address, std::span<uint8_t> bytes) const; // uninitialised bytes read as they lie there
  Status fill(uint64_t address, int64_t bytes, uint8_t value);
  Status copy(uint64_t to, uint64_t from, int64_t bytes); // keeps which bytes are written; the ranges may overlap
  Status addRegion(uint64_t address, int64_t bytes, std::string name); // InvalidArgument if it overlaps another
  Status setReadOnly(uint64_t base, bool readOnly);
  // The allocation whose window holds the address, in bounds or not; null: none.
  Allocation *find(uint64_t address) {
    const uint64_t window = (address >> 32) - kFirstWindow;
    return window < windows_.size() ? windows_[window] : nullptr;
  }
  const Allocation *find(uint64_t address) const { return const_cast<GlobalMemory *>(this)->find(address); }
  int64_t bytesInUse() const { return inUse_; }

  // Windows below are shared, local, constant and parameter memory in the generic space (memory/address.h).
  static constexpr uint64_t kFirstWindow = 0x7000;

private:
  std::vector<Allocation *> windows_;
  std::vector<std::unique_ptr<Allocation>> owned_;
  int64_t inUse_ = 0;
};

} // namespace kvq::ptxsim
