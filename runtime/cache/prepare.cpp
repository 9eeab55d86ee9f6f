// SPDX-License-Identifier: Apache-2.0
#include "runtime/cache/prepare.h"

#include <mutex>

namespace kvq {

namespace {

struct Job {
  const CacheConfig &config;
  TargetKernels &kernels;
  const std::function<void(const KernelInfo &)> &progress;
  std::mutex mutex;
  Status status;

  void run(int kernel) {
    auto prepared = kernels.prepare(kernelRequest(config, kernel), kernelScore(config, kernel));
    std::lock_guard<std::mutex> lock(mutex);
    if (!prepared.isOk()) {
      status = {prepared.status().code(), "for " + kernels.target() + ": " + prepared.status().message()};
      return;
    }
    tell(prepared.value().kernel);
    if (prepared.value().cubin)
      tell(*prepared.value().cubin);
  }

  void tell(KernelInfo info) const {
    info.name += " for " + kernels.target();
    if (progress)
      progress(info);
  }
};

} // namespace

Status prepareTarget(const CacheConfig &config, TargetKernels &kernels, ParallelFor &parallel,
                     const std::function<void(const KernelInfo &)> &progress) {
  const CacheConfig there = onTarget(config, kernels.target());
  if (const Status fits = checkProfile(there.profile, there.format.pair); !fits.isOk())
    return {fits.code(), "for " + kernels.target() + ": " + fits.message()};
  Job job{there, kernels, progress, {}, {}};
  parallel.run(
      cacheKernels(there), [](void *data, int64_t index) { static_cast<Job *>(data)->run(static_cast<int>(index)); },
      &job);
  return job.status;
}

} // namespace kvq
