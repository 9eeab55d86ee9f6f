// SPDX-License-Identifier: Apache-2.0
//
// kvq_context_*: a device with its threads and its kernels.
#include "runtime/capi/handles.h"

#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/thread_pool.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/ptxsim/plugin.h"
#include "runtime/device/ref/ref_device.h"

using namespace kvq;
using namespace kvq::capi;

namespace {

class CallersParallelFor : public ParallelFor {
public:
  CallersParallelFor(kvq_parallel_for function, void *data) : function_(function), data_(data) {}
  void run(int64_t count, ParallelTask task, void *data) override { function_(data_, count, task, data); }

private:
  kvq_parallel_for function_;
  void *data_;
};

constexpr int kMaxThreads = 1024;

Result<std::unique_ptr<Device>> makeDevice(const kvq_context_options &options) {
  if (options.threads < 0 || options.threads > kMaxThreads)
    return Status(Code::InvalidArgument,
                  "threads is " + std::to_string(options.threads) + " but must be 0 to " + std::to_string(kMaxThreads));
  const std::string name = options.device ? options.device : "cpu";
  if (name != "cpu" && name != "ref" && name != "cuda" && name != "ptxsim")
    return Status(Code::Unsupported,
                  "device '" + name + "' does not exist in this build: use cpu, ref, cuda or ptxsim");
  if (name == "ref" && options.level && std::string_view(options.level) != "ref")
    return Status(Code::InvalidArgument,
                  "level '" + std::string(options.level) + "' is one of device cpu: leave it NULL for device ref");
  std::unique_ptr<ParallelFor> parallel;
  if (options.parallel_for)
    parallel = std::make_unique<CallersParallelFor>(options.parallel_for, options.parallel_for_data);
  else
    parallel = std::make_unique<ThreadPool>(options.threads);
  const DeviceOptions chosen = {options.level, options.store_dir, options.compiler, options.frozen != 0};
  if (name == "ref")
    return makeRefDevice(std::move(parallel));
  if (name == "cuda")
    return makeCudaDevice(chosen, std::move(parallel));
  return name == "cpu" ? makeCpuDevice(chosen, std::move(parallel)) : loadPtxsimDevice(chosen, std::move(parallel));
}

} // namespace

kvq_kernel_info kvq::capi::shownInfo(const KernelInfo &info) {
  return {info.name.c_str(), info.source.c_str(), info.key.c_str(),
          info.compileMs,    info.objectBytes,    info.schedule.c_str()};
}

void kvq::capi::tell(kvq_kernel_visitor progress, void *userData, const KernelInfo &info) {
  const kvq_kernel_info shown = shownInfo(info);
  if (progress)
    progress(userData, &shown);
}

extern "C" {

kvq_error *kvq_context_create(const kvq_context_options *options, kvq_context **context) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(options);
    KVQ_REQUIRE(context);
    auto copy = copyStruct(options, "options");
    if (!copy.isOk())
      return copy.status();
    auto device = makeDevice(copy.value());
    if (!device.isOk())
      return device.status();
    std::string description = device.value()->description(), machine = device.value()->machine();
    std::string splits = toText(splitPolicy(onDevice({}, *device.value())));
    const kvq_context_options &given = copy.value();
    const auto kept = [](const char *text) { return text ? std::optional<std::string>(text) : std::nullopt; };
    *context = new kvq_context{std::move(device.value()), std::move(description), std::move(machine), std::move(splits),
                               kept(given.store_dir),     kept(given.compiler),   given.frozen != 0};
    return Status::ok();
  });
}

void kvq_context_destroy(kvq_context *context) { delete context; }

const char *kvq_context_levels(const kvq_context *context) { return context ? context->device->levels().c_str() : ""; }

const char *kvq_context_level(const kvq_context *context) { return context ? context->device->level().c_str() : ""; }

const char *kvq_context_description(const kvq_context *context) { return context ? context->description.c_str() : ""; }

const char *kvq_context_machine(const kvq_context *context) { return context ? context->machine.c_str() : ""; }

kvq_device kvq_context_memory(const kvq_context *context) {
  return context && context->device->accelerator() ? KVQ_CUDA : KVQ_CPU;
}

void kvq_context_kernels(kvq_context *context, kvq_kernel_visitor visitor, void *user_data) {
  if (!context || !visitor)
    return;
  kvq_error_free(guarded([&]() -> Status {
    for (const KernelRef &kernel : context->device->kernels()) {
      const kvq_kernel_info shown = shownInfo(kernel->info());
      visitor(user_data, &shown);
    }
    return Status::ok();
  }));
}

} // extern "C"
