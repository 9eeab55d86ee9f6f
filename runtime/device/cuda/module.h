// SPDX-License-Identifier: Apache-2.0
//
// Modules on a GPU and their kernels.
#pragma once

#include "runtime/device/cuda/core.h"

namespace kvq::cuda {

class ModuleHandle;

class CudaFunction : public DeviceFunction {
public:
  CudaFunction(std::shared_ptr<const ModuleHandle> module, CUfunction function, FunctionInfo info, int defaultShared)
      : module_(std::move(module)), function_(function), info_(std::move(info)), defaultShared_(defaultShared) {}
  const FunctionInfo &info() const override { return info_; }
  Result<int> blocksPerProcessor(int threads, int64_t dynamicShared) const override;
  const Core *core() const;
  // The calls below are made with the context current.
  Status checkLaunch(const LaunchShape &shape, size_t parameterBytes) const;
  // Opts in to more dynamic shared memory than a kernel may have by default, where so much is wanted.
  Status allowShared(int64_t dynamicShared) const;
  CUfunction handle() const { return function_; }

private:
  std::shared_ptr<const ModuleHandle> module_; // keeps the code
  CUfunction function_;
  FunctionInfo info_;
  int defaultShared_; // dynamic shared memory that needs no opting in, in bytes
};

// PTX text, as a cubin if there is a compiler of cubins and the driver takes what it makes. The context is current.
Result<DeviceModuleRef> loadModule(const CoreRef &core, std::string_view text, const std::string &file);

// The driver's log of a text that it could not compile, as one line: "FILE:5: MESSAGE", or "FILE: MESSAGE" where the
// log names no line.
std::string jitMessage(std::string_view log, const std::string &file);

} // namespace kvq::cuda
