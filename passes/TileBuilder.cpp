// SPDX-License-Identifier: Apache-2.0
//
// The longer members of TileBuilder.

#include "passes/TileBuilder.h"

using namespace mlir;
using namespace mlir::kvq;

static ArrayRef<int64_t> shapeOf(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type ? type.getShape() : ArrayRef<int64_t>();
}

static Type withElement(Type like, Type element) {
  auto shaped = dyn_cast<RankedTensorType>(like);
  return shaped ? Type(RankedTensorType::get(shaped.getShape(), element)) : element;
}

void TileBuilder::unify(Value &a, Value &b) {
  bool tileA = isa<RankedTensorType>(a.getType()), tileB = isa<RankedTensorType>(b.getType());
  if (tileA && !tileB)
    b = splat(b, shapeOf(a));
  if (tileB && !tileA)
    a = splat(a, shapeOf(b));
}

Value TileBuilder::fma(Value a, Value b, Value c) {
  unify(a, b);
  unify(b, c);
  return createOrFold<math::FmaOp>(a, b, c);
}

Value TileBuilder::alignDown(Value value, int64_t multiple) { return sub(value, rem(value, index(multiple))); }

Value TileBuilder::compare(arith::CmpIPredicate predicate, Value a, Value b) {
  unify(a, b);
  return createOrFold<arith::CmpIOp>(predicate, a, b);
}

Value TileBuilder::compare(arith::CmpFPredicate predicate, Value a, Value b) {
  unify(a, b);
  return createOrFold<arith::CmpFOp>(predicate, a, b);
}

Value TileBuilder::select(Value condition, Value yes, Value no) {
  unify(yes, no);
  if (isa<RankedTensorType>(condition.getType())) {
    unify(condition, yes);
    unify(condition, no);
  }
  return createOrFold<arith::SelectOp>(condition, yes, no);
}

Value TileBuilder::castInteger(Value value, Type element) {
  Type from = getElementTypeOrSelf(value.getType());
  if (from == element)
    return value;
  Type type = withElement(value.getType(), element);
  if (from.isIndex() || element.isIndex())
    return createOrFold<arith::IndexCastOp>(type, value);
  if (from.getIntOrFloatBitWidth() > element.getIntOrFloatBitWidth())
    return createOrFold<arith::TruncIOp>(type, value);
  if (from.isInteger(1))
    return createOrFold<arith::ExtUIOp>(type, value);
  return createOrFold<arith::ExtSIOp>(type, value);
}

Value TileBuilder::toF32(Value value) {
  if (getElementTypeOrSelf(value.getType()).isF32())
    return value;
  return createOrFold<arith::ExtFOp>(withElement(value.getType(), getF32Type()), value);
}

Value TileBuilder::fromF32(Value value, Type element) {
  if (element.isF32())
    return value;
  return createOrFold<arith::TruncFOp>(withElement(value.getType(), element), value);
}

Value TileBuilder::bitsOf(Value value) {
  return createOrFold<arith::BitcastOp>(withElement(value.getType(), getI32Type()), value);
}

Value TileBuilder::floatOf(Value value) {
  return createOrFold<arith::BitcastOp>(withElement(value.getType(), getF32Type()), value);
}

Value TileBuilder::splat(Value scalar, ArrayRef<int64_t> shape) {
  return createOrFold<tensor::SplatOp>(scalar, tile(shape, scalar.getType()));
}

Value TileBuilder::broadcast(Value source, ArrayRef<int64_t> shape, ArrayRef<int64_t> dims) {
  auto type = cast<RankedTensorType>(source.getType());
  if (type.getShape() == shape)
    return source;
  return tile::BroadcastOp::create(*this, tile(shape, type.getElementType()), source, dims);
}

Value TileBuilder::iota(int64_t count, Type element) { return tile::IotaOp::create(*this, tile({count}, element)); }

Value TileBuilder::reduce(tile::ReduceKind kind, Value source, int64_t dim) {
  auto type = cast<RankedTensorType>(source.getType());
  SmallVector<int64_t> shape(type.getShape());
  shape.erase(shape.begin() + dim);
  Type result = shape.empty() ? type.getElementType() : tile(shape, type.getElementType());
  return tile::ReduceOp::create(*this, result, kind, source, dim);
}

Value TileBuilder::load(Value ptr, Value offset, ArrayRef<int64_t> shape, Value mask) {
  Type element = cast<tile::PtrType>(ptr.getType()).getElementType();
  ArrayRef<int64_t> offsets = shapeOf(offset);
  if (shape.empty())
    shape = offsets;
  Type type = shape.empty() ? element : tile(shape, element);
  return tile::LoadOp::create(*this, type, ptr, offset, mask);
}

Value TileBuilder::advance(Value ptr, Value bytes, Type element) {
  return tile::AdvanceOp::create(*this, tile::PtrType::get(getContext(), element), ptr, bytes);
}

Value TileBuilder::member(Value item, size_t offset, unsigned width) {
  Type type = getIntegerType(width);
  Value at = advance(item, index(static_cast<int64_t>(offset)), type);
  return toIndex(load(at, index(0)));
}

Value TileBuilder::dot(Value x, Value coeff, Value acc, int64_t contract, TypeAttr round) {
  return tile::DotOp::create(*this, acc.getType(), x, coeff, acc, Value(), getI64IntegerAttr(contract),
                             getF32FloatAttr(0.0f), round);
}

Value TileBuilder::dotScaled(Value x, Value coeff, Value acc, int64_t contract, Value scale, float center) {
  return tile::DotOp::create(*this, acc.getType(), x, coeff, acc, scale, getI64IntegerAttr(contract),
                             getF32FloatAttr(center), TypeAttr());
}

Value TileBuilder::coeff(Value values, Value scale, TypeAttr round) {
  ArrayRef<int64_t> shape = shapeOf(values);
  return tile::CoeffOp::create(*this, tile({scale ? shapeOf(scale)[0] : 1, shape[0], shape[1]}, getF32Type()), values,
                               scale, round);
}

SmallVector<Value> TileBuilder::loop(Value begin, Value end, int64_t step, ValueRange inits, Body body) {
  Value by = begin.getType().isIndex() ? index(step) : i32(static_cast<int32_t>(step));
  auto loop = scf::ForOp::create(*this, begin, end, by, inits);
  OpBuilder::InsertionGuard guard(*this);
  // scf.for without carried values comes with its terminator.
  if (inits.empty())
    setInsertionPoint(loop.getBody()->getTerminator());
  else
    setInsertionPointToStart(loop.getBody());
  SmallVector<Value> next = body(loop.getInductionVar(), loop.getRegionIterArgs());
  if (!inits.empty())
    scf::YieldOp::create(*this, next);
  return SmallVector<Value>(loop.getResults());
}

void TileBuilder::branch(Value condition, function_ref<void()> yes, function_ref<void()> no) {
  auto branch = scf::IfOp::create(*this, condition, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(branch.thenBlock());
  yes();
  setInsertionPointToStart(branch.elseBlock());
  no();
}
