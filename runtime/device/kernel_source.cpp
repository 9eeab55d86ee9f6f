// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/kernel_source.h"

namespace kvq {

Result<std::unique_ptr<KernelSource>> KernelSource::open(KernelSourceSettings settings, Load load) {
  auto store = KernelStore::open(settings.storeDir,
                                 settings.frozen ? KernelStore::Access::ReadOnly : KernelStore::Access::ReadWrite);
  if (!store.isOk())
    return store.status();
  settings.storeDir = nullptr; // borrowed for this call
  return std::unique_ptr<KernelSource>(
      new KernelSource(std::move(settings), std::move(store.value()), std::move(load)));
}

Status KernelSource::notInStore(const std::string &text, const Status &why) const {
  if (why.code() == Code::Corrupt)
    return why;
  return {Code::Unsupported, "kernel " + text + " for level " + settings_.level + " is not in the kernel store " +
                                 store_.directory() +
                                 " and this context is frozen: run kvq_cache_prepare in a context that is not"};
}

Status KernelSource::available(const std::string &text) const {
  if (!settings_.frozen)
    return Status::ok();
  const std::string name = key(text, false);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto found = kernels_.find(name); found != kernels_.end() && found->second)
      return Status::ok();
  }
  auto stored = store_.read(name);
  return stored.isOk() ? Status::ok() : notInStore(text, stored.status());
}

Result<CompiledKernel> KernelSource::compile(const std::string &text, bool isSource) const {
  auto compiled = settings_.compiler->compile(text, isSource, settings_.level);
  if (!compiled.isOk() && !isSource)
    return Status(settings_.refusal, compiled.status().message());
  return compiled;
}

Result<KernelRef> KernelSource::make(const std::string &key, const std::string &text, bool isSource) const {
  bool compiled = false;
  auto stored = settings_.frozen ? store_.read(key)
                                 : store_.readOrCompile(key, [&] { return compile(text, isSource); }, compiled);
  if (!stored.isOk())
    return settings_.frozen ? notInStore(isSource ? "of this text" : text, stored.status()) : stored.status();
  const CompiledKernel &kernel = stored.value();
  return load_(kernel, {isSource ? kernel.entry : text, compiled ? "compiled" : "store", key, kernel.signature,
                        kernel.compileMs, static_cast<int64_t>(kernel.object.size())});
}

Result<KernelRef> KernelSource::obtain(const std::string &text, bool isSource) {
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

std::vector<KernelRef> KernelSource::kernels() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<KernelRef> all;
  for (const auto &[name, kernel] : kernels_)
    if (kernel)
      all.push_back(kernel);
  return all;
}

} // namespace kvq
