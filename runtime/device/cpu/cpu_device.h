// SPDX-License-Identifier: Apache-2.0
//
// Device "cpu": kernels that the compiler made for a CPU level, from the store or compiled on demand.
#pragma once

#include "runtime/device/device.h"

namespace kvq {

Result<std::unique_ptr<Device>> makeCpuDevice(const DeviceOptions &options, std::unique_ptr<ParallelFor> parallel);

} // namespace kvq
