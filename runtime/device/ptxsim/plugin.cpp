// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/ptxsim/plugin.h"

#include "runtime/device/accelerator_device.h"
#include "runtime/jit/library.h"

namespace kvq {

Result<std::unique_ptr<Device>> loadPtxsimDevice(const DeviceOptions &options, std::unique_ptr<ParallelFor> parallel) {
  const std::string file = libraryPath(nullptr, "KVQ_PTXSIM", "libkvq-ptxsim.so");
  auto library = Library::open(file);
  if (!library.isOk())
    return Status(Code::Unsupported, "device \"ptxsim\" is in " + file + ", which cannot be loaded (" +
                                         library.status().message() +
                                         "): it comes with a build of the sources, and is not installed");
  if (MakePtxsimDevice make = nullptr; library.value().find(kMakePtxsimDevice, make)) {
    std::unique_ptr<Device> device;
    Status status;
    make(options.level, &parallel, &device, &status);
    return status.isOk() ? Result<std::unique_ptr<Device>>(std::move(device)) : status;
  }
  MakePtxsimGpu make = nullptr;
  if (!library.value().find(kMakePtxsimGpu, make))
    return Status(Code::Unsupported, file + " is of another version: take both libraries from one build");
  PtxsimGpu gpu;
  Status status;
  const std::string asked = options.level ? options.level : "", processor = withoutForm(asked);
  make(options.level ? processor.c_str() : nullptr, &gpu, &status);
  if (!status.isOk())
    return status;
  auto level = acceleratorLevel(gpu.major, gpu.minor, nullptr);
  if (!level.isOk())
    return level.status();
  if (asked != processor)
    level.value() += kMagicForm;
  return AcceleratorDevice::create("ptxsim", std::move(gpu.accelerator), level.value(), std::move(gpu.levels), options,
                                   std::move(parallel));
}

} // namespace kvq
