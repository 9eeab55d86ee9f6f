// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/ptxsim/plugin.h"

#include "runtime/jit/library.h"

namespace kvq {

Result<std::unique_ptr<Device>> loadPtxsimDevice(const char *level, std::unique_ptr<ParallelFor> parallel) {
  const std::string file = libraryPath(nullptr, "KVQ_PTXSIM", "libkvq-ptxsim.so");
  auto library = Library::open(file);
  if (!library.isOk())
    return Status(Code::Unsupported, "device \"ptxsim\" is in " + file + ", which cannot be loaded (" +
                                         library.status().message() +
                                         "): it comes with a build of the sources, and is not installed");
  MakePtxsimDevice make = nullptr;
  if (!library.value().find(kMakePtxsimDevice, make))
    return Status(Code::Unsupported, file + " is of another version: take both libraries from one build");
  std::unique_ptr<Device> device;
  Status status;
  make(level, &parallel, &device, &status);
  if (!status.isOk())
    return status;
  return device;
}

} // namespace kvq
