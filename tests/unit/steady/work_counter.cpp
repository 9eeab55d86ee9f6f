// SPDX-License-Identifier: Apache-2.0
//
// The callbacks of -fsanitize-coverage, Clang's and GCC's, and the wrapped memory functions.
#include "tests/unit/steady/work_counter.h"

#include <atomic>
#include <cstddef>

static std::atomic<int64_t> blocks{0}, bytes{0};

kvq_test::Work kvq_test::work() { return {blocks.load(), bytes.load()}; }

extern "C" {

void __sanitizer_cov_trace_pc_guard_init(uint32_t *, uint32_t *) {}
void __sanitizer_cov_trace_pc_guard(uint32_t *) { blocks.fetch_add(1, std::memory_order_relaxed); }
void __sanitizer_cov_trace_pc() { blocks.fetch_add(1, std::memory_order_relaxed); }

void *__real_memcpy(void *to, const void *from, size_t size);
void *__real_memmove(void *to, const void *from, size_t size);
void *__real_memset(void *to, int value, size_t size);
void *__wrap_memcpy(void *to, const void *from, size_t size) {
  bytes.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed);
  return __real_memcpy(to, from, size);
}
void *__wrap_memmove(void *to, const void *from, size_t size) {
  bytes.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed);
  return __real_memmove(to, from, size);
}
void *__wrap_memset(void *to, int value, size_t size) {
  bytes.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed);
  return __real_memset(to, value, size);
}
}
