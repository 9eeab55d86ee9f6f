// SPDX-License-Identifier: Apache-2.0
//
// Device "cpu": kernels that the compiler made for a CPU level, from the store or compiled on demand.
#pragma once

#include "runtime/device/device.h"

namespace kvq {

struct CpuDeviceOptions {
  const char *level = nullptr;    // NULL: the best of the host
  const char *storeDir = nullptr; // NULL: the default folder; "": none
  const char *compiler = nullptr; // NULL: the default plug-in; "": none
  bool frozen = false;            // never compile
};

Result<std::unique_ptr<Device>> makeCpuDevice(const CpuDeviceOptions &options, std::unique_ptr<ParallelFor> parallel);

} // namespace kvq
