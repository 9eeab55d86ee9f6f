// SPDX-License-Identifier: Apache-2.0
//
// The module kvq._native: the C API of kvq.h as Python classes, one to one. This file holds what the other binding
// files share, the functions about formats, and the translation of errors.
#include "python/native/native.h"

#include <kvq/kernel_abi.h>

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <iterator>
#include <sstream>
#include <vector>

#include <sys/mman.h>

namespace kvq::python {

void check(kvq_error *error) {
  if (!error)
    return;
  Failure failure(kvq_error_code(error), kvq_error_message(error));
  kvq_error_free(error);
  throw failure;
}

// Mapped by itself, not taken from malloc: pages of the system that are never touched are never there, and no setting
// of malloc changes that. A pool can so be as large as it may ever become.
Memory::Memory(kvq_context *context, size_t bytes) : bytes_(bytes) {
  if (bytes == 0)
    return;
  if (kvq_context_memory(context) != KVQ_CPU) {
    check(kvq_buffer_create(context, bytes, &buffer_));
    data_ = reinterpret_cast<void *>(kvq_buffer_address(buffer_));
    return;
  }
  data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data_ == MAP_FAILED)
    data_ = nullptr;
  if (!data_)
    throw Failure(KVQ_RESOURCE_EXHAUSTED, "the system has no " + std::to_string(bytes) +
                                              " bytes of memory for the cache: take fewer tokens or sequences");
  // A short sequence writes a page or two for each head, a run of pages apart (format-spec page_c4): where the system
  // makes huge pages of all memory, each of them would take 2 MB. It has a price: on a Zen 5 core steps over 8 bits
  // from memory were a tenth slower without huge pages, those over 4 and 2 bits the same. A system without them refuses
  // the advice, which is as good.
  madvise(data_, bytes, MADV_NOHUGEPAGE);
}

Memory::~Memory() {
  if (buffer_)
    kvq_buffer_destroy(buffer_);
  else if (data_)
    munmap(data_, bytes_);
}

int deviceTypeOf(const kvq_context *context) {
  return kvq_context_memory(context) == KVQ_CPU ? nb::device::cpu::value : nb::device::cuda::value;
}

static constexpr std::pair<const char *, kvq_dtype> kDtypes[] = {
    {"float32", KVQ_F32}, {"bfloat16", KVQ_BF16}, {"float16", KVQ_F16}};

kvq_dtype parseDtype(const std::string &name) {
  for (const auto &[text, dtype] : kDtypes)
    if (name == text)
      return dtype;
  throw Failure(KVQ_UNSUPPORTED, "dtype is \"" + name + "\": kvq keeps \"float32\", \"bfloat16\" or \"float16\"");
}

const char *dtypeName(kvq_dtype dtype) { return kDtypes[dtype].first; }

static std::vector<std::string> accuracyClasses() {
  std::istringstream words(kvq_accuracy_classes());
  return {std::istream_iterator<std::string>(words), {}};
}

kvq_accuracy parseAccuracy(const std::optional<std::string> &name) {
  if (!name)
    return KVQ_ACCURACY_DEFAULT;
  std::string known;
  int number = KVQ_ACCURACY_DEFAULT;
  for (const std::string &text : accuracyClasses()) {
    ++number;
    if (text == *name)
      return static_cast<kvq_accuracy>(number);
    known += (known.empty() ? "\"" : ", \"") + text + "\"";
  }
  throw Failure(KVQ_INVALID_ARGUMENT, "accuracy is \"" + *name + "\": use one of " + known);
}

static kvq_dtype dtypeOf(nb::dlpack::dtype type, const char *name) {
  if (type == nb::dtype<float>())
    return KVQ_F32;
  if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat) && type.bits == 16 && type.lanes == 1)
    return KVQ_BF16;
  if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 16 && type.lanes == 1)
    return KVQ_F16;
  throw Failure(KVQ_UNSUPPORTED, std::string(name) + " has elements of " + std::to_string(type.bits) +
                                     " bits and DLPack type code " + std::to_string(type.code) +
                                     ": convert it to float32, bfloat16 or float16");
}

template <typename Array> static kvq_tensor describe(const Array &array, const char *name) {
  kvq_tensor tensor = {};
  if (array.ndim() > 4)
    throw Failure(KVQ_INVALID_ARGUMENT,
                  std::string(name) + " has " + std::to_string(array.ndim()) + " dimensions: give at most 4");
  tensor.data = const_cast<void *>(static_cast<const void *>(array.data()));
  tensor.dtype = dtypeOf(array.dtype(), name);
  tensor.device = array.device_type() == nb::device::cpu::value ? KVQ_CPU : KVQ_CUDA;
  tensor.ndim = static_cast<int32_t>(array.ndim());
  for (size_t i = 0; i < array.ndim(); ++i) {
    tensor.shape[i] = static_cast<int64_t>(array.shape(i));
    tensor.strides[i] = array.stride(i);
  }
  return tensor;
}
kvq_tensor tensorOf(const Input &array, const char *name) { return describe(array, name); }
kvq_tensor tensorOf(const Output &array, const char *name) { return describe(array, name); }

void KernelVisitor::visit(void *self, const kvq_kernel_info *info) {
  nb::gil_scoped_acquire gil;
  auto *visitor = static_cast<KernelVisitor *>(self);
  if (visitor->callable_.is_none() || visitor->raised_)
    return;
  try {
    nb::dict record;
    record["name"] = info->name;
    record["source"] = info->source;
    record["key"] = info->key;
    record["compile_ms"] = info->compile_ms;
    record["object_bytes"] = info->object_bytes;
    record["schedule"] = info->schedule;
    visitor->callable_(record);
  } catch (...) { // an exception must not cross the C API
    visitor->raised_ = std::current_exception();
  }
}

void KernelVisitor::rethrow() {
  if (raised_)
    std::rethrow_exception(raised_);
}

static const char *className(kvq_code code) {
  switch (code) {
  case KVQ_INVALID_ARGUMENT:
    return "InvalidArgument";
  case KVQ_UNSUPPORTED:
    return "Unsupported";
  case KVQ_RESOURCE_EXHAUSTED:
    return "PoolFull";
  case KVQ_FAILED_PRECONDITION:
    return "FailedPrecondition";
  case KVQ_BAD_VALUE:
    return "BadValue";
  case KVQ_CORRUPT:
    return "Corrupt";
  case KVQ_PERMISSION:
    return "PermissionDenied";
  default:
    return "InternalError";
  }
}

static void translate(const std::exception_ptr &pending, void *) {
  try {
    std::rethrow_exception(pending);
  } catch (const Failure &failure) {
    nb::object type = nb::module_::import_("kvq.errors").attr(className(failure.code));
    PyErr_SetString(type.ptr(), failure.message.c_str());
  }
}

static std::string canonical(const std::string &format) {
  char text[128];
  check(kvq_format_canonical(format.c_str(), sizeof text, text));
  return text;
}

static std::vector<int32_t> pageTokens(const std::string &format) {
  std::vector<int32_t> tokens(64);
  size_t count = 0;
  check(kvq_format_page_tokens(format.c_str(), tokens.size(), tokens.data(), &count));
  tokens.resize(count);
  return tokens;
}

static int64_t pageBytes(const std::string &format, int dk, int dv, int pageTokens) {
  int64_t bytes = 0;
  check(kvq_format_page_bytes(format.c_str(), pageTokens, dk, dv, &bytes));
  return bytes;
}

static std::pair<std::string, std::string> layouts(const std::string &format, int dk, int dv, int pageTokens,
                                                   const std::string &profile) {
  char k[256], v[256];
  check(kvq_format_layouts(format.c_str(), profile.c_str(), pageTokens, dk, dv, sizeof k, k, v));
  return {k, v};
}

static std::pair<int64_t, int64_t> frontier(const std::string &format, int64_t tokens) {
  std::pair<int64_t, int64_t> result;
  check(kvq_format_frontier(format.c_str(), tokens, &result.first, &result.second));
  return result;
}

NB_MODULE(_native, m) {
  using namespace nb::literals;
  nb::register_exception_translator(translate);
  m.attr("kernel_abi") = KVQ_KERNEL_ABI_VERSION;
  m.attr("accuracy_classes") = nb::tuple(nb::cast(accuracyClasses()));
  m.attr("default_accuracy") = kvq_accuracy_name(KVQ_ACCURACY_DEFAULT);
  m.def("version", [] { return std::string(kvq_version()); }, "Version of libkvq.");
  m.def("format_canonical", canonical, "format"_a, "Canonical text of a cache text or preset.");
  m.def("format_page_tokens", pageTokens, "format"_a, "Legal page sizes in tokens, ascending.");
  m.def("format_page_bytes", pageBytes, "format"_a, "dk"_a, "dv"_a, "page_tokens"_a = 0,
        "Bytes of one page of one KV head.");
  m.def("format_layouts", layouts, "format"_a, "dk"_a, "dv"_a, "page_tokens"_a = 0, "profile"_a = "vnni",
        "Where each code of a page lies: the texts of its sections of K and V codes (format-spec layout_c4).");
  m.def("format_frontier", frontier, "format"_a, "tokens"_a,
        "How many tokens have quantized K and quantized V when a sequence has `tokens` tokens.");
  bindScore(m);
  nb::class_<Context> context = bindContext(m);
  bindBuffers(m, context);
  bindCache(m);
  bindKernel(m);
}

} // namespace kvq::python
