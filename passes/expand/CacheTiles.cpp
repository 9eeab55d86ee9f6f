// SPDX-License-Identifier: Apache-2.0
//
// Tiles of pages and tails. Addresses follow docs/format-spec.md sections 4 and 6.

#include "passes/expand/CacheTiles.h"

using namespace mlir;
using namespace mlir::kvq;

Value KernelBuilder::item(unsigned argument, size_t bytes) {
  Value program = tile::ProgramIdOp::create(*this, getIndexType(), 0);
  return advance(arg(argument), mul(program, index(static_cast<int64_t>(bytes))), getI8Type());
}

Value KernelBuilder::pageOf(unsigned pool, unsigned blockStride, unsigned headStride, Value block, Value head) {
  Value bytes = add(mul(block, indexArg(blockStride)), mul(head, indexArg(headStride)));
  return advance(arg(pool), bytes, getI8Type());
}

Section::Section(KernelBuilder &builder, ::kvq::Side side, ::kvq::Profile profile) : b(builder) {
  const ::kvq::KernelRequest &request = b.request;
  bool isK = side == ::kvq::Side::K;
  ::kvq::PageMap map = ::kvq::pageMap(request.pair, request.pageTokens, request.dk, request.dv);
  format = isK ? request.pair.k : request.pair.v;
  dim = isK ? request.dk : request.dv;
  layout = ::kvq::makeSectionLayout(profile, side, format.bits, request.pageTokens, static_cast<int>(dim));
  codeBytes = isK ? map.kCodes : map.vCodes;
  scaleBytes = isK ? map.kScale : map.vScale;
  minBytes = isK ? map.kMin : map.vMin;
}

Value Section::codes(Value page, Value token, int64_t tokens, Value channel, int64_t channels) {
  RankedTensorType type = tile::getPackedType(b.getContext(), tokens, channels, format.bits, layout);
  return tile::CodesOp::create(b, type, codePtr(page), token, channel);
}

void Section::storeCodes(Value codes, Value page, Value token, Value channel, Value begin, Value end) {
  tile::StoreCodesOp::create(b, codes, codePtr(page), token, begin, end, channel, b.getI64IntegerAttr(format.bits),
                             tile::LayoutAttr::get(b.getContext(), layout.toText()));
}

int64_t Section::tokensOfWords() const {
  int tokens = 16;
  for (const ::kvq::Plane &plane : layout.planes) {
    size_t fields = llvm::Log2_32(32 / plane.bits);
    for (const auto &address : llvm::ArrayRef(plane.map.inner).take_front(fields))
      for (const ::kvq::IndexBit &index : address)
        if (index.dim == ::kvq::Dim::Token)
          tokens = std::max(tokens, 2 << index.bit);
  }
  return tokens;
}

// page_c3. A tile of tokens covers whole groups or lies in one.
Value Section::groupOffsets(Value token, int64_t tokens) {
  if (!format.perChannel())
    return b.add(b.mul(b.iota(dim / format.group, b.getIndexType()), b.index(b.request.pageTokens)), token);
  int64_t count = std::max<int64_t>(1, tokens / format.group);
  Value first = b.div(token, b.index(format.group));
  Value groups = count == 1 ? b.splat(first, {1}) : b.add(b.iota(count, b.getIndexType()), first);
  return b.mul(groups, b.index(dim));
}

Value Section::groups(Value page, int64_t section, Value token, int64_t tokens) {
  Value offsets = groupOffsets(token, tokens);
  int64_t count = cast<RankedTensorType>(offsets.getType()).getDimSize(0);
  Value ptr = b.advance(page, b.index(section), b.getF16Type());
  return b.toF32(b.load(ptr, offsets, {count, format.perChannel() ? dim : tokens}));
}

Value Section::dequantize(Value codes, Value scale, Value min) {
  ArrayRef<int64_t> shape = cast<RankedTensorType>(codes.getType()).getShape();
  return tile::DequantizeOp::create(b, b.tile(shape, b.getF32Type()), codes, scale, min,
                                    b.getStringAttr(format.perChannel() ? "channel" : "token"));
}

// The first row of the sequence and KV head.
static Value tailBase(TileBuilder &b, const Tail &tail) {
  return b.mul(b.add(b.mul(tail.slot, tail.heads), tail.head), tail.rows);
}

// tail_c1: the row of a token, as i32. A remainder of a negative number is not used.
static Value tailRow(TileBuilder &b, const Tail &tail, Value token, Value kept) {
  token = b.toI32(token);
  Value inRing = b.rem(token, b.toI32(tail.cap));
  return kept ? b.select(kept, b.add(b.toI32(tail.rows), token), inRing) : inRing;
}

Value mlir::kvq::tailOffset(TileBuilder &b, const Tail &tail, Value token) {
  Value row = b.toIndex(tailRow(b, tail, token, b.less(token, b.index(0))));
  return b.mul(b.add(tailBase(b, tail), row), b.index(tail.dim));
}

Value mlir::kvq::tailOffsets(TileBuilder &b, const Tail &tail, Value first, int64_t count, Value kept) {
  Value rows = b.add(b.iota(count, b.getI32Type()), tailRow(b, tail, first, kept)), cap = b.toI32(tail.cap);
  // A remainder per row would be a scalar division per row; the ring is at least as long as the tile. Kept rows end
  // where the tail does and never wrap.
  Value end = kept ? b.select(kept, b.toI32(tail.rows), cap) : cap;
  Value wrapped = b.toIndex(b.select(b.less(rows, end), rows, b.sub(rows, cap)));
  return b.mul(b.add(wrapped, tailBase(b, tail)), b.index(tail.dim));
}
