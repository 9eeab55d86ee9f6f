// SPDX-License-Identifier: Apache-2.0
//
// A GPU of NVIDIA's as an Accelerator, through the driver's API. Several threads may use it at once: the driver locks
// what it must, and a call makes the context current in its own thread and takes it back.
//
// What a Stream does later and what at once: launches, fills, copies within the device and events are done later. The
// host's memory is not pinned as a rule, and then an upload has read it when the call returns, and a download is waited
// for in the call.
#pragma once

#include "runtime/device/cuda/core.h"

namespace kvq::cuda {

struct Gpu {
  std::unique_ptr<Accelerator> accelerator;
  int major = 0, minor = 0; // compute capability
};
struct GpuOptions {
  std::string library = "libcuda.so.1"; // as the system's loader finds it
  int ordinal = 0;
  CubinCompiler cubins; // none: the driver compiles PTX
};
// Unsupported: there is no driver, no GPU, or it cannot be used. InvalidArgument: an ordinal that no GPU has.
Result<Gpu> openGpu(const GpuOptions &options);

} // namespace kvq::cuda
