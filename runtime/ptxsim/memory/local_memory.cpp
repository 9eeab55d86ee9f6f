// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/memory/local_memory.h"

namespace kvq::ptxsim {

void LocalMemory::resize(int64_t bytesPerThread) {
  size_ = bytesPerThread;
  // An odd number of 16-byte pieces, so that equal addresses of the lanes do not fall into one cache set.
  stride_ = ((bytesPerThread + 15) / 16 | 1) * 16;
  data_.assign(size_t(stride_ * 32), 0xff);
  written_.assign(size_t(stride_ * 32), 0);
}

void LocalMemory::reset() {
  if (size_ > 0)
    std::memset(written_.data(), 0, written_.size());
}

} // namespace kvq::ptxsim
