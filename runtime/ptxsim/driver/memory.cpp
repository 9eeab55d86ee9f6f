// SPDX-License-Identifier: Apache-2.0
//
// Memory, copies and fills. A call without "Async" on the default stream; copies from and to host memory that is not
// pinned go the way that the driver's documentation describes: what is read was taken when the call returns, and what
// is written is there.
#include "runtime/ptxsim/driver/state.h"

#include <cstring>

using namespace kvq;
using namespace kvq::ptxsim;
using namespace kvq::ptxsim::lookalike;

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!pointer || bytes == 0)
      return CUDA_ERROR_INVALID_VALUE;
    if (bytes > static_cast<size_t>(INT64_MAX))
      return CUDA_ERROR_OUT_OF_MEMORY;
    auto address =
        context->gpu.allocate(static_cast<int64_t>(bytes), "cuMemAlloc of " + std::to_string(bytes) + " bytes");
    if (!address.isOk())
      return codeOf(address.status());
    *pointer = address.value();
    return CUDA_SUCCESS;
  });
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!pointer)
      return CUDA_SUCCESS;
    const Status status = context->gpu.release(pointer);
    if (CUresult error = codeOf(context->gpu.failure()))
      return error;
    return codeOf(status);
  });
}

CUresult cuMemAllocHost_v2(void **pointer, size_t bytes) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!pointer || bytes == 0)
      return CUDA_ERROR_INVALID_VALUE;
    std::unique_ptr<char[]> memory(new char[bytes]());
    const char *address = memory.get();
    *pointer = memory.get();
    context->pinned.emplace(address, std::move(memory));
    context->pinnedBytes[address] = bytes;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemFreeHost(void *pointer) {
  return inContext([&](CUcontext context) -> CUresult {
    const auto *address = static_cast<const char *>(pointer);
    if (!context->pinned.count(address))
      return CUDA_ERROR_INVALID_VALUE;
    (void)context->gpu.synchronizeAll();
    context->pinnedBytes.erase(address);
    context->pinned.erase(address);
    return codeOf(context->gpu.failure());
  });
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
  return inContext([&](CUcontext context) -> CUresult {
    if (!free || !total)
      return CUDA_ERROR_INVALID_VALUE;
    *free = static_cast<size_t>(context->gpu.freeBytes());
    *total = static_cast<size_t>(context->gpu.settings().memoryBytes);
    return CUDA_SUCCESS;
  });
}

namespace {

bool pinned(CUcontext context, const void *pointer, size_t bytes) {
  const auto *address = static_cast<const char *>(pointer);
  auto after = context->pinnedBytes.upper_bound(address);
  if (after == context->pinnedBytes.begin())
    return false;
  --after;
  return address - after->first + bytes <= after->second;
}

enum class Wait { No, Yes };

// Checks a call, hands in its work and waits where the call does. `work` gets the GPU and the stream.
template <typename Work> CUresult transfer(CUstream handle, Wait wait, const Work &work) {
  return inContext([&](CUcontext context) -> CUresult {
    StreamId stream = 0;
    if (!findStream(context, handle, stream))
      return CUDA_ERROR_INVALID_HANDLE;
    bool mustWait = wait == Wait::Yes;
    if (Status status = work(context, stream, mustWait); !status.isOk())
      return codeOf(status);
    return mustWait ? result(context, context->gpu.synchronize(stream)) : CUDA_SUCCESS;
  });
}

CUresult copyIn(CUdeviceptr to, const void *from, size_t bytes, CUstream stream, Wait wait) {
  return transfer(stream, wait, [&](CUcontext context, StreamId id, bool &mustWait) -> Status {
    if (bytes == 0)
      return Status::ok();
    if (!from)
      return {Code::InvalidArgument, "no source"};
    KVQ_RETURN_IF_ERROR(context->gpu.checkRange(to, static_cast<int64_t>(bytes)));
    if (mustWait || pinned(context, from, bytes))
      return context->gpu.copyIn(id, to, from, static_cast<int64_t>(bytes));
    const auto *data = static_cast<const uint8_t *>(from);
    return context->gpu.copyIn(id, to, std::vector<uint8_t>(data, data + bytes));
  });
}

CUresult copyOut(void *to, CUdeviceptr from, size_t bytes, CUstream stream, Wait wait) {
  return transfer(stream, wait, [&](CUcontext context, StreamId id, bool &mustWait) -> Status {
    if (bytes == 0)
      return Status::ok();
    if (!to)
      return {Code::InvalidArgument, "no destination"};
    mustWait |= !pinned(context, to, bytes);
    return context->gpu.copyOut(id, to, from, static_cast<int64_t>(bytes));
  });
}

CUresult copy(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return transfer(stream, Wait::No, [&](CUcontext context, StreamId id, bool &) {
    return bytes ? context->gpu.copy(id, to, from, static_cast<int64_t>(bytes)) : Status::ok();
  });
}

CUresult fill(CUdeviceptr to, const void *value, size_t size, size_t count, CUstream stream) {
  if (to % size != 0 || count > SIZE_MAX / 8)
    return CUDA_ERROR_INVALID_VALUE;
  return transfer(stream, Wait::No, [&](CUcontext context, StreamId id, bool &) {
    return count ? context->gpu.fill(id, to, static_cast<int64_t>(count * size),
                                     {static_cast<const uint8_t *>(value), size})
                 : Status::ok();
  });
}

constexpr size_t kMaxPitch = 0x7fffffff;

// Bytes from the begin of the first row to the end of the last; 0: the driver takes no such rows.
size_t extent(size_t pitch, size_t width, size_t height) {
  return pitch < width || pitch > kMaxPitch || height > kMaxPitch ? 0 : (height - 1) * pitch + width;
}

// Device to device alone.
CUresult copyRows(const CUDA_MEMCPY2D &rows, CUstream stream) {
  if (rows.WidthInBytes == 0 || rows.Height == 0)
    return CUDA_SUCCESS;
  if (rows.srcMemoryType != CU_MEMORYTYPE_DEVICE || rows.dstMemoryType != CU_MEMORYTYPE_DEVICE)
    return CUDA_ERROR_NOT_SUPPORTED;
  const CUdeviceptr from = rows.srcDevice + rows.srcY * rows.srcPitch + rows.srcXInBytes,
                    to = rows.dstDevice + rows.dstY * rows.dstPitch + rows.dstXInBytes;
  const size_t read = extent(rows.srcPitch, rows.WidthInBytes, rows.Height),
               written = extent(rows.dstPitch, rows.WidthInBytes, rows.Height);
  if (!read || !written)
    return CUDA_ERROR_INVALID_VALUE;
  return transfer(stream, Wait::No, [&](CUcontext context, StreamId id, bool &) -> Status {
    KVQ_RETURN_IF_ERROR(context->gpu.checkRange(from, static_cast<int64_t>(read)));
    KVQ_RETURN_IF_ERROR(context->gpu.checkRange(to, static_cast<int64_t>(written)));
    for (size_t row = 0; row < rows.Height; ++row)
      KVQ_RETURN_IF_ERROR(context->gpu.copy(id, to + row * rows.dstPitch, from + row * rows.srcPitch,
                                            static_cast<int64_t>(rows.WidthInBytes)));
    return Status::ok();
  });
}

CUresult fillRows(CUdeviceptr to, size_t pitch, uint8_t value, size_t width, size_t height, CUstream stream) {
  if (width == 0 || height == 0)
    return CUDA_SUCCESS;
  const size_t written = extent(pitch, width, height);
  if (!written)
    return CUDA_ERROR_INVALID_VALUE;
  return transfer(stream, Wait::No, [&](CUcontext context, StreamId id, bool &) -> Status {
    KVQ_RETURN_IF_ERROR(context->gpu.checkRange(to, static_cast<int64_t>(written)));
    for (size_t row = 0; row < height; ++row)
      KVQ_RETURN_IF_ERROR(context->gpu.fill(id, to + row * pitch, static_cast<int64_t>(width), {&value, 1}));
    return Status::ok();
  });
}

} // namespace

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream) {
  return copy ? copyRows(*copy, stream) : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width, size_t height,
                           CUstream stream) {
  return fillRows(to, pitch, value, width, height, stream);
}
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  return copyIn(to, from, bytes, nullptr, Wait::Yes);
}
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  return copyOut(to, from, bytes, nullptr, Wait::Yes);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) { return copy(to, from, bytes, nullptr); }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  return copyIn(to, from, bytes, stream, Wait::No);
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copyOut(to, from, bytes, stream, Wait::No);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy(to, from, bytes, stream);
}
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  return fill(to, &value, 1, count, nullptr);
}
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) { return fill(to, &value, 4, count, nullptr); }
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return fill(to, &value, 1, count, stream);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  return fill(to, &value, 4, count, stream);
}
