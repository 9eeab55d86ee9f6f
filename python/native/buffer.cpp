// SPDX-License-Identifier: Apache-2.0
//
// kvq._native.Buffer and Stream: memory and streams of a context's device.
#include "python/native/native.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <vector>

namespace kvq::python {

static Buffer makeBuffer(Context &context, size_t bytes) {
  Buffer buffer;
  buffer.state->context = context.state;
  check(kvq_buffer_create(context.state->handle, bytes, &buffer.state->handle));
  return buffer;
}

static Stream makeStream(Context &context) {
  Stream stream;
  stream.state->context = context.state;
  check(kvq_stream_create(context.state->handle, &stream.state->handle));
  return stream;
}

template <typename Array> static size_t bytesOf(const Array &array) {
  if (array.device_type() != nb::device::cpu::value || !isContiguous(array))
    throw Failure(KVQ_INVALID_ARGUMENT, "the array is not C-contiguous memory of the CPU: pass a contiguous copy");
  return array.nbytes();
}

static void upload(Buffer &buffer, const Input &array, size_t offset, const std::optional<Stream> &stream) {
  const size_t bytes = bytesOf(array);
  nb::gil_scoped_release release;
  check(kvq_buffer_upload(buffer.state->handle, offset, array.data(), bytes, handleOf(stream)));
}

static void download(Buffer &buffer, const Output &array, size_t offset, const std::optional<Stream> &stream) {
  const size_t bytes = bytesOf(array);
  nb::gil_scoped_release release;
  check(kvq_buffer_download(buffer.state->handle, offset, array.data(), bytes, handleOf(stream)));
}

static void fill(Buffer &buffer, uint8_t value, const std::optional<Stream> &stream) {
  nb::gil_scoped_release release;
  check(kvq_buffer_fill(buffer.state->handle, 0, value, kvq_buffer_bytes(buffer.state->handle), handleOf(stream)));
}

static nb::dlpack::dtype typeOf(kvq_dtype dtype) {
  const auto code = dtype == KVQ_BF16 ? nb::dlpack::dtype_code::Bfloat : nb::dlpack::dtype_code::Float;
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(dtype == KVQ_F32 ? 32 : 16), 1};
}

// A view of the buffer's bytes from one on, as a tensor of steps and Cache.read.
static nb::object array(const Buffer &buffer, const std::vector<size_t> &shape, const std::string &dtype,
                        size_t offset) {
  const nb::dlpack::dtype type = typeOf(parseDtype(dtype));
  const size_t size = type.bits / 8, bytes = kvq_buffer_bytes(buffer.state->handle);
  size_t needed = size;
  for (size_t extent : shape)
    if (__builtin_mul_overflow(needed, extent, &needed))
      needed = std::numeric_limits<size_t>::max();
  if (offset % size != 0 || offset > bytes || needed > bytes - offset)
    throw Failure(KVQ_INVALID_ARGUMENT, "an array of " + std::to_string(needed) + " bytes from byte " +
                                            std::to_string(offset) + " on does not lie in the buffer of " +
                                            std::to_string(bytes) +
                                            ": give a smaller shape, or an offset that is a "
                                            "multiple of " +
                                            std::to_string(size));
  auto *state = new std::shared_ptr<BufferState>(buffer.state);
  nb::capsule owner(state, [](void *p) noexcept { delete static_cast<std::shared_ptr<BufferState> *>(p); });
  void *data = reinterpret_cast<void *>(kvq_buffer_address(buffer.state->handle) + offset);
  return nb::cast(nb::ndarray<nb::array_api>(data, shape.size(), shape.data(), owner, nullptr, type,
                                             deviceTypeOf(buffer.state->context->handle)));
}

static void synchronizeContext(Context &context) {
  nb::gil_scoped_release release;
  check(kvq_stream_synchronize(context.state->handle, nullptr));
}

static void synchronizeStream(Stream &stream) {
  nb::gil_scoped_release release;
  check(kvq_stream_synchronize(stream.state->context->handle, stream.state->handle));
}

void bindBuffers(nb::module_ &m, nb::class_<Context> &context) {
  using namespace nb::literals;
  nb::class_<Stream>(m, "Stream", "Work that is done in order, beside that of other streams.")
      .def("synchronize", synchronizeStream, "Waits for the stream's work; raises what went wrong in it.");
  nb::class_<Buffer>(m, "Buffer", "Memory of a context's device; the host's where the device has none of its own.")
      .def_prop_ro(
          "address", [](const Buffer &self) { return kvq_buffer_address(self.state->handle); }, "As kernels take it.")
      .def_prop_ro("nbytes", [](const Buffer &self) { return kvq_buffer_bytes(self.state->handle); })
      .def("upload", upload, "array"_a.noconvert(), "offset"_a = 0, "stream"_a = nb::none(),
           "Copies a C-contiguous array into the buffer, from a byte on, and waits.")
      .def("download", download, "array"_a.noconvert(), "offset"_a = 0, "stream"_a = nb::none(),
           "Copies the buffer's bytes from one on into a C-contiguous array, and waits.")
      .def("array", array, "shape"_a, "dtype"_a = "float32", "offset"_a = 0,
           "A view of the buffer from a byte on, as steps and Cache.read take tensors on this device; DLPack calls it "
           "memory of the CPU on a host, else of CUDA.")
      .def("fill", fill, "value"_a, "stream"_a = nb::none(), "Sets every byte, and waits.");
  context.def("buffer", makeBuffer, "bytes"_a, "Uninitialised memory of the device.")
      .def("stream", makeStream, "A stream of the device; kvq.Unsupported on a host.")
      .def("synchronize", synchronizeContext, "Waits for the context's own stream; raises what went wrong in it.");
}

} // namespace kvq::python
