// SPDX-License-Identifier: Apache-2.0
//
// The kernels of a cache for machines that are elsewhere: no device, no memory, only a store that is filled.
#pragma once

#include "runtime/cache/config.h"
#include "runtime/device/target_kernels.h"

#include <functional>

namespace kvq {

// All that a cache of `config` can need on the target, in parallel; `progress` is called by one thread at a time.
// Nothing is compiled where the target has no such cache.
Status prepareTarget(const CacheConfig &config, TargetKernels &kernels, ParallelFor &parallel,
                     const std::function<void(const KernelInfo &)> &progress);

} // namespace kvq
