// SPDX-License-Identifier: Apache-2.0
//
// kvq._native.Kernel: one compiled kernel, launched with Python numbers and arrays. Arrays are passed as they are; they
// must have the signature's element type, be C-contiguous and writable. Bounds are the caller's business.
#include "python/native/native.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cstring>
#include <limits>
#include <sstream>
#include <vector>

namespace kvq::python {

class Kernel {
public:
  Kernel(std::shared_ptr<ContextState> context, kvq_kernel *handle) : context(std::move(context)), handle(handle) {
    std::istringstream words(kvq_kernel_signature(handle));
    for (std::string word; words >> word;)
      signature.push_back(word);
  }
  Kernel(Kernel &&other) noexcept
      : context(std::move(other.context)), handle(std::exchange(other.handle, nullptr)),
        signature(std::move(other.signature)) {}
  ~Kernel() {
    if (handle)
      kvq_kernel_destroy(handle);
  }
  std::shared_ptr<ContextState> context; // destroyed after the kernel
  kvq_kernel *handle;
  std::vector<std::string> signature;
};

template <kvq_error *(*make)(kvq_context *, const char *, kvq_kernel **)>
static Kernel create(Context &context, const std::string &text) {
  kvq_kernel *kernel = nullptr;
  nb::gil_scoped_release release;
  std::scoped_lock lock(context.state->mutex);
  check(make(context.state->handle, text.c_str(), &kernel));
  return Kernel(context.state, kernel);
}

// "f32" of an array's element type; "" for one that no kernel takes.
static std::string elementName(nb::dlpack::dtype type) {
  using Code = nb::dlpack::dtype_code;
  const std::string bits = std::to_string(type.bits);
  switch (static_cast<Code>(type.code)) {
  case Code::Float:
    return "f" + bits;
  case Code::Bfloat:
    return "bf" + bits;
  case Code::Int:
  case Code::UInt:
    return "i" + bits; // MLIR's integers have no sign
  default:
    return "";
  }
}

static Failure mismatch(size_t index, const std::string &wanted, const std::string &given) {
  return Failure(KVQ_INVALID_ARGUMENT, "argument " + std::to_string(index) + " is " + given +
                                           ", but the kernel's signature has " + wanted + " there");
}

static bool isContiguous(const Input &array) {
  int64_t expected = 1;
  bool contiguous = true;
  for (size_t i = array.ndim(); i-- > 0;) {
    contiguous &= array.shape(i) == 1 || array.stride(i) == expected;
    expected *= static_cast<int64_t>(array.shape(i));
  }
  return contiguous || expected == 0; // an empty array has no element to misplace
}

static uint64_t pointerArgument(nb::handle value, size_t index, const std::string &type) {
  if (value.is_none())
    return 0;
  Input array;
  if (!nb::try_cast(value, array, false))
    throw mismatch(index, type, "no array on the CPU");
  if (array.device_type() != nb::device::cpu::value)
    throw Failure(KVQ_UNSUPPORTED,
                  "argument " + std::to_string(index) + " is not in the CPU's memory: copy it there first");
  const std::string given = elementName(array.dtype());
  if (type != "ptr" && type != "ptr<" + given + ">")
    throw mismatch(index, type, "an array of " + given);
  if (!isContiguous(array))
    throw Failure(KVQ_INVALID_ARGUMENT,
                  "argument " + std::to_string(index) +
                      " is not C-contiguous, and a kernel gets no strides: pass a contiguous copy");
  Output writable; // a signature does not tell inputs from outputs
  if (!nb::try_cast(value, writable, false))
    throw Failure(KVQ_INVALID_ARGUMENT, "argument " + std::to_string(index) +
                                            " is read-only, but a kernel may write through any pointer: pass a "
                                            "writable copy");
  return reinterpret_cast<uint64_t>(array.data());
}

static uint64_t argument(nb::handle value, size_t index, const std::string &type) {
  if (type.rfind("ptr", 0) == 0)
    return pointerArgument(value, index, type);
  if (type == "f32") {
    double number;
    if (!nb::try_cast(value, number, true))
      throw mismatch(index, type, "no number");
    const float f = static_cast<float>(number);
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    return bits;
  }
  int64_t number;
  if (!nb::try_cast(value, number, false))
    throw mismatch(index, type, "no whole number of 64 bits");
  if (type == "i32" && (number < std::numeric_limits<int32_t>::min() || number > std::numeric_limits<int32_t>::max()))
    throw mismatch(index, type, std::to_string(number));
  return static_cast<uint64_t>(number);
}

static void launch(Kernel &kernel, nb::sequence args, std::array<int64_t, 3> grid) {
  nb::tuple values(args);
  if (values.size() != kernel.signature.size())
    throw Failure(KVQ_INVALID_ARGUMENT, "the kernel takes " + std::to_string(kernel.signature.size()) +
                                            " arguments and was given " + std::to_string(values.size()));
  std::vector<uint64_t> words;
  for (size_t i = 0; i < kernel.signature.size(); ++i)
    words.push_back(argument(values[i], i, kernel.signature[i]));
  nb::gil_scoped_release release;
  check(kvq_kernel_launch(kernel.handle, words.data(), static_cast<int32_t>(words.size()), grid.data(), nullptr));
}

static std::string signatureText(const Kernel &kernel) { return kvq_kernel_signature(kernel.handle); }

void bindKernel(nb::module_ &m) {
  using namespace nb::literals;
  m.def("compile", create<kvq_kernel_compile>, "context"_a, "text"_a, "Compiles the one kernel of an IR module.");
  m.def("open_kernel", create<kvq_kernel_open>, "context"_a, "request"_a,
        "A built-in kernel by its canonical request text.");
  nb::class_<Kernel>(m, "Kernel", "A compiled kernel.")
      .def_prop_ro("signature", signatureText, "Its arguments, one word each.")
      .def("launch", launch, "args"_a, nb::kw_only(), "grid"_a,
           "Runs grid[0] * grid[1] * grid[2] programs. An argument is a number, a C-contiguous writable array or None "
           "(a null pointer).");
}

} // namespace kvq::python
