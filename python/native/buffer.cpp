// SPDX-License-Identifier: Apache-2.0
//
// kvq._native.Buffer and Stream: memory and streams of a context's device.
#include "python/native/native.h"

#include <nanobind/stl/optional.h>

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
      .def("fill", fill, "value"_a, "stream"_a = nb::none(), "Sets every byte, and waits.");
  context.def("buffer", makeBuffer, "bytes"_a, "Uninitialised memory of the device.")
      .def("stream", makeStream, "A stream of the device; kvq.Unsupported on a host.")
      .def("synchronize", synchronizeContext, "Waits for the context's own stream; raises what went wrong in it.");
}

} // namespace kvq::python
