// SPDX-License-Identifier: Apache-2.0
//
// Devices: where kernels come from and how their programs are spread over threads. A device knows nothing about caches;
// a cache knows nothing about where a kernel came from.
#pragma once

#include "runtime/device/accelerator.h"
#include "runtime/device/score_function.h"
#include "runtime/format/problem.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvq {

// What the names of accelerators' targets begin with; those of hosts do not.
inline constexpr std::string_view kAcceleratorTargets = "nvptx:";
inline bool isAcceleratorTarget(std::string_view target) { return target.starts_with(kAcceleratorTargets); }
// How pages of caches on accelerators are laid out.
inline constexpr Profile kAcceleratorProfile = Profile::Mma;

struct KernelInfo {
  std::string name;   // canonical request text, or the entry of a user kernel
  std::string source; // "compiled", "store" or "ref"
  std::string key;
  std::string signature;
  double compileMs = 0;
  int64_t objectBytes = 0;
  std::string schedule = {}; // that it was compiled with; "": the default one
};

// A grid of blocks of threads, as a user's kernel is launched, or of programs of a warp each, as a built-in one is
// (kernel_abi.h); launchPrograms turns the second into the first.
enum class GridOf { Blocks, Programs };

// A kernel that can be called (kernel_abi.h). Programs may run on any threads at once.
class Kernel {
public:
  explicit Kernel(KernelInfo info) : info_(std::move(info)) {}
  virtual ~Kernel() = default;
  virtual int32_t run(const uint64_t *args, const int64_t *programId) const = 0;
  const KernelInfo &info() const { return info_; }
  // What a stream launches, of a kernel that an accelerator runs; run() is then never called. NULL: a host's kernel.
  virtual const DeviceFunction *function() const { return nullptr; }
  virtual GridOf gridOf() const { return GridOf::Programs; }

private:
  KernelInfo info_;
};
using KernelRef = std::shared_ptr<const Kernel>;

class AcceleratorKernel : public Kernel {
public:
  AcceleratorKernel(KernelInfo info, DeviceFunctionRef function, GridOf gridOf = GridOf::Programs)
      : Kernel(std::move(info)), function_(std::move(function)), gridOf_(gridOf) {}
  int32_t run(const uint64_t *, const int64_t *) const override { return -1; }
  const DeviceFunction *function() const override { return function_.get(); }
  GridOf gridOf() const override { return gridOf_; }

private:
  DeviceFunctionRef function_;
  GridOf gridOf_;
};

class KernelSource;

// Runs task(data, i) for i in [0, count) on any threads and returns when all are done.
using ParallelTask = void (*)(void *data, int64_t index);
class ParallelFor {
public:
  virtual ~ParallelFor() = default;
  virtual void run(int64_t count, ParallelTask task, void *data) = 0;
  // Where equal tasks are in work, index i + stride() comes after index i on a thread, as far as is known.
  virtual int stride() const { return 1; }
};

enum class Spread { Serial, Parallel };

// What a caller chooses of a device. Texts are borrowed for the call that makes the device.
struct DeviceOptions {
  const char *level = nullptr;    // NULL: the best of the host, or of the accelerator
  const char *storeDir = nullptr; // NULL: the default folder; "": none
  const char *compiler = nullptr; // NULL: the default plug-in; "": none
  bool frozen = false;            // never compile
};

class Device {
public:
  explicit Device(std::unique_ptr<ParallelFor> parallel) : parallel_(std::move(parallel)) {}
  virtual ~Device() = default;
  Device(const Device &) = delete;
  Device &operator=(const Device &) = delete;

  // A built-in kernel; compiled or loaded at the first call. Thread-safe. `score`: of an attend kernel, or NULL.
  virtual Result<KernelRef> open(const KernelRequest &request, const ScoreFunction *score) = 0;
  Result<KernelRef> open(const KernelRequest &request) { return open(request, nullptr); }
  // A kernel out of the source that the device takes: an IR module, PTX text. `entry` names it; "": the only one.
  virtual Result<KernelRef> compile(const std::string &source, const std::string &entry) = 0;
  // Whether open() would succeed, without compiling anything.
  virtual Status available(const KernelRequest &request, const ScoreFunction *score) const = 0;
  Status available(const KernelRequest &request) const { return available(request, nullptr); }
  virtual std::vector<KernelRef> kernels() const = 0;
  virtual const std::string &level() const = 0;
  virtual const std::string &levels() const = 0; // separated by spaces, best last
  // One line for people, with what they should know of it.
  virtual std::string description() const { return level(); }

  // What times depend on, as canonical JSON: of a host kind, target (the level), name, cores and caches in bytes, of an
  // accelerator kind, target and name.
  virtual std::string machine() const = 0;
  // Where its kernels come from (kernel_source.h), which knows their schedules. Unsupported: they are not compiled.
  virtual Result<KernelSource *> compiledKernels() const = 0;

  // Memory and queues, of a device that has its own. NULL: the host's memory, and launches that are done on return.
  virtual Accelerator *accelerator() const { return nullptr; }
  // How pages of its caches are laid out.
  virtual Profile profile() const { return Profile::Vnni; }

  // On a host: runs grid[0] * grid[1] * grid[2] programs. Internal if one of them returns other than 0.
  Status launch(const Kernel &kernel, const uint64_t *args, const int64_t grid[3], Spread spread) const;
  Status launch(const Kernel &kernel, const uint64_t *args, int64_t programs, Spread spread) const {
    const int64_t grid[3] = {programs, 1, 1};
    return launch(kernel, args, grid, spread);
  }
  ParallelFor &parallel() const { return *parallel_; }

private:
  std::unique_ptr<ParallelFor> parallel_;
};

// The argument list of a built-in kernel as kvq_kernel_signature prints it.
std::string builtinSignature(const KernelRequest &request);

} // namespace kvq
