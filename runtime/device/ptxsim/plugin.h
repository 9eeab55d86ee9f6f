// SPDX-License-Identifier: Apache-2.0
//
// Device "ptxsim": PTX on the simulator, with every check. Its accelerator comes out of libkvq-ptxsim.so, of the same
// build as the library that asks for it; all else is as on any accelerator.
#pragma once

#include "runtime/device/device.h"

namespace kvq {

struct PtxsimGpu {
  std::unique_ptr<Accelerator> accelerator;
  int major = 0, minor = 0; // compute capability
  std::string levels;       // all that can be simulated
};
// What the library exports under this name: the name counts versions of runtime/device.
using MakePtxsimGpu = void (*)(const char *level, PtxsimGpu *gpu, Status *status);
inline constexpr const char *kMakePtxsimGpu = "kvq_ptxsim_gpu_1";

// A library may export a whole device instead: how tests bring one with kernels of their own.
using MakePtxsimDevice = void (*)(const char *level, std::unique_ptr<ParallelFor> *parallel,
                                  std::unique_ptr<Device> *device, Status *status);
inline constexpr const char *kMakePtxsimDevice = "kvq_ptxsim_device_1";

// Unsupported: $KVQ_PTXSIM or libkvq-ptxsim.so beside this library cannot be loaded. InvalidArgument: a variable of the
// environment (runtime/ptxsim/gpu/settings.h), or a level that is no architecture. level NULL: the environment's.
Result<std::unique_ptr<Device>> loadPtxsimDevice(const DeviceOptions &options, std::unique_ptr<ParallelFor> parallel);

} // namespace kvq
