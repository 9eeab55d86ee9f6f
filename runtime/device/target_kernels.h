// SPDX-License-Identifier: Apache-2.0
//
// Kernels for a target that need not be here: what a device of that target would look for in the kernel store is put
// there, and nothing is run.
#pragma once

#include "runtime/device/kernel_source.h"

#include <string_view>

namespace kvq {

// The names in `targets`, separated by spaces or commas. InvalidArgument, with all that there are, where one is none of
// the compiler's, and where there is none.
Result<std::vector<std::string>> parseTargets(const Compiler &compiler, std::string_view targets);

// All calls are thread-safe.
class TargetKernels {
public:
  // storeDir is as KernelStore::open takes it. machine: the one whose schedules are chosen and looked up, as
  // Device::machine() says it there; "": none.
  static Result<std::unique_ptr<TargetKernels>> open(std::shared_ptr<const Compiler> compiler, std::string target,
                                                     const char *storeDir, std::string machine = {});
  const std::string &target() const { return target_; }

  struct Prepared {
    KernelInfo kernel;
    std::optional<KernelInfo> cubin; // of a GPU's kernel, where NVRTC is and knows the target
  };
  Result<Prepared> prepare(const KernelRequest &request, const ScoreFunction *score);
  // With the schedule of `what`, which becomes the machine's choice.
  Result<Prepared> prepareChosen(const KernelText &what);

private:
  TargetKernels(std::string target, KernelStore store) : target_(std::move(target)), store_(std::move(store)) {}
  Result<Prepared> obtain(const KernelText &what);
  Result<std::optional<KernelInfo>> prepareCubin(const CompiledKernel &compiled, const KernelInfo &kernel) const;

  const std::string target_;
  const KernelStore store_;
  std::unique_ptr<KernelSource> source_;
  std::shared_ptr<const Nvrtc> nvrtc_; // null where there is none
};

} // namespace kvq
