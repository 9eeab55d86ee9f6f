// SPDX-License-Identifier: Apache-2.0
//
// Where compiled kernels come from: memory, the store or the compiler, in this order. What a compiled kernel becomes, a
// function of the host or of an accelerator, is for the device to say.
#pragma once

#include "runtime/device/device.h"
#include "runtime/jit/kernel_store.h"

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>

namespace kvq {

struct KernelSourceSettings {
  std::shared_ptr<const Compiler> compiler;
  std::string level;
  const char *storeDir = nullptr; // as KernelStore::open takes it
  bool frozen = false;            // never compile
  // The code of a built-in kernel that the compiler refuses. On a host every request has its kernel.
  Code refusal = Code::Internal;
};

// All calls are thread-safe.
class KernelSource {
public:
  using Load = std::function<Result<KernelRef>(const CompiledKernel &, KernelInfo)>;
  static Result<std::unique_ptr<KernelSource>> open(KernelSourceSettings settings, Load load);

  // The kernel of a request's text, or of an IR module where isSource is set. Of all threads one makes it.
  Result<KernelRef> obtain(const std::string &text, bool isSource);
  // Whether obtain() of a request could succeed, without compiling anything.
  Status available(const std::string &text) const;
  std::vector<KernelRef> kernels() const; // made so far

private:
  KernelSource(KernelSourceSettings settings, KernelStore store, Load load)
      : settings_(std::move(settings)), store_(std::move(store)), load_(std::move(load)) {}
  std::string key(const std::string &text, bool isSource) const {
    return kernelKey(text, isSource, settings_.level, settings_.compiler->hash());
  }
  Result<CompiledKernel> compile(const std::string &text, bool isSource) const;
  Result<KernelRef> make(const std::string &key, const std::string &text, bool isSource) const;
  Status notInStore(const std::string &text, const Status &why) const;

  KernelSourceSettings settings_;
  KernelStore store_;
  Load load_;
  mutable std::mutex mutex_;
  std::condition_variable made_;
  std::map<std::string, KernelRef> kernels_; // by key; null while one thread makes it
};

} // namespace kvq
