// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/cuda/cuda_device.h"

#include "runtime/device/accelerator_device.h"
#include "runtime/device/cuda/cuda_accelerator.h"
#include "runtime/jit/cubin_store.h"

#include <charconv>
#include <cstdlib>

namespace kvq {

static constexpr const char *kOrdinal = "KVQ_CUDA_DEVICE";

Result<std::unique_ptr<Device>> makeCudaDevice(const DeviceOptions &options, std::unique_ptr<ParallelFor> parallel) {
  cuda::GpuOptions wanted;
  if (const char *text = std::getenv(kOrdinal); text && *text) {
    const std::string_view digits(text);
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), wanted.ordinal);
    if (end.ec != std::errc() || end.ptr != digits.data() + digits.size())
      return Status(Code::InvalidArgument,
                    std::string(kOrdinal) + " is '" + text + "': set it to the number of a GPU, 0 for the first");
  }
  // Without a store, or without NVRTC, the driver compiles PTX.
  if (auto store = KernelStore::open(options.storeDir,
                                     options.frozen ? KernelStore::Access::ReadOnly : KernelStore::Access::ReadWrite);
      store.isOk())
    wanted.cubins = cubinFunction(std::move(store.value()), options.frozen);
  auto gpu = cuda::openGpu(wanted);
  if (!gpu.isOk())
    return gpu.status();
  auto level = acceleratorLevel(gpu.value().major, gpu.value().minor, options.level);
  if (!level.isOk())
    return level.status();
  std::string levels = acceleratorLevels(gpu.value().major, gpu.value().minor);
  return AcceleratorDevice::create("cuda", std::move(gpu.value().accelerator), level.value(), std::move(levels),
                                   options, std::move(parallel));
}

} // namespace kvq
