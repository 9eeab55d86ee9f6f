// SPDX-License-Identifier: Apache-2.0
//
// Device "ref".
#include "runtime/device/ref/ref_device.h"

#include "runtime/device/machine.h"
#include "runtime/reference/reference.h"

#include <map>
#include <mutex>

namespace kvq {

namespace {

class RefKernel : public Kernel {
public:
  explicit RefKernel(const KernelRequest &request)
      : Kernel({toText(request), "ref", "", builtinSignature(request), 0, 0}), request_(request) {}
  int32_t run(const uint64_t *args, const int64_t *programId) const override {
    return runReference(request_, args, programId);
  }

private:
  KernelRequest request_;
};

class RefDevice : public Device {
public:
  using Device::Device;
  Result<KernelRef> open(const KernelRequest &request, const ScoreFunction *score) override {
    KVQ_RETURN_IF_ERROR(available(request, score));
    std::lock_guard<std::mutex> lock(mutex_);
    KernelRef &kernel = kernels_[toText(request)];
    if (!kernel)
      kernel = std::make_shared<RefKernel>(request);
    return kernel;
  }
  Result<KernelRef> compile(const std::string &, const std::string &) override {
    return Status(Code::Unsupported, "device \"ref\" runs built-in kernels only: create a context on device \"cpu\"");
  }
  Status available(const KernelRequest &, const ScoreFunction *score) const override {
    return score
               ? Status(Code::Unsupported, "device \"ref\" has no score functions: create a context on device \"cpu\"")
               : Status::ok();
  }
  std::vector<KernelRef> kernels() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<KernelRef> all;
    for (const auto &[name, kernel] : kernels_)
      all.push_back(kernel);
    return all;
  }
  const std::string &level() const override { return name_; }
  const std::string &levels() const override { return name_; }
  std::string machine() const override { return hostMachine(name_); }
  Result<KernelSource *> compiledKernels() const override {
    return Status(Code::Unsupported, "device \"ref\" compiles no kernels, and so they have no schedules: create a "
                                     "context on device \"cpu\"");
  }

private:
  const std::string name_ = "ref";
  mutable std::mutex mutex_;
  std::map<std::string, KernelRef> kernels_;
};

} // namespace

std::unique_ptr<Device> makeRefDevice(std::unique_ptr<ParallelFor> parallel) {
  return std::make_unique<RefDevice>(std::move(parallel));
}

} // namespace kvq
