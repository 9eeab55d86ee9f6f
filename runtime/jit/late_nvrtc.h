// SPDX-License-Identifier: Apache-2.0
//
// NVRTC, looked for when it is first needed: most processes never compile for a GPU.
#pragma once

#include "runtime/jit/nvrtc.h"

#include <mutex>

namespace kvq {

class LateNvrtc {
public:
  explicit LateNvrtc(CudaLibrarySearch search) : search_(std::move(search)) {}
  // Thread-safe; the same answer at every call.
  const Result<std::shared_ptr<const Nvrtc>> &get() {
    std::call_once(once_, [&] { nvrtc_ = Nvrtc::load(search_); });
    return nvrtc_;
  }

private:
  const CudaLibrarySearch search_;
  std::once_flag once_;
  Result<std::shared_ptr<const Nvrtc>> nvrtc_ = Status(Code::Internal, "not looked for");
};

} // namespace kvq
