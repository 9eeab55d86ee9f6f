// SPDX-License-Identifier: Apache-2.0
//
// The dequantize_k and dequantize_v kernels: tokens of one page as rows (format-spec dequantize_c1).

#include "passes/expand/CacheTiles.h"
#include "passes/expand/Kernels.h"
#include <kvq/kernel_abi.h>

using namespace mlir;
using namespace mlir::kvq;

static constexpr int64_t kTokens = 16; // of one step

void mlir::kvq::buildDequantize(func::FuncOp kernel, const ::kvq::KernelRequest &request) {
  KernelBuilder b(kernel, request);
  Section section(b, request.op == ::kvq::KernelOp::DequantizeK ? ::kvq::Side::K : ::kvq::Side::V);
  Value item = b.item(KVQ_DEQUANTIZE_ITEMS, sizeof(kvq_dequantize_item));
  Value outOffset = b.member(item, offsetof(kvq_dequantize_item, out_offset), 64);
  Value block = b.member(item, offsetof(kvq_dequantize_item, block));
  Value head = b.member(item, offsetof(kvq_dequantize_item, kv_head));
  Value first = b.member(item, offsetof(kvq_dequantize_item, first));
  Value end = b.add(first, b.member(item, offsetof(kvq_dequantize_item, count)));
  Value page = b.pageOf(KVQ_DEQUANTIZE_PAGES, KVQ_DEQUANTIZE_BLOCK_STRIDE, KVQ_DEQUANTIZE_HEAD_STRIDE, block, head);

  b.loop(b.alignDown(first, kTokens), end, kTokens, {}, [&](Value step, ValueRange) -> SmallVector<Value> {
    Value rows = b.add(b.iota(kTokens, b.getIndexType()), step);
    Value mask = b.bitAnd(b.lessEqual(first, rows), b.less(rows, end));
    Value x = section.dequantize(section.codes(page, step, kTokens), section.scales(page, step, kTokens),
                                 section.minima(page, step, kTokens));
    // Of a row before `first` the offset is meaningless and masked.
    Value offsets = b.add(b.mul(b.sub(rows, first), b.indexArg(KVQ_DEQUANTIZE_OUT_TOKEN_STRIDE)), outOffset);
    b.store(b.fromF32(x, b.dataType()), b.arg(KVQ_DEQUANTIZE_OUT), offsets, mask);
    return {};
  });
}
