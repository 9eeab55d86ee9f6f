// SPDX-License-Identifier: Apache-2.0
//
// Packed codes: addresses derived from a layout, unpacking to a buffer. Packing is in EmitPack.cpp.

#include "codegen/cpu/WordBlock.h"

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

SmallVector<TileEmitter::PackedPlane> TileEmitter::packedPlanes(const ::kvq::SectionLayout &layout) {
  SmallVector<PackedPlane> planes;
  for (auto [i, plane] : llvm::enumerate(layout.planes))
    planes.push_back({plane.map, plane.bits, layout.planeShift(i), layout.planeOffset(i)});
  return planes;
}

// One code, for any layout of single index bits.
Value TileEmitter::unpackCode(const Packed &tile, Value token, Value channel) {
  Value code;
  for (const PackedPlane &plane : tile.planes) {
    Value bit =
        mul(add(codeAddress(plane.map, ::kvq::Dim::Token, token), codeAddress(plane.map, ::kvq::Dim::Channel, channel)),
            plane.bits);
    Value at = address(tile.base, b.getI8Type(), add(div(bit, 8), constant(plane.offset)));
    Value wide = b.create<arith::ExtUIOp>(b.getI32Type(), loadVector(at, b.getI8Type(), 1));
    Value within = b.create<arith::IndexCastOp>(b.getI32Type(), b.create<arith::AndIOp>(bit, constant(7)));
    Value field = b.create<arith::AndIOp>(b.create<arith::ShRUIOp>(wide, within),
                                          splatInt(b.getI32Type(), (int64_t(1) << plane.bits) - 1));
    if (plane.shift > 0)
      field = b.create<arith::ShLIOp>(field, splatInt(b.getI32Type(), plane.shift));
    code = code ? b.create<arith::OrIOp>(code, field).getResult() : field;
  }
  return code;
}

FailureOr<TileEmitter::WordBlock> TileEmitter::WordBlock::of(const PackedPlane &plane) {
  WordBlock block;
  block.plane = plane;
  const auto &inner = plane.map.inner;
  int64_t fieldBits = llvm::Log2_64(block.fields());
  if (static_cast<int64_t>(inner.size()) != fieldBits + 4)
    return failure();
  for (const auto &bit : inner)
    block.extent[static_cast<int>(bit[0].dim)] *= 2;
  for (const auto &bit : inner) // exactly the low bits of both indices
    if (bit.size() != 1 || (int64_t(1) << bit[0].bit) >= block.extent[static_cast<int>(bit[0].dim)])
      return failure();
  block.acrossTokens = inner[fieldBits][0].dim == ::kvq::Dim::Token;
  for (int64_t i = 0; i < 4; ++i)
    if ((inner[fieldBits + i][0].dim == ::kvq::Dim::Token) != block.acrossTokens || inner[fieldBits + i][0].bit != i)
      return failure();
  for (int64_t field = 0; field < block.fields(); ++field) {
    std::array<int64_t, 2> at = {0, 0};
    for (int64_t i = 0; i < fieldBits; ++i)
      at[static_cast<int>(inner[i][0].dim)] |= ((field >> i) & 1) << inner[i][0].bit;
    block.position.push_back(at);
  }
  bool fits = block.acrossTokens ? block.extent[1] >= 4 : block.extent[1] == kWords; // fields of V are tokens only
  if (!fits)
    return failure();
  return block;
}

FailureOr<std::vector<TileEmitter::WordBlock>> TileEmitter::WordBlock::of(ArrayRef<PackedPlane> planes) {
  std::vector<WordBlock> blocks;
  for (const PackedPlane &plane : planes) {
    FailureOr<WordBlock> block = of(plane);
    if (failed(block) || (!blocks.empty() && blocks.front().acrossTokens != block->acrossTokens))
      return failure();
    blocks.push_back(*block);
  }
  return blocks;
}

// `lanes` codes of one plane along channels: of V the same field of as many words, of K fields of one word (or of two,
// where a word has fewer channels than a vector lanes). What token and channel contribute to a field's place adds up.
Value TileEmitter::unpackRun(const Packed &tile, const WordBlock &block, Value token, Value channel, int64_t lanes) {
  int64_t bits = block.plane.bits, fields = block.fields(), width = std::min(block.extent[1], lanes);
  Type i32 = b.getI32Type(), words = vectorOf(i32, lanes);
  Value tokenPart = codeAddress(block.plane.map, ::kvq::Dim::Token, token);
  auto loadWord = [&](Value at, int64_t count) {
    Value code = add(tokenPart, codeAddress(block.plane.map, ::kvq::Dim::Channel, at));
    Value bytes = add(mul(div(code, fields), 4), constant(block.plane.offset));
    return loadVector(address(tile.base, b.getI8Type(), bytes), i32, count);
  };
  Value field = b.createOrFold<arith::AndIOp>(tokenPart, constant(fields - 1));
  Value shift = b.create<arith::IndexCastOp>(i32, mul(field, bits));
  Value shifts = b.create<vector::BroadcastOp>(words, shift), loaded;
  if (!block.acrossTokens) {
    loaded = loadWord(channel, lanes);
  } else {
    SmallVector<int32_t> places(lanes);
    for (int64_t lane = 0; lane < lanes; ++lane)
      places[lane] = static_cast<int32_t>(block.plane.map.address(0, lane) % fields * bits);
    if (block.extent[1] > lanes) { // the vector begins anywhere in its word
      Value at = b.createOrFold<arith::AndIOp>(codeAddress(block.plane.map, ::kvq::Dim::Channel, channel),
                                               constant(fields - 1));
      Value more = b.create<arith::IndexCastOp>(i32, mul(at, bits));
      shifts = b.create<arith::AddIOp>(shifts, b.create<vector::BroadcastOp>(words, more));
    }
    auto constants = DenseElementsAttr::get(cast<VectorType>(words), ArrayRef<int32_t>(places));
    shifts = b.create<arith::AddIOp>(shifts, b.create<arith::ConstantOp>(constants));
    SmallVector<Value> repeated;
    for (int64_t at = 0; at < lanes; at += width)
      repeated.append(width, loadWord(add(channel, constant(at)), 1));
    loaded = width == lanes ? b.create<vector::BroadcastOp>(words, repeated.front()).getResult()
                            : b.create<vector::FromElementsOp>(cast<VectorType>(words), repeated).getResult();
  }
  Value code = b.create<arith::AndIOp>(b.create<arith::ShRUIOp>(loaded, shifts), splatInt(words, block.fieldMask()));
  return block.plane.shift == 0 ? code : b.create<arith::ShLIOp>(code, splatInt(words, block.plane.shift)).getResult();
}

// Every code of the rectangle: by vectors where the layout has words for it, else one by one.
FailureOr<TileEmitter::Buffer> TileEmitter::unpackToBuffer(Operation *op, const Packed &tile, bool asFloat) {
  for (const PackedPlane &plane : tile.planes)
    for (const auto &xors : plane.map.inner)
      if (xors.size() != 1)
        return op->emitOpError("has no lowering for a layout that combines index bits");
  Buffer buffer = allocate({tile.tokens, tile.channels}, asFloat ? Type(b.getF32Type()) : Type(b.getI32Type()));
  FailureOr<std::vector<WordBlock>> blocks = WordBlock::of(tile.planes);
  int64_t lanes = succeeded(blocks) && tile.channels % level.lanes == 0 ? level.lanes : 1;
  loop(0, tile.tokens, 1, [&](Value row) {
    loop(0, tile.channels, lanes, [&](Value column) {
      Value token = add(tile.token, row), channel = add(tile.channel, column), value;
      if (lanes == 1)
        value = unpackCode(tile, token, channel);
      else
        for (const WordBlock &block : *blocks) {
          Value part = unpackRun(tile, block, token, channel, lanes);
          value = value ? b.create<arith::OrIOp>(value, part).getResult() : part;
        }
      if (asFloat)
        value = b.create<arith::SIToFPOp>(vectorOf(b.getF32Type(), lanes), value);
      storeVector(value, address(buffer.ptr, buffer.element, add(mul(row, tile.channels), column)));
    });
  });
  return buffer;
}
