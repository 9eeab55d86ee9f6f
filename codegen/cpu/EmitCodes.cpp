// SPDX-License-Identifier: Apache-2.0
//
// Packed codes: addresses derived from a layout, unpacking to a buffer. Packing is in EmitPack.cpp.

#include "codegen/cpu/TileEmitter.h"

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

// Every code of the rectangle, one by one.
FailureOr<TileEmitter::Buffer> TileEmitter::unpackToBuffer(Operation *op, const Packed &tile, bool asFloat) {
  for (const PackedPlane &plane : tile.planes)
    for (const auto &xors : plane.map.inner)
      if (xors.size() != 1)
        return op->emitOpError("has no lowering for a layout that combines index bits");
  Buffer buffer = allocate({tile.tokens, tile.channels}, asFloat ? Type(b.getF32Type()) : Type(b.getI32Type()));
  loop(0, tile.tokens, 1, [&](Value token) {
    loop(0, tile.channels, 1, [&](Value channel) {
      Value value = unpackCode(tile, add(tile.token, token), add(tile.channel, channel));
      if (asFloat)
        value = b.create<arith::SIToFPOp>(b.getF32Type(), value);
      storeVector(value, address(buffer.ptr, buffer.element, add(mul(token, tile.channels), channel)));
    });
  });
  return buffer;
}
