// SPDX-License-Identifier: Apache-2.0
//
// Device "cuda": an NVIDIA GPU. Which one of several $KVQ_CUDA_DEVICE says: its ordinal, 0 without it.
#pragma once

#include "runtime/device/device.h"

namespace kvq {

Result<std::unique_ptr<Device>> makeCudaDevice(const DeviceOptions &options, std::unique_ptr<ParallelFor> parallel);

} // namespace kvq
