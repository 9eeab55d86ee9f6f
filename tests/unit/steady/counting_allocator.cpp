// SPDX-License-Identifier: Apache-2.0
//
// The functions of the C library, defined by the program: the dynamic linker then binds every library to these. A
// sanitizer defines them itself and calls a hook.
#include "tests/unit/steady/counting_allocator.h"

#include <atomic>
#include <cerrno>
#include <cstddef>

static std::atomic<int64_t> count{0};

int64_t kvq_test::allocations() { return count.load(); }

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KVQ_ADDRESS_SANITIZER
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define KVQ_ADDRESS_SANITIZER
#endif

#ifdef KVQ_ADDRESS_SANITIZER

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
                                                         void (*)(const volatile void *));

static const int installed = __sanitizer_install_malloc_and_free_hooks([](const volatile void *, size_t) { ++count; },
                                                                       [](const volatile void *) {});

#else

// What glibc's own functions are called beside the names that programs may define.
#define EXPORT __attribute__((visibility("default")))

extern "C" {
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

EXPORT void *malloc(size_t size) { return ++count, __libc_malloc(size); }
EXPORT void *calloc(size_t number, size_t size) { return ++count, __libc_calloc(number, size); }
EXPORT void *realloc(void *memory, size_t size) { return ++count, __libc_realloc(memory, size); }
EXPORT void *memalign(size_t alignment, size_t size) { return ++count, __libc_memalign(alignment, size); }
EXPORT void *aligned_alloc(size_t alignment, size_t size) { return ++count, __libc_memalign(alignment, size); }
EXPORT int posix_memalign(void **memory, size_t alignment, size_t size) {
  ++count;
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}
EXPORT void free(void *memory) { __libc_free(memory); }
}

#endif
