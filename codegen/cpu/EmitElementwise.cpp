// SPDX-License-Identifier: Apache-2.0
//
// Element-wise tile values: evaluation where they are used, materialization into buffers, reductions.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

Value TileEmitter::evalBuffer(const Buffer &buffer, ArrayRef<Value> index, int64_t lanes) {
  Value linear = constant(0);
  for (auto [i, extent] : llvm::enumerate(buffer.shape))
    linear = i == 0 ? index[0] : add(mul(linear, extent), index[i]);
  return loadVector(address(buffer.ptr, buffer.element, linear), buffer.element, lanes);
}

// `lanes` elements of a tile from `index` on along the last dimension; a scalar for one lane.
Value TileEmitter::eval(Value tile, ArrayRef<Value> index, int64_t lanes) {
  if (auto it = buffers.find(tile); it != buffers.end())
    return evalBuffer(it->second, index, lanes);
  Operation *op = tile.getDefiningOp();
  Type element = cast<RankedTensorType>(tile.getType()).getElementType();
  if (auto broadcast = dyn_cast<tile::BroadcastOp>(op))
    return evalBroadcast(broadcast, index, lanes);
  if (auto dequantize = dyn_cast<tile::DequantizeOp>(op))
    return evalDequantize(dequantize, index, lanes);
  if (auto coeff = dyn_cast<tile::CoeffOp>(op))
    return evalCoeff(coeff, index, lanes);
  if (auto splat = dyn_cast<tensor::SplatOp>(op)) {
    Value scalar = scalars.lookup(splat.getInput());
    return lanes == 1 ? scalar : b.create<vector::BroadcastOp>(vectorOf(scalar.getType(), lanes), scalar).getResult();
  }
  if (isa<tile::IotaOp>(op)) {
    if (lanes == 1)
      return element.isIndex() ? index[0] : b.create<arith::IndexCastOp>(element, index[0]).getResult();
    auto type = VectorType::get({lanes}, element);
    SmallVector<Attribute> steps;
    for (int64_t i = 0; i < lanes; ++i)
      steps.push_back(b.getIntegerAttr(element, i));
    Value step = b.create<arith::ConstantOp>(DenseElementsAttr::get(type, steps));
    Value base = element.isIndex() ? index[0] : b.create<arith::IndexCastOp>(element, index[0]).getResult();
    return b.create<arith::AddIOp>(b.create<vector::BroadcastOp>(type, base), step);
  }
  if (auto constantOp = dyn_cast<arith::ConstantOp>(op)) {
    auto dense = cast<DenseElementsAttr>(constantOp.getValue());
    TypedAttr scalar = scalarConstant(dense.getSplatValue<TypedAttr>());
    if (auto vector = dyn_cast<VectorType>(vectorOf(scalar.getType(), lanes)))
      return b.create<arith::ConstantOp>(DenseElementsAttr::get(vector, scalar));
    return b.create<arith::ConstantOp>(scalar);
  }
  SmallVector<Value> operands;
  for (Value operand : op->getOperands()) {
    if (isa<RankedTensorType>(operand.getType()))
      operands.push_back(eval(operand, index, lanes));
    else // arith.select takes a scalar condition with tiles
      operands.push_back(scalars.lookup(operand));
  }
  return evalOp(*op, operands, lanes);
}

Value TileEmitter::evalBroadcast(tile::BroadcastOp op, ArrayRef<Value> index, int64_t lanes) {
  auto source = cast<RankedTensorType>(op.getSource().getType()), result = cast<RankedTensorType>(op.getType());
  int64_t last = result.getRank() - 1;
  bool contiguous = false;
  int64_t perSource = result.getDimSize(last); // lanes that one source element covers in the last dimension
  SmallVector<Value> sourceIndex;
  for (auto [i, dim] : llvm::enumerate(op.getDims())) {
    int64_t factor = result.getDimSize(dim) / source.getDimSize(i);
    sourceIndex.push_back(source.getDimSize(i) == 1 ? constant(0) : div(index[dim], factor));
    if (dim == last) {
      contiguous = factor == 1;
      perSource = factor;
    }
  }
  if (contiguous || lanes == 1)
    return eval(op.getSource(), sourceIndex, lanes);
  if (perSource % lanes == 0) {
    Value scalar = eval(op.getSource(), sourceIndex, 1);
    return b.create<vector::BroadcastOp>(VectorType::get({lanes}, scalar.getType()), scalar);
  }
  SmallVector<Value> elements; // runs shorter than a vector: element by element
  SmallVector<Value> at(sourceIndex);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    at.back() = div(add(index[last], constant(lane)), perSource);
    elements.push_back(eval(op.getSource(), at, 1));
  }
  return b.create<vector::FromElementsOp>(VectorType::get({lanes}, elements.front().getType()), elements);
}

// format-spec dequantize_c1: a multiplication, then an addition, never fused.
Value TileEmitter::evalDequantize(tile::DequantizeOp op, ArrayRef<Value> index, int64_t lanes) {
  auto codes = cast<RankedTensorType>(op.getCodes().getType()), scale = cast<RankedTensorType>(op.getScale().getType());
  Value code = evalBuffer(buffers.lookup(op.getCodes()), index, lanes);
  bool perChannel = op.getAxis() == "channel";
  int64_t group = codes.getDimSize(perChannel ? 0 : 1) / scale.getDimSize(0);
  SmallVector<Value> at = {div(index[perChannel ? 0 : 1], group), index[perChannel ? 1 : 0]};
  auto parameter = [&](Value tile) -> Value {
    if (perChannel || lanes == 1)
      return eval(tile, at, lanes);
    if (group % lanes == 0) {
      Value scalar = eval(tile, at, 1);
      return b.create<vector::BroadcastOp>(VectorType::get({lanes}, scalar.getType()), scalar);
    }
    SmallVector<Value> perLane; // groups shorter than a vector
    for (int64_t lane = 0; lane < lanes; ++lane)
      perLane.push_back(eval(tile, {div(add(index[1], constant(lane)), group), index[0]}, 1));
    return b.create<vector::FromElementsOp>(VectorType::get({lanes}, perLane.front().getType()), perLane);
  };
  Value s = parameter(op.getScale()), m = parameter(op.getMin());
  return b.create<arith::AddFOp>(b.create<arith::MulFOp>(code, s), m);
}

Value TileEmitter::evalCoeff(tile::CoeffOp op, ArrayRef<Value> index, int64_t lanes) {
  Value values = eval(op.getValues(), {index[1], index[2]}, lanes);
  if (!op.getScale())
    return values;
  Value scale = eval(op.getScale(), {index[0], index[2]}, lanes);
  return b.create<arith::MulFOp>(values, scale);
}

// One scalar or vector op from evaluated operands.
Value TileEmitter::evalOp(Operation &op, ArrayRef<Value> operands, int64_t lanes) {
  Type element = getElementTypeOrSelf(op.getResult(0).getType());
  if (auto extend = dyn_cast<arith::ExtFOp>(op))
    return emitExtend(operands[0], getElementTypeOrSelf(extend.getIn().getType()).isBF16());
  if (isa<arith::TruncFOp>(op))
    return emitTruncate(operands[0], element.isBF16());
  if (isa<math::Exp2Op>(op))
    return emitExp2(operands[0]);
  if (isa<math::Log2Op>(op))
    return emitLog2(operands[0]);
  if (isa<math::RoundEvenOp>(op) && !level.hasRound)
    return emitRoundEven(b, operands[0]);
  OperationState state(b.getLoc(), op.getName());
  state.addOperands(operands);
  state.addTypes(vectorOf(scalarType(element), lanes));
  state.addAttributes(op.getAttrs());
  return b.create(state)->getResult(0);
}

void TileEmitter::writeInto(Value tile, const Buffer &target) {
  forEachVector(target.shape, [&](ArrayRef<Value> index, int64_t lanes) {
    Value value = eval(tile, index, lanes);
    Value linear = constant(0);
    for (auto [i, extent] : llvm::enumerate(target.shape))
      linear = i == 0 ? index[0] : add(mul(linear, extent), index[i]);
    storeVector(value, address(target.ptr, target.element, linear));
  });
}

LogicalResult TileEmitter::materialize(Value tile) {
  auto type = cast<RankedTensorType>(tile.getType());
  if (type.getElementType().isInteger(1))
    return emitError(b.getLoc(), "a mask cannot be kept as a tile; keep the values it is computed from");
  Buffer buffer = allocate(type.getShape(), type.getElementType());
  writeInto(tile, buffer);
  buffers[tile] = buffer;
  return success();
}

// A constant tile of several values, element by element.
void TileEmitter::emitConstant(arith::ConstantOp op) {
  auto type = cast<RankedTensorType>(op.getType());
  Buffer buffer = allocate(type.getShape(), type.getElementType());
  for (auto [i, value] : llvm::enumerate(cast<DenseElementsAttr>(op.getValue()).getValues<TypedAttr>()))
    storeVector(b.create<arith::ConstantOp>(scalarConstant(value)), address(buffer.ptr, buffer.element, constant(i)));
  buffers[op.getResult()] = buffer;
}

namespace {

vector::CombiningKind combiningKind(tile::ReduceKind kind, bool isFloat) {
  switch (kind) {
  case tile::ReduceKind::Max:
    return isFloat ? vector::CombiningKind::MAXNUMF : vector::CombiningKind::MAXSI;
  case tile::ReduceKind::Min:
    return isFloat ? vector::CombiningKind::MINNUMF : vector::CombiningKind::MINSI;
  case tile::ReduceKind::Add:
    return vector::CombiningKind::ADD;
  }
  llvm_unreachable("all kinds handled");
}

// NaN is the caller's business (reduce's description): nnan keeps a maximum one instruction.
Value combine(ImplicitLocOpBuilder &b, tile::ReduceKind kind, Value x, Value y) {
  bool isFloat = isa<FloatType>(getElementTypeOrSelf(x.getType()));
  auto nnan = arith::FastMathFlagsAttr::get(b.getContext(), arith::FastMathFlags::nnan);
  if (kind == tile::ReduceKind::Max)
    return isFloat ? b.create<arith::MaxNumFOp>(x, y, nnan).getResult() : b.create<arith::MaxSIOp>(x, y).getResult();
  if (kind == tile::ReduceKind::Min)
    return isFloat ? b.create<arith::MinNumFOp>(x, y, nnan).getResult() : b.create<arith::MinSIOp>(x, y).getResult();
  return isFloat ? b.create<arith::AddFOp>(x, y).getResult() : b.create<arith::AddIOp>(x, y).getResult();
}

} // namespace

// The result's elements in loops; inside, the source's dimension in a loop that carries one vector.
LogicalResult TileEmitter::emitReduce(tile::ReduceOp op) {
  auto source = cast<RankedTensorType>(op.getSource().getType());
  int64_t dim = op.getDim(), extent = source.getDimSize(dim), rank = source.getRank();
  bool horizontal = dim == rank - 1;
  int64_t lanes = horizontal ? wideLanesFor(extent) : lanesFor(source.getShape().back());
  int64_t step = horizontal ? lanes : 1;
  auto reduceAt = [&](SmallVector<Value> index) -> Value { // index of the source, its entry `dim` to be filled in
    index[dim] = constant(0);
    Value first = eval(op.getSource(), index, lanes);
    if (extent > step) {
      auto inner = b.create<scf::ForOp>(constant(step), constant(extent), constant(step), ValueRange{first});
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(inner.getBody());
      index[dim] = inner.getInductionVar();
      Value next = eval(op.getSource(), index, lanes);
      b.create<scf::YieldOp>(combine(b, op.getKind(), inner.getRegionIterArg(0), next));
      first = inner.getResult(0);
    }
    if (!horizontal || lanes == 1)
      return first;
    bool isFloat = isa<FloatType>(source.getElementType());
    bool ordered = isFloat && op.getKind() != tile::ReduceKind::Add;
    return b.create<vector::ReductionOp>(combiningKind(op.getKind(), isFloat), first,
                                         ordered ? arith::FastMathFlags::nnan : arith::FastMathFlags::none);
  };
  if (rank == 1) {
    scalars.map(op.getResult(), reduceAt({Value()}));
    return success();
  }
  auto type = cast<RankedTensorType>(op.getType());
  Buffer buffer = allocate(type.getShape(), type.getElementType());
  SmallVector<Value> index;
  std::function<void(int64_t, Value)> nest = [&](int64_t outer, Value linear) {
    if (outer == type.getRank()) {
      SmallVector<Value> at(index);
      at.insert(at.begin() + dim, Value());
      storeVector(reduceAt(at), address(buffer.ptr, buffer.element, linear));
      return;
    }
    bool vectors = !horizontal && outer + 1 == type.getRank();
    loop(0, type.getDimSize(outer), vectors ? lanes : 1, [&](Value i) {
      index.push_back(i);
      nest(outer + 1, outer == 0 ? i : add(mul(linear, type.getDimSize(outer)), i));
      index.pop_back();
    });
  };
  nest(0, constant(0));
  buffers[op.getResult()] = buffer;
  return success();
}
