// SPDX-License-Identifier: Apache-2.0
//
// What all objects on a GPU share: the driver, the context, what is allocated, and the failure after which the GPU
// answers nothing else. Whichever object goes last gives the context back.
#pragma once

#include "runtime/device/accelerator.h"
#include "runtime/device/cuda/driver.h"

#include <functional>
#include <map>
#include <mutex>

namespace kvq::cuda {

// A cubin from PTX text, one of its kernels and an architecture, "sm_90"; a failure: take the text.
using CubinCompiler = std::function<Result<std::vector<uint8_t>>(std::string_view text, const std::string &entry,
                                                                 const std::string &arch)>;

class Core;
using CoreRef = std::shared_ptr<Core>;

class Core {
public:
  struct Figures {
    std::string name;
    int ordinal = 0, major = 0, minor = 0, multiprocessors = 0;
    size_t memoryBytes = 0;
    int sharedPerBlock = 0; // bytes that a block may have after opting in
  };

  // Retains the primary context of a GPU, which all libraries of a process share.
  static Result<CoreRef> create(const Driver &driver, int ordinal, CubinCompiler cubins);
  ~Core() { (void)driver.cuDevicePrimaryCtxRelease_v2(device_); }
  Core(const Core &) = delete;
  Core &operator=(const Core &) = delete;

  const Driver driver;
  const CubinCompiler cubins;
  const Figures &figures() const { return figures_; }

  // Runs a function with the context current in this thread, unless the GPU has failed.
  template <typename Function> auto run(const Function &function) -> decltype(function()) {
    if (Status status = state(); !status.isOk())
      return status;
    const Current current(*this);
    if (current.error)
      return refused(current.error, "the context of the GPU");
    return function();
  }
  // The same for giving something back, which is right after a failure too.
  template <typename Function> void giveBack(const Function &function) {
    const Current current(*this);
    if (!current.error)
      function();
  }

  Status state() const; // the failure, if there was one
  // The Status of an error that a call answered about `what`; remembers one after which nothing works.
  Status refused(CUresult error, const std::string &what);

  // Kernels that were handed in to a stream since it was waited for: one of them is what failed.
  using Names = std::vector<std::string>;
  void launched(CUstream stream, const std::string &kernel);
  Names takeLaunched(CUstream stream);                 // before waiting
  void putBack(CUstream stream, const Names &kernels); // after a wait that failed
  void forgetLaunched();                               // of all streams

  struct Allocation {
    int64_t bytes;
    std::string name;
  };
  void allocated(DeviceAddress address, Allocation allocation);
  bool forget(DeviceAddress address);
  // InvalidArgument: bytes of an allocation of this accelerator that are not all in it. Of other memory, another
  // library's, the driver knows.
  Status checkRange(DeviceAddress address, int64_t bytes) const;

private:
  // Makes the context current for as long as it lives.
  struct Current {
    explicit Current(Core &core) : core(core), error(core.driver.cuCtxPushCurrent_v2(core.context_)) {}
    ~Current() {
      CUcontext context = nullptr;
      if (!error)
        (void)core.driver.cuCtxPopCurrent_v2(&context);
    }
    Current(const Current &) = delete;
    Current &operator=(const Current &) = delete;
    Core &core;
    const CUresult error;
  };

  Core(const Driver &driver, CubinCompiler cubins, CUdevice device, CUcontext context, Figures figures)
      : driver(driver), cubins(std::move(cubins)), figures_(std::move(figures)), device_(device), context_(context) {}
  std::string suspects() const; // "kernel add", "one of the kernels add, mul"

  const Figures figures_;
  const CUdevice device_;
  const CUcontext context_;
  mutable std::mutex mutex_;
  Status failure_;
  std::map<CUstream, Names> launched_;
  std::map<DeviceAddress, Allocation> allocations_;
};

} // namespace kvq::cuda
