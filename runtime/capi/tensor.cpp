// SPDX-License-Identifier: Apache-2.0
//
// Checks of the tensors that callers hand in.
#include "runtime/capi/handles.h"

namespace kvq::capi {

static Status invalid(const char *name, const std::string &what) {
  return {Code::InvalidArgument, std::string(name) + " " + what};
}

static std::string shapeText(const int64_t *shape, size_t count) {
  std::string text = "[";
  for (size_t i = 0; i < count; ++i)
    text += (i ? ", " : "") + (shape[i] == kAnySize ? std::string("T") : std::to_string(shape[i]));
  return text + "]";
}

Result<ElementType> toElementType(const std::string &name, const kvq_dtype &dtype) {
  switch (enumValue(dtype)) {
  case KVQ_F32:
    return ElementType::F32;
  case KVQ_BF16:
    return ElementType::BF16;
  case KVQ_F16:
    return ElementType::F16;
  }
  return Status(Code::InvalidArgument, name + " has the unknown dtype " + std::to_string(enumValue(dtype)) +
                                           ": use KVQ_F32, KVQ_BF16 or KVQ_F16");
}

static Status checkPlace(const Device &on, const char *name, const kvq_tensor &tensor, ElementType type) {
  const int device = enumValue(tensor.device);
  if (device != KVQ_CPU && device != KVQ_CUDA)
    return invalid(name, "has the unknown device " + std::to_string(device) + ": use KVQ_CPU or KVQ_CUDA");
  if (device == KVQ_CUDA && !on.accelerator())
    return {Code::Unsupported, std::string(name) + " is a CUDA tensor, which kernels of this context's device do not "
                                                   "see: move it to the CPU"};
  if (device == KVQ_CPU && on.accelerator())
    return {Code::Unsupported, std::string(name) + " lies in the host's memory, which kernels of this context's device "
                                                   "do not see: copy it into a buffer of kvq_buffer_create"};
  auto given = toElementType(name, tensor.dtype);
  if (!given.isOk())
    return given.status();
  if (given.value() != type)
    return invalid(name, "is " + std::string(toText(given.value())) + " but must be " + std::string(toText(type)) +
                             ": convert it");
  return Status::ok();
}

static Status checkStrides(const char *name, const kvq_tensor &tensor, bool contiguousRows, Access access) {
  const int last = tensor.ndim - 1;
  if (contiguousRows && tensor.shape[last] > 1 && tensor.strides[last] != 1)
    return invalid(name, "has stride " + std::to_string(tensor.strides[last]) +
                             " in its last dimension but must have 1: make it contiguous");
  for (int i = 0; i < tensor.ndim; ++i)
    if (access == Access::Write && tensor.shape[i] > 1 && tensor.strides[i] == 0)
      return invalid(name, "is written to but has stride 0 in dimension " + std::to_string(i) +
                               ": pass a tensor that is not expanded");
  return Status::ok();
}

Status checkTensor(const Device &device, const char *name, const kvq_tensor *tensor, ElementType type,
                   std::initializer_list<int64_t> shape, bool contiguousRows, Access access) {
  if (!tensor)
    return nullArgument(name);
  KVQ_RETURN_IF_ERROR(checkPlace(device, name, *tensor, type));
  if (tensor->ndim != static_cast<int32_t>(shape.size()))
    return invalid(name, "has " + std::to_string(tensor->ndim) + " dimensions but must have " +
                             std::to_string(shape.size()) + ": " + shapeText(shape.begin(), shape.size()));
  const int64_t *expected = shape.begin();
  bool empty = false;
  for (int i = 0; i < tensor->ndim; ++i) {
    const bool fits = expected[i] == kAnySize ? tensor->shape[i] >= 0 : tensor->shape[i] == expected[i];
    if (!fits)
      return invalid(name, "has shape " + shapeText(tensor->shape, shape.size()) + " but must have " +
                               shapeText(expected, shape.size()));
    empty |= tensor->shape[i] == 0;
  }
  if (empty) // strides of an empty tensor mean nothing, and NumPy makes them 0
    return Status::ok();
  if (!tensor->data)
    return invalid(name, "has no data: its pointer is NULL");
  if (reinterpret_cast<uintptr_t>(tensor->data) % byteSize(type) != 0)
    return invalid(name, "is not aligned to its elements of " + std::to_string(byteSize(type)) + " bytes");
  return checkStrides(name, *tensor, contiguousRows, access);
}

Tensor toRows(const kvq_tensor &tensor) {
  const int heads = tensor.ndim == 4 ? 1 : 0; // without a batch, dimension 0 is the heads
  Tensor rows;
  rows.data = tensor.data;
  rows.type = toElementType("tensor", tensor.dtype).value(); // checkTensor has seen it
  rows.tokens = tensor.shape[heads + 1];
  rows.batchStride = heads ? tensor.strides[0] : 0;
  rows.headStride = tensor.strides[heads];
  rows.tokenStride = tensor.strides[heads + 1];
  return rows;
}

Status checkStream(const void *stream) {
  if (!stream)
    return Status::ok();
  return {Code::InvalidArgument, "stream must be NULL on a CPU"};
}

Result<Stream *> streamOn(const Device &device, void *stream) {
  if (Accelerator *accelerator = device.accelerator())
    return &streamOf(*accelerator, stream);
  if (Status status = checkStream(stream); !status.isOk())
    return status;
  return static_cast<Stream *>(nullptr);
}

} // namespace kvq::capi
