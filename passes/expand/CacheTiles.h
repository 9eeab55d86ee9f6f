// SPDX-License-Identifier: Apache-2.0
//
// What the builders of kernels share: kernel arguments, tiles of a page's sections, rows of a tail.
#pragma once

#include "passes/TileBuilder.h"
#include "runtime/format/problem.h"

namespace mlir::kvq {

// A builder at the start of a kernel's body that also knows its request.
class KernelBuilder : public TileBuilder {
public:
  KernelBuilder(func::FuncOp kernel, const ::kvq::KernelRequest &request)
      : TileBuilder(kernel.getLoc(), OpBuilder::atBlockBegin(&kernel.getBody().front())), request(request),
        kernel(kernel), pages(::kvq::pageMap(request.pair, request.pageTokens, request.dk, request.dv)) {}

  Value arg(unsigned i) { return kernel.getArgument(i); }
  Value indexArg(unsigned i) { return toIndex(arg(i)); }
  // The item of this program: a pointer to a C struct of `bytes` bytes.
  Value item(unsigned argument, size_t bytes);
  // The page of a block and KV head, of a pool and strides that are arguments (page_c4).
  Value pageOf(unsigned pool, unsigned blockStride, unsigned headStride, Value block, Value head);
  // Element type of K, V, tail, q and out.
  Type dataType() { return mlir::kvq::tile::toType(getContext(), request.type); }

  const ::kvq::KernelRequest request;

protected:
  func::FuncOp kernel;
  const ::kvq::PageMap pages;
};

// The sections of K or V in a page.
class Section {
public:
  Section(KernelBuilder &builder, ::kvq::Side side, ::kvq::Profile profile);
  Section(KernelBuilder &builder, ::kvq::Side side) : Section(builder, side, builder.request.profile) {}

  // The codes of `tokens` tokens from `token` on, all channels or `channels` of them.
  Value codes(Value page, Value token, int64_t tokens) { return codes(page, token, tokens, b.index(0), dim); }
  Value codes(Value page, Value token, int64_t tokens, Value channel, int64_t channels);
  // Rows [begin, end) of integers into the section: those of tokens from `token` and channels from `channel` on.
  void storeCodes(Value codes, Value page, Value token, Value channel, Value begin, Value end);
  // Tokens whose codes share no word of 32 bits with others: 16 or a multiple.
  int64_t tokensOfWords() const;
  // Offsets into scales and minima for such a tile: one per row of [groups, channels] or [groups, tokens].
  Value groupOffsets(Value token, int64_t tokens);
  // Scales, minima of such a tile as f32, of the shape that kvq_tile.dequantize asks for.
  Value scales(Value page, Value token, int64_t tokens) { return groups(page, scaleBytes, token, tokens); }
  Value minima(Value page, Value token, int64_t tokens) { return groups(page, minBytes, token, tokens); }
  Value dequantize(Value codes, Value scale, Value min);
  Value scalePtr(Value page) { return b.advance(page, b.index(scaleBytes), b.getF16Type()); }
  Value minPtr(Value page) { return b.advance(page, b.index(minBytes), b.getF16Type()); }
  Value codePtr(Value page) { return b.advance(page, b.index(codeBytes), b.getI8Type()); }

  ::kvq::SideFormat format;
  ::kvq::SectionLayout layout;
  int64_t dim; // head size
  int64_t codeBytes, scaleBytes, minBytes;

private:
  Value groups(Value page, int64_t section, Value token, int64_t tokens);
  KernelBuilder &b;
};

// K or V in the tail of one sequence and KV head: a ring of `cap` rows, then rows of kept tokens, `rows` in all.
struct Tail {
  Value ptr, slot, heads, head, cap, rows; // index, except ptr
  int64_t dim;
};
// Offset of the row of one token, negative if it is kept.
Value tailOffset(TileBuilder &b, const Tail &tail, Value token);
// Offsets of the rows of tokens first .. first + count - 1. They are all in the ring, or all kept (`kept`, an i1; null:
// never); count is at most cap, so they wrap at most once.
Value tailOffsets(TileBuilder &b, const Tail &tail, Value first, int64_t count, Value kept = {});

} // namespace mlir::kvq
