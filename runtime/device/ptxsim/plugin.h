// SPDX-License-Identifier: Apache-2.0
//
// Device "ptxsim" out of libkvq-ptxsim.so, which comes from the same build as the library that asks for it.
#pragma once

#include "runtime/device/device.h"

namespace kvq {

// What the library exports under this name: the name counts versions of runtime/device.
using MakePtxsimDevice = void (*)(const char *level, std::unique_ptr<ParallelFor> *parallel,
                                  std::unique_ptr<Device> *device, Status *status);
inline constexpr const char *kMakePtxsimDevice = "kvq_ptxsim_device_1";

// Unsupported: $KVQ_PTXSIM or libkvq-ptxsim.so beside this library cannot be loaded. InvalidArgument: a variable of the
// environment (runtime/ptxsim/gpu/settings.h), or a level that is no architecture. level NULL: the environment's.
Result<std::unique_ptr<Device>> loadPtxsimDevice(const char *level, std::unique_ptr<ParallelFor> parallel);

} // namespace kvq
