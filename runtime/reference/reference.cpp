// SPDX-License-Identifier: Apache-2.0
#include "runtime/reference/reference.h"

#include "runtime/reference/page.h"

namespace kvq {

int32_t runReference(const KernelRequest &request, const uint64_t *args, const int64_t *programId) {
  switch (request.op) {
  case KernelOp::Append:
    return reference::append(request, args, programId);
  case KernelOp::QuantizeK:
    return reference::quantize(request, Side::K, args, programId);
  case KernelOp::QuantizeV:
    return reference::quantize(request, Side::V, args, programId);
  case KernelOp::Attend:
    return reference::attend(request, args, programId);
  case KernelOp::Merge:
    return reference::merge(request, args, programId);
  case KernelOp::DequantizeK:
    return reference::dequantize(request, Side::K, args, programId);
  case KernelOp::DequantizeV:
    return reference::dequantize(request, Side::V, args, programId);
  case KernelOp::ConvertK:
    return reference::convert(request, Side::K, args, programId);
  case KernelOp::ConvertV:
    return reference::convert(request, Side::V, args, programId);
  }
  return 0;
}

} // namespace kvq
