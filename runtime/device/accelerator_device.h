// SPDX-License-Identifier: Apache-2.0
//
// The device over an accelerator, whichever it is: kernels that users give as PTX, and built-in kernels, whose PTX
// comes from the store or from the compiler for the accelerator's level.
#pragma once

#include "runtime/device/device.h"
#include "runtime/device/kernel_source.h"
#include "runtime/device/machine.h"

#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

namespace kvq {

// Behind a level: of kernels for a GPU whose matrix instructions take subnormal halves as zero. They are right on every
// GPU, and slower.
inline constexpr std::string_view kMagicForm = "+magic";
std::string withoutForm(std::string_view level);

// "nvptx:sm_86": the newest target that the compiler makes code for and that a GPU of this compute capability runs.
// Unsupported where there is none. `asked`, "nvptx:sm_80" or "sm_80", either also with kMagicForm, is taken instead if
// the GPU runs that. NULL: none.
Result<std::string> acceleratorLevel(int major, int minor, const char *asked);
// All that such a GPU runs, separated by spaces, best last.
std::string acceleratorLevels(int major, int minor);

class AcceleratorDevice : public Device {
public:
  // Tests what the accelerator makes of subnormal halves and takes the form of kernels that suits it. `name`, of the
  // device, is for messages. The compiler and the store are looked for when a built-in kernel is: PTX of users needs
  // neither.
  static Result<std::unique_ptr<Device>> create(std::string name, std::unique_ptr<Accelerator> accelerator,
                                                std::string level, std::string levels, const DeviceOptions &options,
                                                std::unique_ptr<ParallelFor> parallel);

  // Unsupported, in the compiler's words: what there is no kernel for on an accelerator.
  Result<KernelRef> open(const KernelRequest &request, const ScoreFunction *score) override;
  Result<KernelRef> compile(const std::string &source, const std::string &entry) override; // PTX text, or an IR module
  Status available(const KernelRequest &request, const ScoreFunction *score) const override;
  std::vector<KernelRef> kernels() const override;
  const std::string &level() const override { return level_; }
  const std::string &levels() const override { return levels_; }
  Profile profile() const override;
  Accelerator *accelerator() const override { return accelerator_.get(); }
  std::string machine() const override { return acceleratorMachine(level_, accelerator_->name()); }
  Result<KernelSource *> compiledKernels() const override;
  std::string description() const override { return accelerator_->description() + warning_; }

private:
  AcceleratorDevice(std::string name, std::unique_ptr<Accelerator> accelerator, std::string level, std::string levels,
                    std::string warning, const DeviceOptions &options, std::unique_ptr<ParallelFor> parallel);
  Result<KernelRef> loadPtx(const std::string &source, const std::string &entry);
  Result<KernelRef> load(const CompiledKernel &compiled, KernelInfo info) const;

  const std::string name_, level_, levels_, warning_;
  const std::optional<std::string> storeDir_, compiler_;
  const bool frozen_;
  std::unique_ptr<Accelerator> accelerator_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<KernelSource> compiledKernels_;                // once it was needed
  std::map<std::pair<std::string, std::string>, KernelRef> userKernels_; // by text and entry
};

} // namespace kvq
