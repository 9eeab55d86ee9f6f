// SPDX-License-Identifier: Apache-2.0
//
// The convert_k and convert_v kernels: what a page of one profile holds, into a page of another (format-spec
// layout_c9). Codes are unpacked and packed again, as dequantize reads and quantize writes them. Where scales and
// minima stand is the same in all profiles.

#include "passes/expand/CacheTiles.h"
#include "passes/expand/Kernels.h"
#include <kvq/kernel_abi.h>

using namespace mlir;
using namespace mlir::kvq;

// Bytes [begin, begin + bytes) of a page, a multiple of 32, as words: no half is read as a number.
static void copy(KernelBuilder &b, Value from, Value to, int64_t begin, int64_t bytes) {
  static constexpr int64_t kMostWords = 128; // four in each lane of a warp
  int64_t words = bytes / 4, step = std::min(words & -words, kMostWords);
  Value source = b.advance(from, b.index(begin), b.getI32Type());
  Value target = b.advance(to, b.index(begin), b.getI32Type());
  b.loop(b.index(0), b.index(words), step, {}, [&](Value first, ValueRange) -> SmallVector<Value> {
    b.store(b.load(source, first, {step}), target, first);
    return {};
  });
}

void mlir::kvq::buildConvert(func::FuncOp kernel, const ::kvq::KernelRequest &request) {
  KernelBuilder b(kernel, request);
  ::kvq::Side side = request.op == ::kvq::KernelOp::ConvertK ? ::kvq::Side::K : ::kvq::Side::V;
  Section from(b, side, *request.from), to(b, side);
  Value item = b.item(KVQ_CONVERT_ITEMS, sizeof(kvq_convert_item));
  Value sourceBlock = b.member(item, offsetof(kvq_convert_item, source_block));
  Value block = b.member(item, offsetof(kvq_convert_item, block));
  Value head = b.member(item, offsetof(kvq_convert_item, kv_head));
  Value source =
      b.pageOf(KVQ_CONVERT_SOURCE, KVQ_CONVERT_SOURCE_BLOCK_STRIDE, KVQ_CONVERT_SOURCE_HEAD_STRIDE, sourceBlock, head);
  Value page = b.pageOf(KVQ_CONVERT_PAGES, KVQ_CONVERT_BLOCK_STRIDE, KVQ_CONVERT_HEAD_STRIDE, block, head);

  // A tile shares no word with others in either profile, and fits the registers of a warp.
  int64_t tokens = std::max(from.tokensOfWords(), to.tokensOfWords()), channels = to.dim % 32 == 0 ? 32 : 16;
  Value zero = b.index(0);
  b.loop(zero, b.index(request.pageTokens), tokens, {}, [&](Value token, ValueRange) -> SmallVector<Value> {
    b.loop(zero, b.index(to.dim), channels, {}, [&](Value channel, ValueRange) -> SmallVector<Value> {
      Value codes = tile::UnpackOp::create(b, b.tile({tokens, channels}, b.getI32Type()),
                                           from.codes(source, token, tokens, channel, channels));
      to.storeCodes(codes, page, token, channel, zero, b.index(tokens));
      return {};
    });
    return {};
  });
  int64_t bytes = request.pageTokens * to.dim / to.format.group * 2;
  copy(b, source, page, to.scaleBytes, bytes);
  copy(b, source, page, to.minBytes, bytes);
}
