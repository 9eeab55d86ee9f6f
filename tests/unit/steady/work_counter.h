// SPDX-License-Identifier: Apache-2.0
//
// Counts what the runtime does, the same in every run: basic blocks of its code, and bytes that it copies or clears.
#pragma once

#include <cstdint>

namespace kvq_test {

struct Work {
  int64_t blocks = 0, bytes = 0;
  Work operator-(const Work &other) const { return {blocks - other.blocks, bytes - other.bytes}; }
};
Work work(); // so far, of all threads

} // namespace kvq_test
