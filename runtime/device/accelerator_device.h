// SPDX-License-Identifier: Apache-2.0
//
// The device over an accelerator, whichever it is: kernels that users give as PTX, and built-in kernels, whose PTX
// comes from the store or from the compiler for the accelerator's level.
#pragma once

#include "runtime/device/device.h"
#include "runtime/device/kernel_source.h"

#include <map>
#include <mutex>
#include <optional>
#include <utility>

namespace kvq {

// "nvptx:sm_86": the newest target that the compiler makes code for and that a GPU of this compute capability runs.
// Unsupported where there is none. `asked`, "nvptx:sm_80" or "sm_80", is taken instead if the GPU runs that. NULL:
// none.
Result<std::string> acceleratorLevel(int major, int minor, const char *asked);
// All that such a GPU runs, separated by spaces, best last.
std::string acceleratorLevels(int major, int minor);

class AcceleratorDevice : public Device {
public:
  // `name`, of the device, is for messages. The compiler and the store are looked for when a built-in kernel is: PTX of
  // users needs neither.
  AcceleratorDevice(std::string name, std::unique_ptr<Accelerator> accelerator, std::string level, std::string levels,
                    const DeviceOptions &options, std::unique_ptr<ParallelFor> parallel);

  // Unsupported, in the compiler's words: what there is no kernel for on an accelerator.
  Result<KernelRef> open(const KernelRequest &request, const ScoreFunction *score) override;
  Result<KernelRef> compile(const std::string &source, const std::string &entry) override; // PTX text, or an IR module
  Status available(const KernelRequest &request, const ScoreFunction *score) const override;
  std::vector<KernelRef> kernels() const override;
  const std::string &level() const override { return level_; }
  const std::string &levels() const override { return levels_; }
  Profile profile() const override;
  Accelerator *accelerator() const override { return accelerator_.get(); }

private:
  Result<KernelSource *> compiledKernels() const;
  Result<KernelRef> loadPtx(const std::string &source, const std::string &entry);
  Result<KernelRef> load(const CompiledKernel &compiled, KernelInfo info) const;

  const std::string name_, level_, levels_;
  const std::optional<std::string> storeDir_, compiler_;
  const bool frozen_;
  std::unique_ptr<Accelerator> accelerator_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<KernelSource> compiledKernels_;                // once it was needed
  std::map<std::pair<std::string, std::string>, KernelRef> userKernels_; // by text and entry
};

} // namespace kvq
