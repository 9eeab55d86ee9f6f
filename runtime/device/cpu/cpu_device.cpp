// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/cpu/cpu_device.h"

#include "runtime/device/kernel_source.h"
#include "runtime/device/machine.h"
#include "runtime/jit/object_loader.h"

#include <algorithm>

namespace kvq {

namespace {

class CpuKernel : public Kernel {
public:
  CpuKernel(KernelInfo info, std::shared_ptr<const LoadedObject> code)
      : Kernel(std::move(info)), code_(std::move(code)), fn_(code_->fn()) {}
  int32_t run(const uint64_t *args, const int64_t *programId) const override { return fn_(args, programId); }

private:
  std::shared_ptr<const LoadedObject> code_;
  kvq_kernel_fn fn_;
};

class CpuDevice : public Device {
public:
  CpuDevice(std::unique_ptr<ParallelFor> parallel, std::unique_ptr<KernelSource> source, std::string level,
            const std::vector<std::string> &levels)
      : Device(std::move(parallel)), source_(std::move(source)), level_(std::move(level)),
        machine_(hostMachine(level_)) {
    for (const std::string &name : levels)
      levels_ += (levels_.empty() ? "" : " ") + name;
  }

  Result<KernelRef> open(const KernelRequest &request, const ScoreFunction *score) override {
    return source_->obtain({toText(request), false, score});
  }
  Result<KernelRef> compile(const std::string &source, const std::string &entry) override {
    return source_->obtainSource(source, entry);
  }
  Status available(const KernelRequest &request, const ScoreFunction *score) const override {
    return source_->available({toText(request), false, score});
  }
  std::vector<KernelRef> kernels() const override { return source_->kernels(); }
  const std::string &level() const override { return level_; }
  const std::string &levels() const override { return levels_; }
  std::string machine() const override { return machine_; }
  Result<KernelSource *> compiledKernels() const override { return source_.get(); }

private:
  std::unique_ptr<KernelSource> source_;
  std::string level_, levels_, machine_;
};

Result<KernelRef> load(const CompiledKernel &compiled, KernelInfo info) {
  auto code = LoadedObject::load(compiled.object, compiled.entry);
  if (!code.isOk())
    return code.status();
  return KernelRef(std::make_shared<CpuKernel>(std::move(info), code.value()));
}

} // namespace

Result<std::unique_ptr<Device>> makeCpuDevice(const DeviceOptions &options, std::unique_ptr<ParallelFor> parallel) {
  if (options.compiler && !*options.compiler)
    return Status(Code::Unsupported, "device \"cpu\" was asked for without a compiler plug-in, whose hash the keys of "
                                     "stored kernels need: give its path (with frozen set, nothing is compiled) or use "
                                     "device \"ref\"");
  auto compiler = Compiler::load(options.compiler);
  if (!compiler.isOk())
    return compiler.status();
  const std::vector<std::string> &levels = compiler.value()->levels();
  const std::string level = options.level ? options.level : levels.back();
  // NAME@host, another machine's code in plain IR, runs anywhere (codegen/cpu/Target.h).
  if (!level.ends_with("@host") && std::find(levels.begin(), levels.end(), level) == levels.end()) {
    std::string names;
    for (const std::string &name : levels)
      names += (names.empty() ? "" : ", ") + name;
    return Status(Code::Unsupported, "CPU level '" + level + "' cannot run on this host: use one of " + names);
  }
  auto source = KernelSource::open(
      {compiler.value(), level, options.storeDir, options.frozen, Code::Internal, hostMachine(level)}, load);
  if (!source.isOk())
    return source.status();
  return std::unique_ptr<Device>(
      std::make_unique<CpuDevice>(std::move(parallel), std::move(source.value()), level, levels));
}

} // namespace kvq
