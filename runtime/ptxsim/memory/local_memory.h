// SPDX-License-Identifier: Apache-2.0
//
// Local memory of a warp: so many bytes for each thread, and which of them were written.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace kvq::ptxsim {

class LocalMemory {
public:
  explicit LocalMemory(int64_t bytesPerThread = 0) { resize(bytesPerThread); }
  void resize(int64_t bytesPerThread);
  // Before the next block: nothing is written any more.
  void reset();
  int64_t size() const { return size_; }
  uint8_t *data(int lane) { return data_.data() + lane * stride_; }
  uint8_t *written(int lane) { return written_.data() + lane * stride_; } // one byte each, 1: written

private:
  int64_t size_ = 0, stride_ = 0;
  std::vector<uint8_t> data_, written_;
};

} // namespace kvq::ptxsim
