// SPDX-License-Identifier: Apache-2.0
//
// The append kernel: one new token, all KV heads, into the tail; counts bad values (format-spec quantize_c1). It
// stores bad values as well: the caller reads the count and aborts the step.

#include "passes/expand/CacheTiles.h"
#include "passes/expand/Kernels.h"
#include <kvq/kernel_abi.h>

using namespace mlir;
using namespace mlir::kvq;

namespace {

// |x| > 65504 as integers: also true of infinities and NaN.
constexpr int32_t kMagnitude = 0x7fffffff, kLargest = 0x477fe000;

Value countBad(TileBuilder &b, Value row) {
  Value magnitude = b.bitAnd(b.bitsOf(b.toF32(row)), b.i32(kMagnitude));
  return b.reduce(tile::ReduceKind::Add, b.toI32(b.less(b.i32(kLargest), magnitude)), 0);
}

} // namespace

void mlir::kvq::buildAppend(func::FuncOp kernel, const ::kvq::KernelRequest &request) {
  KernelBuilder b(kernel, request);
  Value item = b.item(KVQ_APPEND_ITEMS, sizeof(kvq_append_item));
  Value kOffset = b.member(item, offsetof(kvq_append_item, k_offset), 64);
  Value vOffset = b.member(item, offsetof(kvq_append_item, v_offset), 64);
  Value slot = b.member(item, offsetof(kvq_append_item, tail_slot));
  Value position = b.member(item, offsetof(kvq_append_item, position));
  Value heads = b.indexArg(KVQ_APPEND_HEADS), cap = b.indexArg(KVQ_APPEND_TAIL_CAP);
  Value rows = b.indexArg(KVQ_APPEND_TAIL_ROWS);

  auto copy = [&](Value head, unsigned source, Value offset, unsigned stride, unsigned tail, int64_t dim) {
    Value row = b.load(b.arg(source), b.add(offset, b.mul(head, b.indexArg(stride))), {dim});
    b.store(row, b.arg(tail), tailOffset(b, {b.arg(tail), slot, heads, head, cap, rows, dim}, position));
    return countBad(b, row);
  };
  auto perHead = [&](Value head, ValueRange bad) -> SmallVector<Value> {
    Value k = copy(head, KVQ_APPEND_K, kOffset, KVQ_APPEND_K_HEAD_STRIDE, KVQ_APPEND_TAIL_K, request.dk);
    Value v = copy(head, KVQ_APPEND_V, vOffset, KVQ_APPEND_V_HEAD_STRIDE, KVQ_APPEND_TAIL_V, request.dv);
    return {b.add(bad[0], b.add(k, v))};
  };
  Value bad = b.loop(b.index(0), heads, 1, b.i32(0), perHead)[0];
  b.store(bad, b.arg(KVQ_APPEND_STATUS), tile::ProgramIdOp::create(b, b.getIndexType(), 0));
}
