// SPDX-License-Identifier: Apache-2.0
//
// Pages of another layout profile into those of a cache, by the kernels convert_k and convert_v (format-spec
// layout_c9).
#pragma once

#include "runtime/cache/cache_memory.h"
#include "runtime/cache/config.h"

#include <kvq/kernel_abi.h>

#include <span>
#include <vector>

namespace kvq {

class PageConversion {
public:
  PageConversion(Device &device, CacheMemory &memory, const CacheConfig &config, const Geometry &geometry)
      : device_(device), memory_(memory), config_(config), geometry_(geometry) {}
  // Opens the kernels and takes memory for so many blocks of one layer: what can fail before anything has changed.
  Status prepare(Profile from, size_t blocks);
  // Where the blocks go.
  void setBlocks(std::span<const int32_t> blocks);
  // The blocks of one layer, each the pages of its KV heads in order, into a pool of the cache. `from`, the host's,
  // must stay as it is until the memory's wait().
  Status convert(const uint8_t *from, DeviceAddress pool);

private:
  Device &device_;
  CacheMemory &memory_;
  const CacheConfig &config_;
  const Geometry &geometry_;
  KernelRef kernels_[2]; // of K and of V
  std::vector<kvq_convert_item> items_;
  Scratch itemsSeen_{memory_, "work items of a conversion"}, pages_{memory_, "pages to convert"};
};

} // namespace kvq
