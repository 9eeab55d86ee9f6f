// SPDX-License-Identifier: Apache-2.0
//
// Errors of the C API.
#include "runtime/capi/handles.h"

namespace kvq::capi {

// For the case that not even an error can be allocated; kvq_error_free leaves it alone.
static kvq_error outOfMemory{KVQ_RESOURCE_EXHAUSTED, "out of memory"};

kvq_error *toError(const Status &status) noexcept {
  if (status.isOk())
    return nullptr;
  try {
    return new kvq_error{static_cast<kvq_code>(status.code()), status.message()};
  } catch (const std::bad_alloc &) {
    return &outOfMemory;
  }
}

Status nullArgument(const char *name) {
  return {Code::InvalidArgument, std::string(name) + " is NULL: pass a valid pointer"};
}

} // namespace kvq::capi

static_assert(static_cast<int>(kvq::Code::Internal) == KVQ_INTERNAL &&
                  static_cast<int>(kvq::Code::Corrupt) == KVQ_CORRUPT,
              "the two lists of codes are one");

extern "C" {

kvq_code kvq_error_code(const kvq_error *error) { return error ? error->code : KVQ_OK; }

const char *kvq_error_message(const kvq_error *error) { return error ? error->message.c_str() : ""; }

void kvq_error_free(kvq_error *error) {
  if (error != &kvq::capi::outOfMemory)
    delete error;
}

const char *kvq_version(void) { return KVQ_VERSION_TEXT; }

} // extern "C"
