// SPDX-License-Identifier: Apache-2.0
//
// Device "cpu". A kernel comes from memory, from the store or from the compiler, in this order.
#include "runtime/device/cpu/cpu_device.h"

#include "runtime/jit/kernel_store.h"
#include "runtime/jit/object_loader.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>

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
  CpuDevice(std::unique_ptr<ParallelFor> parallel, std::shared_ptr<const Compiler> compiler, KernelStore store,
            std::string level, bool frozen)
      : Device(std::move(parallel)), compiler_(std::move(compiler)), store_(std::move(store)), level_(std::move(level)),
        frozen_(frozen) {
    for (const std::string &name : compiler_->levels())
      levels_ += (levels_.empty() ? "" : " ") + name;
  }

  Result<KernelRef> open(const KernelRequest &request) override { return obtain(toText(request), false); }
  Result<KernelRef> compile(const std::string &source, const std::string &entry) override;
  Status available(const KernelRequest &request) const override;
  std::vector<KernelRef> kernels() const override;
  const std::string &level() const override { return level_; }
  const std::string &levels() const override { return levels_; }

private:
  std::string key(const std::string &text, bool isSource) const {
    return kernelKey(text, isSource, level_, compiler_->hash());
  }
  Result<KernelRef> obtain(const std::string &text, bool isSource);
  Result<KernelRef> make(const std::string &key, const std::string &text, bool isSource) const;
  Status notInStore(const std::string &text, const Status &why) const;

  std::shared_ptr<const Compiler> compiler_;
  KernelStore store_;
  std::string level_, levels_;
  bool frozen_;
  mutable std::mutex mutex_;
  std::condition_variable made_;
  std::map<std::string, KernelRef> kernels_; // by key; null while one thread makes it
};

Status CpuDevice::notInStore(const std::string &text, const Status &why) const {
  if (why.code() == Code::Corrupt)
    return why;
  return {Code::Unsupported, "kernel " + text + " for level " + level_ + " is not in the kernel store " +
                                 store_.directory() +
                                 " and this context is frozen: run kvq_cache_prepare in a context that is not"};
}

Status CpuDevice::available(const KernelRequest &request) const {
  if (!frozen_)
    return Status::ok();
  const std::string text = toText(request), name = key(text, false);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto found = kernels_.find(name); found != kernels_.end() && found->second)
      return Status::ok();
  }
  auto stored = store_.read(name);
  return stored.isOk() ? Status::ok() : notInStore(text, stored.status());
}

Result<KernelRef> CpuDevice::make(const std::string &key, const std::string &text, bool isSource) const {
  bool compiled = false;
  auto stored = frozen_
                    ? store_.read(key)
                    : store_.readOrCompile(key, [&] { return compiler_->compile(text, isSource, level_); }, compiled);
  if (!stored.isOk())
    return frozen_ ? notInStore(isSource ? "of this text" : text, stored.status()) : stored.status();
  const CompiledKernel &kernel = stored.value();
  auto code = LoadedObject::load(kernel.object, kernel.entry);
  if (!code.isOk())
    return code.status();
  KernelInfo info{isSource ? kernel.entry : text,
                  compiled ? "compiled" : "store",
                  key,
                  kernel.signature,
                  kernel.compileMs,
                  static_cast<int64_t>(kernel.object.size())};
  return KernelRef(std::make_shared<CpuKernel>(std::move(info), code.value()));
}

Result<KernelRef> CpuDevice::obtain(const std::string &text, bool isSource) {
  const std::string name = key(text, isSource);
  std::unique_lock<std::mutex> lock(mutex_);
  for (auto found = kernels_.find(name); found != kernels_.end(); found = kernels_.find(name)) {
    if (found->second)
      return found->second;
    made_.wait(lock);
  }
  kernels_[name] = nullptr;
  lock.unlock();
  auto kernel = make(name, text, isSource);
  lock.lock();
  if (kernel.isOk())
    kernels_[name] = kernel.value();
  else
    kernels_.erase(name); // whoever waits for it tries again and gets the reason itself
  made_.notify_all();
  return kernel;
}

Result<KernelRef> CpuDevice::compile(const std::string &source, const std::string &entry) {
  auto kernel = obtain(source, true);
  if (kernel.isOk() && !entry.empty() && kernel.value()->info().name != entry)
    return Status(Code::InvalidArgument,
                  "the module has no kernel '" + entry + "': its one kernel is " + kernel.value()->info().name);
  return kernel;
}

std::vector<KernelRef> CpuDevice::kernels() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<KernelRef> all;
  for (const auto &[name, kernel] : kernels_)
    if (kernel)
      all.push_back(kernel);
  return all;
}

} // namespace

Result<std::unique_ptr<Device>> makeCpuDevice(const CpuDeviceOptions &options, std::unique_ptr<ParallelFor> parallel) {
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
  auto store = KernelStore::open(options.storeDir,
                                 options.frozen ? KernelStore::Access::ReadOnly : KernelStore::Access::ReadWrite);
  if (!store.isOk())
    return store.status();
  return std::unique_ptr<Device>(std::make_unique<CpuDevice>(std::move(parallel), compiler.value(),
                                                             std::move(store.value()), level, options.frozen));
}

} // namespace kvq
