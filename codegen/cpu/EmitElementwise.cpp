// SPDX-License-Identifier: Apache-2.0
//
// Element-wise tile values: evaluation where they are used, materialization into buffers.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

Value TileEmitter::evalBuffer(const Buffer &buffer, ArrayRef<Value> index, int64_t lanes) {
  if (buffer.rows) {
    Value row = loadVector(address(buffer.rows, b.getI64Type(), index[0]), b.getIndexType(), 1);
    return loadVector(address(buffer.ptr, buffer.element, add(row, index[1])), buffer.element, lanes);
  }
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
  // Rounding to even and conversion to i32 at once, in the rounding mode that a thread has unless it was changed.
  if (auto convert = dyn_cast<arith::FPToSIOp>(op); convert && element.isInteger(32))
    if (auto round = convert.getIn().getDefiningOp<math::RoundEvenOp>(); round && !buffers.contains(round)) {
      Value value = eval(round.getOperand(), index, lanes);
      return b.create<LLVM::LrintOp>(vectorOf(element, lanes), value);
    }
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

// A float that all elements of a value are, as long as it is no NaN.
static bool isNumber(Value value) {
  if (auto splat = value.getDefiningOp<tensor::SplatOp>())
    value = splat.getInput();
  FloatAttr scalar;
  DenseElementsAttr dense;
  if (matchPattern(value, m_Constant(&scalar)))
    return !scalar.getValue().isNaN();
  return matchPattern(value, m_Constant(&dense)) && dense.isSplat() && isa<FloatType>(dense.getElementType()) &&
         !dense.getSplatValue<APFloat>().isNaN();
}

// One scalar or vector op from evaluated operands.
Value TileEmitter::evalOp(Operation &op, ArrayRef<Value> operands, int64_t lanes) {
  Type element = getElementTypeOrSelf(op.getResult(0).getType());
  if (auto extend = dyn_cast<arith::ExtFOp>(op))
    return emitExtend(operands[0], getElementTypeOrSelf(extend.getIn().getType()).isBF16());
  if (isa<arith::TruncFOp>(op))
    return emitTruncate(operands[0], element.isBF16());
  if (auto exp2 = dyn_cast<math::Exp2Op>(op))
    return emitExp2(operands[0], arith::bitEnumContainsAny(exp2.getFastmath(), arith::FastMathFlags::afn));
  if (isa<math::Log2Op>(op))
    return emitLog2(operands[0]);
  if (isa<math::RoundEvenOp>(op) && !level.hasRound)
    return emitRoundEven(b, operands[0]);
  // Beside a constant a NaN of the other operand loses the comparison, as it has to: one instruction instead of three.
  if (isa<arith::MinNumFOp, arith::MaxNumFOp>(op) && isNumber(op.getOperand(1))) {
    auto predicate = isa<arith::MinNumFOp>(op) ? arith::CmpFPredicate::OLT : arith::CmpFPredicate::OGT;
    Value first = b.create<arith::CmpFOp>(predicate, operands[0], operands[1]);
    return b.create<arith::SelectOp>(first, operands[0], operands[1]);
  }
  OperationState state(b.getLoc(), op.getName());
  state.addOperands(operands);
  state.addTypes(vectorOf(scalarType(element), lanes));
  state.addAttributes(op.getAttrs());
  return b.create(state)->getResult(0);
}

void TileEmitter::writeInto(Value tile, const Buffer &target) {
  bool conversion = isa_and_present<arith::ExtFOp>(tile.getDefiningOp()); // less work than the loop around it
  forEachVector(target.shape, conversion, [&](ArrayRef<Value> index, int64_t lanes) {
    Value linear = constant(0);
    for (auto [i, extent] : llvm::enumerate(target.shape))
      linear = i == 0 ? index[0] : add(mul(linear, extent), index[i]);
    prefetchTurn(tile.getDefiningOp(), div(linear, lanes));
    Value value = eval(tile, index, lanes);
    storeVector(value, address(target.ptr, target.element, linear));
  });
}

LogicalResult TileEmitter::materialize(Value tile) {
  auto type = cast<RankedTensorType>(tile.getType());
  if (type.getElementType().isInteger(1))
    return emitError(b.getLoc(), "a mask cannot be kept as a tile; keep the values it is computed from");
  Buffer buffer = allocate(type.getShape(), type.getElementType());
  if (auto reductions = reductionsBesides(tile); !reductions.empty())
    writeReduced(tile, buffer, reductions,
                 [&](Value row, Value column, int64_t lanes) { return eval(tile, {row, column}, lanes); });
  else
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
