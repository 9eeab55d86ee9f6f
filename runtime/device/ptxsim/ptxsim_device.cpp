// SPDX-License-Identifier: Apache-2.0
//
// Device "ptxsim": PTX on the simulator, with every check. Kernels of users run on it; built-in kernels wait for the
// code generator for NVIDIA GPUs. What GPU it is the environment says (runtime/ptxsim/gpu/settings.h).
#include "runtime/device/ptxsim/plugin.h"
#include "runtime/device/ptxsim/ptxsim_accelerator.h"

#include <map>
#include <mutex>

namespace kvq {

namespace {

// One word for each parameter: PTX says how long it is, not what it is.
std::string signatureOf(const FunctionInfo &function) {
  std::string text;
  for (const FunctionInfo::Parameter &parameter : function.parameters)
    text += (text.empty() ? "b" : " b") + std::to_string(8 * parameter.size);
  return text;
}

class PtxsimDevice : public Device {
public:
  PtxsimDevice(std::unique_ptr<ParallelFor> parallel, const ptxsim::Settings &settings)
      : Device(std::move(parallel)), accelerator_(makePtxsimAccelerator(settings)), level_(settings.arch->name),
        levels_(ptxsim::archNames()) {
    std::erase(levels_, ',');
  }
  Result<KernelRef> open(const KernelRequest &request) override { return unavailable(request); }
  Result<KernelRef> compile(const std::string &source, const std::string &entry) override;
  Status available(const KernelRequest &request) const override { return unavailable(request); }
  std::vector<KernelRef> kernels() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<KernelRef> all;
    for (const auto &[text, kernel] : kernels_)
      all.push_back(kernel);
    return all;
  }
  const std::string &level() const override { return level_; }
  const std::string &levels() const override { return levels_; }
  Accelerator *accelerator() const override { return accelerator_.get(); }

private:
  static Status unavailable(const KernelRequest &request) {
    return {Code::Unsupported, "kernel " + toText(request) +
                                   " has no PTX yet: device \"ptxsim\" runs kernels that are given as PTX; create a "
                                   "context on device \"cpu\" for built-in ones"};
  }

  std::unique_ptr<Accelerator> accelerator_;
  std::string level_, levels_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, KernelRef> kernels_; // by text and entry
};

Result<KernelRef> PtxsimDevice::compile(const std::string &source, const std::string &entry) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (auto found = kernels_.find({source, entry}); found != kernels_.end())
    return found->second;
  auto module = accelerator_->load(source, "ptx");
  if (!module.isOk())
    return module.status();
  const std::vector<std::string> names = module.value()->functions();
  if (entry.empty() && names.size() != 1)
    return Status(Code::InvalidArgument,
                  "the module has " + std::to_string(names.size()) + " kernels: name the one that is meant");
  auto function = module.value()->function(entry.empty() ? names[0] : entry);
  if (!function.isOk())
    return function.status();
  const FunctionInfo &shape = function.value()->info();
  KernelInfo info{shape.name, "compiled", "", signatureOf(shape), 0, static_cast<int64_t>(source.size())};
  KernelRef kernel = std::make_shared<AcceleratorKernel>(std::move(info), function.value());
  kernels_.emplace(std::pair(source, entry), kernel);
  return kernel;
}

Result<std::unique_ptr<Device>> makeDevice(const char *level, std::unique_ptr<ParallelFor> parallel) {
  auto settings = ptxsim::settingsFromEnvironment();
  if (!settings.isOk())
    return settings.status();
  if (level) {
    settings.value().arch = ptxsim::findArch(level);
    if (!settings.value().arch)
      return Status(Code::InvalidArgument, "level '" + std::string(level) +
                                               "' is no architecture that device ptxsim knows: use one of " +
                                               ptxsim::archNames());
  }
  return std::unique_ptr<Device>(std::make_unique<PtxsimDevice>(std::move(parallel), settings.value()));
}

} // namespace

} // namespace kvq

extern "C" __attribute__((visibility("default"))) void kvq_ptxsim_device_1(const char *level,
                                                                           std::unique_ptr<kvq::ParallelFor> *parallel,
                                                                           std::unique_ptr<kvq::Device> *device,
                                                                           kvq::Status *status) {
  auto made = kvq::makeDevice(level, std::move(*parallel));
  *status = made.status();
  if (made.isOk())
    *device = std::move(made.value());
}
static_assert(std::is_same_v<decltype(&kvq_ptxsim_device_1), kvq::MakePtxsimDevice>);
