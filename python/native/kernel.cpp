// SPDX-License-Identifier: Apache-2.0
//
// kvq._native.Kernel: one compiled kernel, launched with Python numbers and arrays. Arrays are passed as they are; they
// must have the signature's element type, be C-contiguous and writable. Bounds are the caller's business.
#include "python/native/native.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
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

static Kernel compile(Context &context, const std::string &text, const std::optional<std::string> &entry) {
  kvq_kernel *kernel = nullptr;
  nb::gil_scoped_release release;
  std::scoped_lock lock(context.state->mutex);
  check(entry ? kvq_kernel_compile_entry(context.state->handle, text.c_str(), entry->c_str(), &kernel)
              : kvq_kernel_compile(context.state->handle, text.c_str(), &kernel));
  return Kernel(context.state, kernel);
}

static Kernel open(Context &context, const std::string &request, const std::optional<ScoreFunction> &score,
                   const std::optional<std::string> &schedule) {
  kvq_kernel *kernel = nullptr;
  const kvq_score_function view = score ? score->view() : kvq_score_function{};
  nb::gil_scoped_release release;
  std::scoped_lock lock(context.state->mutex);
  if (schedule)
    check(kvq_kernel_open_scheduled(context.state->handle, request.c_str(), score ? &view : nullptr, schedule->c_str(),
                                    &kernel));
  else
    check(score ? kvq_kernel_open_scored(context.state->handle, request.c_str(), &view, &kernel)
                : kvq_kernel_open(context.state->handle, request.c_str(), &kernel));
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

static uint64_t pointerArgument(nb::handle value, size_t index, const std::string &type) {
  if (value.is_none())
    return 0;
  if (Buffer buffer; nb::try_cast(value, buffer, false))
    return kvq_buffer_address(buffer.state->handle);
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

// An argument of which only the size is known: a buffer, None, or a number, a float as f32 or f64 by the size.
static uint64_t bitsArgument(nb::handle value, size_t index, const std::string &type) {
  const int bits = std::stoi(type.substr(1));
  if (bits == 64) {
    if (value.is_none())
      return 0;
    if (Buffer buffer; nb::try_cast(value, buffer, false))
      return kvq_buffer_address(buffer.state->handle);
  }
  if (PyFloat_Check(value.ptr()) && (bits == 32 || bits == 64)) {
    const double number = PyFloat_AS_DOUBLE(value.ptr());
    const float single = static_cast<float>(number);
    uint64_t word = 0;
    bits == 64 ? std::memcpy(&word, &number, sizeof number) : std::memcpy(&word, &single, sizeof single);
    return word;
  }
  int64_t number;
  uint64_t word;
  if (nb::try_cast(value, number, false))
    word = static_cast<uint64_t>(number);
  else if (!nb::try_cast(value, word, false))
    throw mismatch(index, type, "neither a number nor a buffer of the device");
  const int64_t high = bits >= 64 ? 0 : static_cast<int64_t>(word) >> (bits - 1);
  if (bits < 64 && high != 0 && high != -1 && word >> bits != 0)
    throw mismatch(index, type, "a number with more bits");
  return word;
}

static uint64_t argument(nb::handle value, size_t index, const std::string &type) {
  if (type.rfind("ptr", 0) == 0)
    return pointerArgument(value, index, type);
  if (type[0] == 'b')
    return bitsArgument(value, index, type);
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

static void launch(Kernel &kernel, nb::sequence args, std::array<int64_t, 3> grid,
                   const std::optional<std::array<uint32_t, 3>> &block, int64_t shared,
                   const std::optional<Stream> &stream) {
  nb::tuple values(args);
  if (values.size() != kernel.signature.size())
    throw Failure(KVQ_INVALID_ARGUMENT, "the kernel takes " + std::to_string(kernel.signature.size()) +
                                            " arguments and was given " + std::to_string(values.size()));
  std::vector<uint64_t> words;
  for (size_t i = 0; i < kernel.signature.size(); ++i)
    words.push_back(argument(values[i], i, kernel.signature[i]));
  const auto count = static_cast<int32_t>(words.size());
  kvq_launch launch = {sizeof launch, words.data(), count, {}, {}, shared, handleOf(stream)};
  for (int i = 0; i < 3; ++i) {
    launch.grid[i] = static_cast<uint32_t>(std::min<int64_t>(std::max<int64_t>(grid[i], 0), UINT32_MAX));
    launch.block[i] = block ? (*block)[i] : 0;
  }
  nb::gil_scoped_release release;
  if (block || shared)
    check(kvq_kernel_launch_blocks(kernel.handle, &launch));
  else
    check(kvq_kernel_launch(kernel.handle, words.data(), count, grid.data(), launch.stream));
}

static int64_t residentWarps(const Kernel &kernel) {
  int64_t warps = 0;
  check(kvq_kernel_resident_warps(kernel.handle, &warps));
  return warps;
}

static std::string signatureText(const Kernel &kernel) { return kvq_kernel_signature(kernel.handle); }

void bindKernel(nb::module_ &m) {
  using namespace nb::literals;
  m.def("compile", compile, "context"_a, "text"_a, "entry"_a = nb::none(),
        "Compiles the one kernel of an IR module, or the one named `entry`; on a GPU the text may be PTX.");
  m.def(
      "open_kernel", open, "context"_a, "request"_a, "score"_a = nb::none(), "schedule"_a = nb::none(),
      "A built-in kernel by its canonical request text; an attend kernel may have a score function. With a schedule it "
      "has exactly that one, whichever was chosen for the request.");
  nb::class_<Kernel>(m, "Kernel", "A compiled kernel.")
      .def_prop_ro("signature", signatureText, "Its arguments, one word each.")
      .def_prop_ro(
          "schedule", [](const Kernel &kernel) { return std::string(kvq_kernel_schedule(kernel.handle)); },
          "The schedule that it was compiled with; empty for the default one.")
      .def_prop_ro("resident_warps", residentWarps,
                   "How many warps of it run at once on a GPU, in blocks of its own size; kvq.Unsupported on a host.")
      .def("launch", launch, "args"_a, nb::kw_only(), "grid"_a, "block"_a = nb::none(), "shared"_a = 0,
           "stream"_a = nb::none(),
           "Runs grid[0] * grid[1] * grid[2] programs, or on a device as many blocks of `block` threads with `shared` "
           "bytes of dynamic shared memory, some time later. An argument is a number, a Buffer, on a host a "
           "C-contiguous writable array, or None (a null pointer).");
}

} // namespace kvq::python
