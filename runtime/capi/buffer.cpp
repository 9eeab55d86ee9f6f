// SPDX-License-Identifier: Apache-2.0
//
// kvq_buffer_* and kvq_stream_*: memory and streams of a device, or the host's memory where it has none.
#include "runtime/capi/handles.h"

#include <cstdlib>

using namespace kvq;
using namespace kvq::capi;

namespace kvq::capi {

Stream &streamOf(Accelerator &accelerator, void *stream) {
  return stream ? **static_cast<StreamRef *>(stream) : accelerator.defaultStream();
}

} // namespace kvq::capi

namespace {

constexpr size_t kAlign = 64;

Status checkRange(const kvq_buffer &buffer, size_t offset, size_t bytes) {
  if (offset <= buffer.bytes && bytes <= buffer.bytes - offset)
    return Status::ok();
  return {Code::InvalidArgument, "bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
                                     " are outside of the buffer, which has " + std::to_string(buffer.bytes)};
}

Result<uint64_t> allocate(const Device &device, size_t bytes) {
  if (Accelerator *accelerator = device.accelerator())
    return accelerator->allocate(static_cast<int64_t>(bytes), "buffer of " + std::to_string(bytes) + " bytes");
  void *memory = std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign);
  if (!memory)
    return Status(Code::ResourceExhausted, "the host has no " + std::to_string(bytes) + " bytes: free some");
  return reinterpret_cast<uint64_t>(memory);
}

// A call about bytes of a buffer: `work` does it on a stream, `onHost` on the host's memory at the address.
template <typename Work, typename OnHost>
Status onBytes(kvq_buffer *buffer, size_t offset, size_t bytes, void *stream, const Work &work, const OnHost &onHost) {
  KVQ_REQUIRE(buffer);
  KVQ_RETURN_IF_ERROR(checkRange(*buffer, offset, bytes));
  if (Accelerator *accelerator = buffer->device->accelerator()) {
    Stream &on = streamOf(*accelerator, stream);
    if (bytes)
      KVQ_RETURN_IF_ERROR(work(on, buffer->address + offset));
    return on.synchronize();
  }
  KVQ_RETURN_IF_ERROR(checkStream(stream));
  if (bytes)
    onHost(reinterpret_cast<unsigned char *>(buffer->address + offset));
  return Status::ok();
}

} // namespace

extern "C" {

kvq_error *kvq_buffer_create(kvq_context *context, size_t bytes, kvq_buffer **buffer) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(buffer);
    if (bytes == 0 || bytes > static_cast<size_t>(INT64_MAX) - kAlign)
      return {Code::InvalidArgument, "bytes is " + std::to_string(bytes) + " but must be at least 1"};
    auto made = std::make_unique<kvq_buffer>(kvq_buffer{context->device, 0, bytes});
    auto address = allocate(*context->device, bytes);
    if (!address.isOk())
      return address.status();
    made->address = address.value();
    *buffer = made.release();
    return Status::ok();
  });
}

void kvq_buffer_destroy(kvq_buffer *buffer) {
  if (!buffer)
    return;
  kvq_error_free(guarded([&]() -> Status {
    if (Accelerator *accelerator = buffer->device->accelerator())
      return accelerator->release(buffer->address);
    std::free(reinterpret_cast<void *>(buffer->address));
    return Status::ok();
  }));
  delete buffer;
}

uint64_t kvq_buffer_address(const kvq_buffer *buffer) { return buffer ? buffer->address : 0; }

size_t kvq_buffer_bytes(const kvq_buffer *buffer) { return buffer ? buffer->bytes : 0; }

kvq_error *kvq_buffer_upload(kvq_buffer *buffer, size_t offset, const void *data, size_t bytes, void *stream) {
  return guarded([&]() -> Status {
    if (bytes)
      KVQ_REQUIRE(data);
    return onBytes(
        buffer, offset, bytes, stream,
        [&](Stream &on, uint64_t to) { return on.upload(to, data, static_cast<int64_t>(bytes)); },
        [&](unsigned char *to) { std::memcpy(to, data, bytes); });
  });
}

kvq_error *kvq_buffer_download(kvq_buffer *buffer, size_t offset, void *data, size_t bytes, void *stream) {
  return guarded([&]() -> Status {
    if (bytes)
      KVQ_REQUIRE(data);
    return onBytes(
        buffer, offset, bytes, stream,
        [&](Stream &on, uint64_t from) { return on.download(data, from, static_cast<int64_t>(bytes)); },
        [&](const unsigned char *from) { std::memcpy(data, from, bytes); });
  });
}

kvq_error *kvq_buffer_fill(kvq_buffer *buffer, size_t offset, uint8_t value, size_t bytes, void *stream) {
  return guarded([&]() -> Status {
    return onBytes(
        buffer, offset, bytes, stream,
        [&](Stream &on, uint64_t to) { return on.fill(to, static_cast<int64_t>(bytes), value); },
        [&](unsigned char *to) { std::memset(to, value, bytes); });
  });
}

kvq_error *kvq_stream_create(kvq_context *context, void **stream) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    KVQ_REQUIRE(stream);
    Accelerator *accelerator = context->device->accelerator();
    if (!accelerator)
      return {Code::Unsupported, "this context's device has no streams: pass NULL for the stream"};
    auto made = accelerator->createStream();
    if (!made.isOk())
      return made.status();
    *stream = new StreamRef(std::move(made.value()));
    return Status::ok();
  });
}

void kvq_stream_destroy(kvq_context *, void *stream) { delete static_cast<StreamRef *>(stream); }

kvq_error *kvq_stream_synchronize(kvq_context *context, void *stream) {
  return guarded([&]() -> Status {
    KVQ_REQUIRE(context);
    if (Accelerator *accelerator = context->device->accelerator())
      return streamOf(*accelerator, stream).synchronize();
    return checkStream(stream);
  });
}

} // extern "C"
