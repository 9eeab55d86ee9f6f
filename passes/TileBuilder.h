// SPDX-License-Identifier: Apache-2.0
//
// TileBuilder: makes tile programs readable in C++. Arithmetic takes scalars and tiles alike; a scalar beside a tile is
// splat to the tile's shape. Float arithmetic carries no fast-math flag: format-spec's sequences are exact. It knows
// nothing of caches and formats; those are in passes/expand.
#pragma once

#include "dialect/tile/Tile.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/Builders.h"

namespace mlir::kvq {

class TileBuilder : public ImplicitLocOpBuilder {
public:
  TileBuilder(Location loc, const OpBuilder &builder) : ImplicitLocOpBuilder(loc, builder) {}

  // Constants and types.
  Value index(int64_t value) { return arith::ConstantIndexOp::create(*this, value); }
  Value i32(int32_t value) { return arith::ConstantIntOp::create(*this, value, 32); }
  Value f32(float value) { return arith::ConstantFloatOp::create(*this, getF32Type(), APFloat(value)); }
  Value constantTile(ArrayRef<int64_t> shape, float value) { return splat(f32(value), shape); }
  RankedTensorType tile(ArrayRef<int64_t> shape, Type element) { return RankedTensorType::get(shape, element); }

  // Arithmetic on index, i32 and f32. Integers are signed except div and rem, whose operands are never negative.
  Value add(Value a, Value b) { return binary<arith::AddIOp, arith::AddFOp>(a, b); }
  Value sub(Value a, Value b) { return binary<arith::SubIOp, arith::SubFOp>(a, b); }
  Value mul(Value a, Value b) { return binary<arith::MulIOp, arith::MulFOp>(a, b); }
  Value div(Value a, Value b) { return binary<arith::DivUIOp, arith::DivFOp>(a, b); }
  Value rem(Value a, Value b) { return binary<arith::RemUIOp, arith::RemFOp>(a, b); }
  Value min(Value a, Value b) { return binary<arith::MinSIOp, arith::MinNumFOp>(a, b); }
  Value max(Value a, Value b) { return binary<arith::MaxSIOp, arith::MaxNumFOp>(a, b); }
  Value fma(Value a, Value b, Value c); // a * b + c, rounded once
  Value bitAnd(Value a, Value b) { return binary<arith::AndIOp, arith::AndIOp>(a, b); }
  // value rounded down to a multiple of the constant.
  Value alignDown(Value value, int64_t multiple);
  // approximate: some 1e-6 will do.
  Value exp2(Value value, bool approximate = false) {
    auto flags = approximate ? arith::FastMathFlags::afn : arith::FastMathFlags::none;
    return math::Exp2Op::create(*this, value, flags);
  }
  Value tanh(Value value) { return math::TanhOp::create(*this, value); }
  Value log2(Value value) { return math::Log2Op::create(*this, value); }
  Value roundEven(Value value) { return math::RoundEvenOp::create(*this, value); }

  Value compare(arith::CmpIPredicate predicate, Value a, Value b);
  Value compare(arith::CmpFPredicate predicate, Value a, Value b);
  Value less(Value a, Value b) { return compare(arith::CmpIPredicate::slt, a, b); }
  Value lessEqual(Value a, Value b) { return compare(arith::CmpIPredicate::sle, a, b); }
  // Both or one of the choices may be scalars where the condition is a tile.
  Value select(Value condition, Value yes, Value no);

  // Conversions: integers of any width to and from index; f16 and bf16 to and from f32; the identity where equal.
  Value toIndex(Value value) { return castInteger(value, getIndexType()); }
  Value toI32(Value value) { return castInteger(value, getI32Type()); }
  Value toF32(Value value);
  Value fromF32(Value value, Type element);
  Value bitsOf(Value value);  // f32 as i32
  Value floatOf(Value value); // i32 as f32

  // Shapes.
  Value splat(Value scalar, ArrayRef<int64_t> shape);
  Value broadcast(Value source, ArrayRef<int64_t> shape, ArrayRef<int64_t> dims);
  Value iota(int64_t count, Type element);
  Value reduce(tile::ReduceKind kind, Value source, int64_t dim);
  Value reduceParts(tile::ReduceKind kind, Value source) { return tile::ReducePartsOp::create(*this, kind, source); }

  // Memory. `shape` empty: one element per offset; otherwise the whole shape of the result.
  Value load(Value ptr, Value offset, ArrayRef<int64_t> shape = {}, Value mask = {});
  void store(Value value, Value ptr, Value offset, Value mask = {}) {
    tile::StoreOp::create(*this, value, ptr, offset, mask);
  }
  Value advance(Value ptr, Value bytes, Type element);
  // The integer member at `offset` bytes of an item, as index. Width is 32 or 64.
  Value member(Value item, size_t offset, unsigned width = 32);

  // How coefficients may be rounded, for kvq_tile.coeff and kvq_tile.dot: 8 or 16 bits.
  TypeAttr rounding(unsigned bits, bool isSigned) {
    return TypeAttr::get(IntegerType::get(getContext(), bits, isSigned ? IntegerType::Signed : IntegerType::Unsigned));
  }
  Value dot(Value x, Value coeff, Value acc, int64_t contract, TypeAttr round = {});
  Value dotScaled(Value x, Value coeff, Value acc, int64_t contract, Value scale, float center);
  // scale [S, C] may be null: one set of the values themselves.
  Value coeff(Value values, Value scale, TypeAttr round);

  // A loop over index or i32 that carries values; body returns the next ones.
  using Body = function_ref<SmallVector<Value>(Value iv, ValueRange carried)>;
  SmallVector<Value> loop(Value begin, Value end, int64_t step, ValueRange inits, Body body);
  // A branch without results.
  void branch(Value condition, function_ref<void()> yes, function_ref<void()> no);

private:
  // Gives both the shape of the one that is a tile.
  void unify(Value &a, Value &b);
  Value castInteger(Value value, Type element);

  template <typename IntOp, typename FloatOp> Value binary(Value a, Value b) {
    unify(a, b);
    if (isa<FloatType>(getElementTypeOrSelf(a.getType())))
      return createOrFold<FloatOp>(a, b);
    return createOrFold<IntOp>(a, b);
  }
};

} // namespace mlir::kvq
