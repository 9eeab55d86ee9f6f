// SPDX-License-Identifier: Apache-2.0
//
// Device "ref": the scalar reference behind the kernel ABI. For debugging and as an oracle; never fast.
#pragma once

#include "runtime/device/device.h"

namespace kvq {

std::unique_ptr<Device> makeRefDevice(std::unique_ptr<ParallelFor> parallel);

} // namespace kvq
