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

// How far each channel of a word that holds one token moves left.
static DenseElementsAttr wordShifts(OpBuilder &b, ArrayRef<std::array<int64_t, 2>> position, int64_t bits) {
  SmallVector<int32_t> shifts(position.size());
  for (auto [field, at] : llvm::enumerate(position))
    shifts[at[1]] = static_cast<int32_t>(field * bits);
  return DenseElementsAttr::get(VectorType::get({static_cast<int64_t>(shifts.size())}, b.getI32Type()),
                                ArrayRef<int32_t>(shifts));
}

// Word by word: fields that belong to rows in [begin, end) are replaced, the others kept. Channels run in vectors where
// the layout puts 16 of them side by side.
LogicalResult TileEmitter::emitStoreCodes(tile::StoreCodesOp op) {
  ::kvq::Layout layout = tile::parseLayoutAttr(op.getLayout());
  auto type = cast<RankedTensorType>(op.getCodes().getType());
  int64_t bits = op.getBits(), fields = 32 / bits, fieldBits = llvm::Log2_64(fields);
  int64_t perWord[2] = {1, 1}; // tokens, channels of a word
  bool supported = static_cast<int64_t>(layout.inner.size()) >= fieldBits;
  for (const auto &xors : layout.inner)
    supported &= xors.size() == 1;
  for (int64_t i = 0; supported && i < fieldBits; ++i)
    perWord[static_cast<int>(layout.inner[i][0].dim)] *= 2;
  for (int64_t i = 0; supported && i < fieldBits; ++i)
    supported &= (int64_t(1) << layout.inner[i][0].bit) < perWord[static_cast<int>(layout.inner[i][0].dim)];
  if (!supported || type.getDimSize(0) % perWord[0] != 0)
    return op.emitOpError("has no lowering for this layout: a word must hold a power-of-two rectangle of codes");
  SmallVector<std::array<int64_t, 2>> position; // (token, channel) of each field within its word
  for (int64_t field = 0; field < fields; ++field) {
    std::array<int64_t, 2> at = {0, 0};
    for (int64_t i = 0; i < fieldBits; ++i)
      at[static_cast<int>(layout.inner[i][0].dim)] |= ((field >> i) & 1) << layout.inner[i][0].bit;
    position.push_back(at);
  }
  bool vectors = perWord[1] == 1 && static_cast<int64_t>(layout.inner.size()) >= fieldBits + 4;
  for (int64_t i = 0; vectors && i < 4; ++i)
    vectors = layout.inner[fieldBits + i][0].dim == ::kvq::Dim::Channel && layout.inner[fieldBits + i][0].bit == i;
  int64_t lanes = vectors ? level.lanes : 1;
  if (!buffers.contains(op.getCodes()) && failed(materialize(op.getCodes())))
    return failure();
  Buffer codes = buffers.lookup(op.getCodes());
  Value base = scalars.lookup(op.getBase()), token = scalars.lookup(op.getToken());
  Value begin = scalars.lookup(op.getBegin()), end = scalars.lookup(op.getEnd());
  Type words = vectorOf(b.getI32Type(), lanes);
  if (perWord[0] == 1) { // a word is of one row: its codes side by side, shifted apart and merged
    loop(begin, end, [&](Value row) {
      Value rowAddress = codeAddress(layout, ::kvq::Dim::Token, add(token, row));
      loop(0, type.getDimSize(1), fields, [&](Value channel) {
        Value code = add(rowAddress, codeAddress(layout, ::kvq::Dim::Channel, channel));
        Value linear = add(mul(row, type.getDimSize(1)), channel);
        Value values = loadVector(address(codes.ptr, codes.element, linear), codes.element, fields);
        Value moved = b.create<arith::ShLIOp>(values, b.create<arith::ConstantOp>(wordShifts(b, position, bits)));
        storeVector(b.create<vector::ReductionOp>(vector::CombiningKind::OR, moved),
                    address(base, b.getI8Type(), div(mul(code, bits), 8)));
      });
    });
    return success();
  }
  loop(0, type.getDimSize(0), perWord[0], [&](Value row) {
    Value rowAddress = codeAddress(layout, ::kvq::Dim::Token, add(token, row));
    loop(0, type.getDimSize(1), perWord[1] * lanes, [&](Value channel) {
      Value code = add(rowAddress, codeAddress(layout, ::kvq::Dim::Channel, channel));
      Value at = address(base, b.getI8Type(), div(mul(code, bits), 8));
      Value word = loadVector(at, b.getI32Type(), lanes);
      for (int64_t field = 0; field < fields; ++field) {
        Value fieldRow = add(row, constant(position[field][0]));
        Value inside = b.create<arith::AndIOp>(b.create<arith::CmpIOp>(arith::CmpIPredicate::sge, fieldRow, begin),
                                               b.create<arith::CmpIOp>(arith::CmpIPredicate::slt, fieldRow, end));
        Value linear = add(add(mul(fieldRow, type.getDimSize(1)), channel), constant(position[field][1]));
        Value value = loadVector(address(codes.ptr, codes.element, linear), codes.element, lanes);
        int64_t shift = field * bits, mask = ((int64_t(1) << bits) - 1) << shift;
        Value kept = b.create<arith::AndIOp>(word, splatInt(words, static_cast<int32_t>(~mask)));
        Value moved = b.create<arith::ShLIOp>(value, splatInt(words, shift));
        Value replaced = b.create<arith::OrIOp>(kept, moved);
        word = b.create<arith::SelectOp>(inside, replaced, word);
      }
      storeVector(word, at);
    });
  });
  return success();
}
