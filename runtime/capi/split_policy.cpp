// SPDX-License-Identifier: Apache-2.0
//
// kvq_split_policy_*, kvq_cache_split_policy: how attention splits keys over programs.
#include "runtime/capi/handles.h"

#include "runtime/cache/split_choice.h"
#include "runtime/device/kernel_source.h"

using namespace kvq;
using namespace kvq::capi;

extern "C" {

const char *kvq_split_policy_default(const kvq_context *context) { return context ? context->splitPolicy.c_str() : ""; }

kvq_error *kvq_split_policy_get(kvq_context *context, const char *request, size_t capacity, char *text) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(request);
    KVQ_REQUIRE(text);
    KVQ_RETURN_IF_ERROR(checkSplitRequest(request));
    auto kernels = context->device->compiledKernels();
    const std::string chosen = kernels.isOk() ? kernels.value()->chosenSplits(request) : "";
    if (chosen.size() >= capacity)
      return {Code::InvalidArgument, "capacity is " + std::to_string(capacity) + " but the split policy needs " +
                                         std::to_string(chosen.size() + 1) + " bytes"};
    std::memcpy(text, chosen.c_str(), chosen.size() + 1);
    return Status::ok();
  });
}

kvq_error *kvq_split_policy_set(kvq_context *context, const char *request, const char *policy) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(request);
    KVQ_RETURN_IF_ERROR(checkSplitRequest(request));
    if (policy)
      KVQ_RETURN_IF_ERROR(parseSplitPolicy(policy).status());
    auto kernels = context->device->compiledKernels();
    return kernels.isOk() ? kernels.value()->chooseSplits(request, policy ? policy : "") : kernels.status();
  });
}

const char *kvq_cache_split_policy(const kvq_cache *cache) { return cache ? cache->splitPolicy.c_str() : ""; }

} // extern "C"
