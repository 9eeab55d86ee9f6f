// SPDX-License-Identifier: Apache-2.0
//
// What the binding files share: how an error of the C API becomes a Python exception, how an array of NumPy or torch
// becomes a kvq_tensor without a copy, and memory for a cache. It adds no behaviour to the C API.
#pragma once

#include <kvq/kvq.h>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace kvq::python {

namespace nb = nanobind;

// Thrown here, translated to the classes of kvq/errors.py by the translator of module.cpp.
struct Failure : std::exception {
  Failure(kvq_code code, std::string message) : code(code), message(std::move(message)) {}
  const char *what() const noexcept override { return message.c_str(); }
  kvq_code code;
  std::string message;
};

// Throws what the C API returned; takes the error over.
void check(kvq_error *error);

// Inputs may be read-only; outputs must be writable.
using Input = nb::ndarray<nb::ro>;
using Output = nb::ndarray<>;
kvq_tensor tensorOf(const Input &array, const char *name);
kvq_tensor tensorOf(const Output &array, const char *name);

// Memory aligned as the C API wants it, where kernels of a context see it. The host's takes real memory only where it
// is written to.
class Memory {
public:
  Memory() = default;
  Memory(kvq_context *context, size_t bytes);
  Memory(Memory &&other) noexcept { *this = std::move(other); }
  Memory &operator=(Memory &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(buffer_, other.buffer_);
    return *this;
  }
  ~Memory();
  void *data() const { return data_; }
  size_t bytes() const { return bytes_; }

private:
  void *data_ = nullptr;
  size_t bytes_ = 0;
  kvq_buffer *buffer_ = nullptr; // of a device with memory of its own
};

// "float32", "bfloat16", "float16".
kvq_dtype parseDtype(const std::string &name);
const char *dtypeName(kvq_dtype dtype);

// A name of kvq_accuracy_classes; none: the default class.
kvq_accuracy parseAccuracy(const std::optional<std::string> &name);

// kvq_score_function with its texts.
struct ScoreFunction {
  std::string text, language = "ir", name = "score";
  kvq_score_function view() const; // of this object's texts
};

// Calls on one handle must not overlap (kvq.h), and the interpreter's lock is released around them: each handle has a
// lock of its own, always taken without the interpreter's lock.
struct ContextState {
  kvq_context *handle = nullptr;
  std::mutex mutex;
  ~ContextState() { kvq_context_destroy(handle); }
};
class Context {
public:
  std::shared_ptr<ContextState> state = std::make_shared<ContextState>();
};

// The kind of memory of a context, as DLPack numbers it.
int deviceTypeOf(const kvq_context *context);

// Memory and a stream of a context's device; calls on them may overlap.
struct BufferState {
  std::shared_ptr<ContextState> context; // destroyed after the buffer
  kvq_buffer *handle = nullptr;
  ~BufferState() { kvq_buffer_destroy(handle); }
};
class Buffer {
public:
  std::shared_ptr<BufferState> state = std::make_shared<BufferState>();
};
struct StreamState {
  std::shared_ptr<ContextState> context; // destroyed after the stream
  void *handle = nullptr;
  ~StreamState() { kvq_stream_destroy(context->handle, handle); }
};
class Stream {
public:
  std::shared_ptr<StreamState> state = std::make_shared<StreamState>();
};
inline void *handleOf(const std::optional<Stream> &stream) { return stream ? stream->state->handle : nullptr; }

template <typename Array> bool isContiguous(const Array &array) {
  int64_t expected = 1;
  bool contiguous = true;
  for (size_t i = array.ndim(); i-- > 0;) {
    contiguous &= array.shape(i) == 1 || array.stride(i) == expected;
    expected *= static_cast<int64_t>(array.shape(i));
  }
  return contiguous || expected == 0; // an empty array has no element to misplace
}

// A cache, its memory and its lock; steps and arrays keep it alive.
struct CacheState {
  std::shared_ptr<ContextState> context; // destroyed after the cache
  std::string format;
  kvq_cache_config config = {};
  std::optional<ScoreFunction> score;
  kvq_score_function scoreView = {};      // of score, for config
  std::optional<std::string> splitPolicy; // that was given
  std::shared_ptr<Memory> memory;         // arrays made by pages() own it too: growing must not take it from them
  Memory workspace;
  kvq_cache *handle = nullptr;
  std::mutex mutex;
  ~CacheState() { kvq_cache_destroy(handle); }
};
class Cache {
public:
  std::shared_ptr<CacheState> state = std::make_shared<CacheState>();
  // Calls function(handle) with the cache's lock and without the interpreter's, and throws the error that it returns.
  template <typename Function> void call(const Function &function) const {
    nb::gil_scoped_release release;
    std::scoped_lock lock(state->mutex);
    check(function(state->handle));
  }
};

// Collects kvq_kernel_info records and hands them to a Python callable, if there is one.
class KernelVisitor {
public:
  explicit KernelVisitor(nb::object callable) : callable_(std::move(callable)) {}
  static void visit(void *self, const kvq_kernel_info *info); // from any thread, with or without the interpreter's lock
  void rethrow();                                             // what the callable raised

private:
  nb::object callable_;
  std::exception_ptr raised_;
};

nb::class_<Context> bindContext(nb::module_ &m);
void bindScore(nb::module_ &m);
void bindCache(nb::module_ &m);
void bindSequences(nb::class_<Cache> &cache);
void bindBuffers(nb::module_ &m, nb::class_<Context> &context);
void bindKernel(nb::module_ &m);

} // namespace kvq::python
