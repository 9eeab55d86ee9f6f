// SPDX-License-Identifier: Apache-2.0
//
// The objects behind the C API's handles and how its functions report errors. Nothing outside of this folder includes
// it.
#pragma once

#include "runtime/cache/step.h"

#include <kvq/kvq.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <optional>

struct kvq_error {
  kvq_code code;
  std::string message;
};
struct kvq_context {
  std::shared_ptr<kvq::Device> device;
  std::string description, machine, splitPolicy;
  // What it was made with, for kernels of other targets.
  std::optional<std::string> storeDir = {}, compiler = {};
  bool frozen = false;
};
struct kvq_buffer {
  std::shared_ptr<kvq::Device> device;
  uint64_t address; // of the host's memory if the device has none
  size_t bytes;
};
struct kvq_step {
  kvq::Step *step; // the cache's
};
struct kvq_cache {
  explicit kvq_cache(std::unique_ptr<kvq::Cache> made)
      : cache(std::move(made)), splitPolicy(toText(kvq::splitPolicy(cache->config()))), step{&cache->step()} {}
  std::unique_ptr<kvq::Cache> cache;
  std::string splitPolicy;
  kvq_step step; // what kvq_plan gives: one at a time, and opening one allocates nothing
};
struct kvq_kernel {
  std::shared_ptr<kvq::Device> device;
  kvq::KernelRef kernel;
  int32_t arguments;
};

namespace kvq::capi {

kvq_error *toError(const Status &status) noexcept; // NULL for Ok

// Runs a function that returns a Status. The library throws nothing itself; what the standard library throws for lack
// of memory ends here.
template <typename Function> kvq_error *guarded(const Function &function) noexcept {
  try {
    return toError(function());
  } catch (const std::bad_alloc &) {
    return toError({Code::ResourceExhausted, "out of memory: free some and try again"});
  } catch (const std::exception &error) {
    return toError({Code::Internal, std::string(error.what()) + ": please report it"});
  }
}

Status nullArgument(const char *name);
#define KVQ_REQUIRE(argument)                                                                                          \
  do {                                                                                                                 \
    if (!(argument))                                                                                                   \
      return ::kvq::capi::nullArgument(#argument);                                                                     \
  } while (0)

// A copy of a struct that the caller filled. One from a newer header is taken where its new fields are zero, one from
// an older header where it has at least the `smallest` bytes of the first version; fields that it lacks are zero.
template <typename Struct>
Result<Struct> copyStruct(const Struct *given, const char *name, size_t smallest = sizeof(Struct)) {
  Struct copy{};
  if (given->struct_size < smallest)
    return Status(Code::InvalidArgument, std::string(name) + "->struct_size is " + std::to_string(given->struct_size) +
                                             " but must be sizeof(" + name + "), " + std::to_string(sizeof(Struct)));
  if (given->struct_size <= sizeof(Struct)) {
    std::memcpy(&copy, given, given->struct_size);
    return copy;
  }
  const auto *bytes = reinterpret_cast<const unsigned char *>(given);
  // A size that no header has is a forgotten field: do not read far beyond the struct because of it.
  if (given->struct_size > sizeof(Struct) + 1024)
    return Status(Code::InvalidArgument, std::string(name) + "->struct_size is " + std::to_string(given->struct_size) +
                                             ": set it to sizeof the struct");
  if (std::any_of(bytes + sizeof(Struct), bytes + given->struct_size, [](unsigned char byte) { return byte != 0; }))
    return Status(Code::Unsupported, std::string(name) + " has fields set that this version does not know: use a newer "
                                                         "libkvq or leave them zero");
  std::memcpy(&copy, given, sizeof(Struct));
  return copy;
}

// The number behind an enumerator of the caller's, which may be none that this header knows.
template <typename Enum> int enumValue(const Enum &value) {
  static_assert(sizeof(Enum) == sizeof(int));
  int number;
  std::memcpy(&number, &value, sizeof(number));
  return number;
}

// The element type of a caller's dtype.
Result<ElementType> toElementType(const std::string &name, const kvq_dtype &dtype);

// The accuracy class that a caller's enumerator names, and back.
Result<Accuracy> toAccuracy(const std::string &name, const kvq_accuracy &accuracy);
kvq_accuracy fromAccuracy(Accuracy accuracy);

// The score function that a caller's struct means, checked as far as it can be without a device.
Result<std::shared_ptr<const ScoreFunction>> toScore(const kvq_score_function *score);

// InvalidArgument where a kernel has no scores and is given a score function; NULL: none.
Status checkScored(const KernelRequest &request, const ScoreFunction *score);

// What a handle of a kernel holds.
kvq_kernel *makeKernel(const std::shared_ptr<Device> &device, KernelRef kernel);

// The cache configuration that a caller's struct means, checked.
Result<CacheConfig> toConfig(const kvq_cache_config *config);

// What a visitor is shown of a kernel; of this info's texts.
kvq_kernel_info shownInfo(const KernelInfo &info);
// The same to a caller's visitor, which may be NULL.
void tell(kvq_kernel_visitor progress, void *userData, const KernelInfo &info);

// ---- tensors ----
inline constexpr int64_t kAnySize = -1;
enum class Access { Read, Write };
// InvalidArgument or Unsupported, naming the tensor, unless it lies where the device's kernels see it, has that element
// type and shape (kAnySize: any) and can be addressed. `contiguousRows`: the last dimension has stride 1.
Status checkTensor(const Device &device, const char *name, const kvq_tensor *tensor, ElementType type,
                   std::initializer_list<int64_t> shape, bool contiguousRows, Access access);
// [batch, heads, tokens, channels] or, without batch, [heads, tokens, channels].
Tensor toRows(const kvq_tensor &tensor);

Status checkStream(const void *stream); // of a host: it has none
// The stream that a handle means on a device with streams.
Stream &streamOf(Accelerator &accelerator, void *stream);
// The same on any device; NULL on a host.
Result<Stream *> streamOn(const Device &device, void *stream);

} // namespace kvq::capi
