// SPDX-License-Identifier: Apache-2.0
//
// Packed codes: addresses derived from a layout, unpacking to a buffer, packing into a page.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

// The part of a code's address that one index determines; the address is the sum over both dimensions.
Value TileEmitter::codeAddress(const ::kvq::Layout &layout, ::kvq::Dim dim, Value index) {
  Value result = constant(0);
  auto shifted = [&](Value v, int64_t right) {
    return right == 0 ? v : b.createOrFold<arith::ShRUIOp>(v, constant(right));
  };
  // Runs of address bits that take consecutive index bits.
  int64_t bits = layout.inner.size();
  for (int64_t at = 0; at < bits;) {
    const auto &first = layout.inner[at][0];
    int64_t length = 1;
    while (at + length < bits && layout.inner[at + length][0].dim == first.dim &&
           layout.inner[at + length][0].bit == first.bit + length)
      ++length;
    if (first.dim == dim) {
      Value field = b.createOrFold<arith::AndIOp>(shifted(index, first.bit), constant((int64_t(1) << length) - 1));
      result = add(result, mul(field, int64_t(1) << at));
    }
    at += length;
  }
  Value rest = shifted(index, layout.innerBits(dim));
  int64_t stride = int64_t(1) << bits;
  for (size_t i = 0; i < layout.loops.size(); ++i) {
    const auto &outer = layout.loops[i];
    if (outer.dim == dim && outer.count > 1) {
      bool last = llvm::none_of(ArrayRef(layout.loops).drop_front(i + 1),
                                [&](const ::kvq::OuterLoop &later) { return later.dim == dim && later.count > 1; });
      Value digit = last ? rest : b.createOrFold<arith::RemUIOp>(rest, constant(outer.count));
      result = add(result, mul(digit, stride));
      rest = div(rest, outer.count);
    }
    stride *= outer.count;
  }
  return result;
}

// Every code of the rectangle, one by one, for any layout of single index bits.
FailureOr<TileEmitter::Buffer> TileEmitter::unpackToBuffer(Operation *op, const Packed &tile, bool asFloat) {
  for (const auto &xors : tile.layout.inner)
    if (xors.size() != 1)
      return op->emitOpError("has no lowering for a layout that combines index bits");
  Buffer buffer = allocate({tile.tokens, tile.channels}, asFloat ? Type(b.getF32Type()) : Type(b.getI32Type()));
  loop(0, tile.tokens, 1, [&](Value token) {
    Value tokenAddress = codeAddress(tile.layout, ::kvq::Dim::Token, add(tile.token, token));
    loop(0, tile.channels, 1, [&](Value channel) {
      Value code = add(tokenAddress, codeAddress(tile.layout, ::kvq::Dim::Channel, add(tile.channel, channel)));
      Value bit = mul(code, tile.bits);
      Value byte = loadVector(address(tile.base, b.getI8Type(), div(bit, 8)), b.getI8Type(), 1);
      Value wide = b.create<arith::ExtUIOp>(b.getI32Type(), byte);
      Value within = b.create<arith::IndexCastOp>(b.getI32Type(), b.create<arith::AndIOp>(bit, constant(7)));
      Value value = b.create<arith::AndIOp>(b.create<arith::ShRUIOp>(wide, within),
                                            splatInt(b.getI32Type(), (int64_t(1) << tile.bits) - 1));
      if (asFloat)
        value = b.create<arith::SIToFPOp>(b.getF32Type(), value);
      storeVector(value, address(buffer.ptr, buffer.element, add(mul(token, tile.channels), channel)));
    });
  });
  return buffer;
}

// The rectangle of codes that a 32-bit word holds.
struct TileEmitter::WordRectangle {
  ::kvq::Layout layout;
  int64_t bits = 0, fields = 0;
  std::array<int64_t, 2> extent = {1, 1};            // tokens, channels
  SmallVector<std::array<int64_t, 2>> position = {}; // (token, channel) of each field within its word
  bool sideBySide = false;                           // 16 consecutive words are 16 consecutive channels

  // Fails where the fields are not the low bits of the two indices.
  static FailureOr<WordRectangle> of(const ::kvq::Layout &layout, int64_t bits) {
    WordRectangle word;
    word.layout = layout;
    word.bits = bits;
    word.fields = 32 / bits;
    int64_t fieldBits = llvm::Log2_64(word.fields);
    if (static_cast<int64_t>(layout.inner.size()) < fieldBits)
      return failure();
    for (const auto &xors : layout.inner)
      if (xors.size() != 1)
        return failure();
    ArrayRef<std::vector<::kvq::IndexBit>> inner = ArrayRef(layout.inner).take_front(fieldBits);
    for (const auto &bit : inner)
      word.extent[static_cast<int>(bit[0].dim)] *= 2;
    for (const auto &bit : inner)
      if ((int64_t(1) << bit[0].bit) >= word.extent[static_cast<int>(bit[0].dim)])
        return failure();
    for (int64_t field = 0; field < word.fields; ++field) {
      std::array<int64_t, 2> at = {0, 0};
      for (auto [i, bit] : llvm::enumerate(inner))
        at[static_cast<int>(bit[0].dim)] |= ((field >> i) & 1) << bit[0].bit;
      word.position.push_back(at);
    }
    word.sideBySide = word.extent[1] == 1 && static_cast<int64_t>(layout.inner.size()) >= fieldBits + 4;
    for (int64_t i = 0; word.sideBySide && i < 4; ++i) {
      const ::kvq::IndexBit &bit = layout.inner[fieldBits + i][0];
      word.sideBySide = bit.dim == ::kvq::Dim::Channel && bit.bit == i;
    }
    return word;
  }

  // How far each channel of a word that holds one token moves left.
  DenseElementsAttr channelShifts(OpBuilder &b) const {
    SmallVector<int32_t> shifts(fields);
    for (auto [field, at] : llvm::enumerate(position))
      shifts[at[1]] = static_cast<int32_t>(field * bits);
    return DenseElementsAttr::get(VectorType::get({fields}, b.getI32Type()), ArrayRef<int32_t>(shifts));
  }
};

// A word is of one row: its codes side by side, shifted apart and merged.
void TileEmitter::storeRowWords(tile::StoreCodesOp op, const WordRectangle &word, const Buffer &codes) {
  Value base = scalars.lookup(op.getBase()), token = scalars.lookup(op.getToken());
  loop(scalars.lookup(op.getBegin()), scalars.lookup(op.getEnd()), [&](Value row) {
    Value rowAddress = codeAddress(word.layout, ::kvq::Dim::Token, add(token, row));
    loop(0, codes.shape[1], word.fields, [&](Value channel) {
      Value code = add(rowAddress, codeAddress(word.layout, ::kvq::Dim::Channel, channel));
      Value linear = add(mul(row, codes.shape[1]), channel);
      Value values = loadVector(address(codes.ptr, codes.element, linear), codes.element, word.fields);
      Value moved = b.create<arith::ShLIOp>(values, b.create<arith::ConstantOp>(word.channelShifts(b)));
      storeVector(b.create<vector::ReductionOp>(vector::CombiningKind::OR, moved),
                  address(base, b.getI8Type(), div(mul(code, word.bits), 8)));
    });
  });
}

// Rows share words: fields of rows in [begin, end) are replaced, the others kept.
void TileEmitter::storeSharedWords(tile::StoreCodesOp op, const WordRectangle &word, const Buffer &codes) {
  Value base = scalars.lookup(op.getBase()), token = scalars.lookup(op.getToken());
  Value begin = scalars.lookup(op.getBegin()), end = scalars.lookup(op.getEnd());
  int64_t lanes = word.sideBySide ? level.lanes : 1;
  Type words = vectorOf(b.getI32Type(), lanes);
  auto inside = [&](Value row) {
    return b.create<arith::AndIOp>(b.create<arith::CmpIOp>(arith::CmpIPredicate::sge, row, begin),
                                   b.create<arith::CmpIOp>(arith::CmpIPredicate::slt, row, end));
  };
  loop(0, codes.shape[0], word.extent[0], [&](Value row) {
    Value rowAddress = codeAddress(word.layout, ::kvq::Dim::Token, add(token, row));
    loop(0, codes.shape[1], word.extent[1] * lanes, [&](Value channel) {
      Value code = add(rowAddress, codeAddress(word.layout, ::kvq::Dim::Channel, channel));
      Value at = address(base, b.getI8Type(), div(mul(code, word.bits), 8));
      Value merged = loadVector(at, b.getI32Type(), lanes);
      for (auto [field, position] : llvm::enumerate(word.position)) {
        Value fieldRow = add(row, constant(position[0]));
        Value linear = add(add(mul(fieldRow, codes.shape[1]), channel), constant(position[1]));
        Value value = loadVector(address(codes.ptr, codes.element, linear), codes.element, lanes);
        int64_t shift = field * word.bits, mask = ((int64_t(1) << word.bits) - 1) << shift;
        Value kept = b.create<arith::AndIOp>(merged, splatInt(words, static_cast<int32_t>(~mask)));
        Value moved = b.create<arith::ShLIOp>(value, splatInt(words, shift));
        merged = b.create<arith::SelectOp>(inside(fieldRow), b.create<arith::OrIOp>(kept, moved), merged);
      }
      storeVector(merged, at);
    });
  });
}

LogicalResult TileEmitter::emitStoreCodes(tile::StoreCodesOp op) {
  FailureOr<WordRectangle> word = WordRectangle::of(tile::parseLayoutAttr(op.getLayout()), op.getBits());
  if (failed(word) || cast<RankedTensorType>(op.getCodes().getType()).getDimSize(0) % word->extent[0] != 0)
    return op.emitOpError("has no lowering for this layout: a word must hold a power-of-two rectangle of codes");
  if (!buffers.contains(op.getCodes()) && failed(materialize(op.getCodes())))
    return failure();
  Buffer codes = buffers.lookup(op.getCodes());
  if (word->extent[0] == 1)
    storeRowWords(op, *word, codes);
  else
    storeSharedWords(op, *word, codes);
  return success();
}
