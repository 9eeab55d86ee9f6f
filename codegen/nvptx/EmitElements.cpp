// SPDX-License-Identifier: Apache-2.0
//
// Constants, elementwise ops, broadcasts and reductions.

#include "codegen/nvptx/LaneEmitter.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::RegisterFile;
using tile::TileBit;

LogicalResult LaneEmitter::emitConstant(arith::ConstantOp op) {
  auto elements = dyn_cast<DenseElementsAttr>(op.getValue());
  RegisterFile file = fileOf(op.getResult());
  bool sharesLanes = llvm::any_of(file.layout().lane, [](TileBit bit) { return !bit.isNone(); });
  if (!elements || (!elements.isSplat() && (sharesLanes || !file.layout().pair.isNone())))
    return op.emitOpError("has no lowering to lanes of a warp: a constant tile is written with dense<...> and has one "
                          "value; make others with kvq_tile.iota");
  Registers values;
  auto all = elements.getValues<TypedAttr>();
  for (int64_t number = 0; number < file.count(); ++number) {
    int64_t at = 0;
    for (auto [index, extent] : llvm::zip(file.base(number), file.shape()))
      at = at * extent + index;
    TypedAttr value = all[elements.isSplat() ? 0 : at];
    Type type = registerType(op.getType());
    if (auto vector = dyn_cast<VectorType>(type))
      value = DenseElementsAttr::get(vector, value);
    values.push_back(arith::ConstantOp::create(b, type, value));
  }
  registers[op.getResult()] = std::move(values);
  return success();
}

void LaneEmitter::emitSplat(tensor::SplatOp op) {
  Value scalar = scalarOf(op.getInput());
  Value value = isa<VectorType>(registerType(op.getType())) ? pair(scalar, scalar) : scalar;
  registers[op.getResult()].assign(static_cast<size_t>(fileOf(op.getResult()).count()), value);
}

void LaneEmitter::emitIota(tile::IotaOp op) {
  RegisterFile file = fileOf(op.getResult());
  Type element = getElementTypeOrSelf(op.getType());
  Registers values;
  for (int64_t number = 0; number < file.count(); ++number) {
    Value value = b.createOrFold<arith::AddIOp>(laneOffset(file.layout(), 0), constant(file.base(number)[0]));
    values.push_back(element.isIndex() ? value : b.createOrFold<arith::IndexCastOp>(element, value));
  }
  registers[op.getResult()] = std::move(values);
}

LogicalResult LaneEmitter::emitElementwise(Operation &op) {
  if (op.getNumResults() != 1)
    return op.emitOpError("has no lowering to lanes of a warp: it makes more than one tile");
  Value result = op.getResult(0);
  Type type = registerType(result.getType());
  int64_t count = fileOf(result).count();
  Registers values;
  for (int64_t number = 0; number < count; ++number) {
    SmallVector<Value> operands;
    for (Value operand : op.getOperands())
      operands.push_back(isa<RankedTensorType>(operand.getType()) ? registersOf(operand)[number] : scalarOf(operand));
    OperationState state(op.getLoc(), op.getName().getIdentifier(), operands, type, op.getAttrs());
    state.propertiesAttr = op.getPropertiesAsAttribute();
    values.push_back(b.create(state)->getResult(0));
  }
  registers[result] = std::move(values);
  return success();
}

// at(index) for this lane, whose own bits of some dimensions are in no register of `at`: where they decide what it
// gives, the lane chooses.
Value LaneEmitter::byLanes(const tile::LaneLayout &lanes, ArrayRef<int> dims, SmallVector<int64_t> index,
                           function_ref<Value(ArrayRef<int64_t>)> at) {
  SmallVector<int> deciding;
  for (int bit = 0; bit < tile::LaneLayout::kLaneBits; ++bit)
    if (!lanes.lane[bit].isNone() && llvm::is_contained(dims, lanes.lane[bit].dim))
      deciding.push_back(bit);
  SmallVector<Value> candidates;
  for (int64_t choice = 0; choice < int64_t(1) << deciding.size(); ++choice) {
    SmallVector<int64_t> here = index;
    for (size_t i = 0; i < deciding.size(); ++i)
      if (TileBit bit = lanes.lane[deciding[i]]; choice >> i & 1)
        here[bit.dim] |= int64_t(1) << bit.bit;
    candidates.push_back(at(here));
  }
  for (int bit : deciding) {
    SmallVector<Value> chosen;
    for (size_t i = 0; i < candidates.size(); i += 2)
      chosen.push_back(candidates[i] == candidates[i + 1]
                           ? candidates[i]
                           : arith::SelectOp::create(b, laneBit(bit), candidates[i + 1], candidates[i]).getResult());
    candidates = std::move(chosen);
  }
  return candidates.front();
}

void LaneEmitter::emitBroadcast(tile::BroadcastOp op) {
  RegisterFile from = fileOf(op.getSource()), to = fileOf(op.getResult());
  const Registers source = registersOf(op.getSource());
  SmallVector<int> ragged; // dimensions along which lanes of one register may need different elements
  for (auto [i, dim] : llvm::enumerate(op.getDims()))
    if (from.shape()[i] > 1 && !llvm::isPowerOf2_64(to.shape()[dim] / from.shape()[i]))
      ragged.push_back(static_cast<int>(dim));
  auto sourceAt = [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> at;
    for (auto [i, dim] : llvm::enumerate(op.getDims()))
      at.push_back(index[dim] / (to.shape()[dim] / from.shape()[i]));
    return source[from.find(at)];
  };
  Registers values;
  for (int64_t number = 0; number < to.count(); ++number) {
    SmallVector<int64_t> index = to.base(number);
    Value low = byLanes(to.layout(), ragged, index, sourceAt);
    if (TileBit bit = to.layout().pair; !bit.isNone() && !isa<VectorType>(low.getType())) {
      index[bit.dim] |= int64_t(1) << bit.bit;
      low = pair(low, byLanes(to.layout(), ragged, index, sourceAt));
    }
    values.push_back(low);
  }
  registers[op.getResult()] = std::move(values);
}

// ---- reductions ----

Value LaneEmitter::combine(tile::ReduceKind kind, Value a, Value c) {
  bool isFloat = isa<FloatType>(a.getType());
  switch (kind) {
  case tile::ReduceKind::Max:
    return isFloat ? arith::MaxNumFOp::create(b, a, c).getResult() : arith::MaxSIOp::create(b, a, c).getResult();
  case tile::ReduceKind::Min:
    return isFloat ? arith::MinNumFOp::create(b, a, c).getResult() : arith::MinSIOp::create(b, a, c).getResult();
  case tile::ReduceKind::Add:
    return isFloat ? arith::AddFOp::create(b, a, c).getResult() : arith::AddIOp::create(b, a, c).getResult();
  }
  llvm_unreachable("all kinds are handled");
}

// The registers of a lane alone. One that is null takes no part.
LaneEmitter::Registers LaneEmitter::reduced(tile::ReduceKind kind, ArrayRef<Value> source, const RegisterFile &from,
                                            const RegisterFile &to, int dim) {
  Registers values(static_cast<size_t>(to.count()));
  for (int64_t number = 0; number < from.count(); ++number) {
    SmallVector<int64_t> index = from.base(number);
    index.erase(index.begin() + dim);
    Value &value = values[to.find(index)];
    if (source[number])
      value = value ? combine(kind, value, source[number]) : source[number];
  }
  return values;
}

// First the registers of a lane, then one exchange for each lane bit that selects the dimension.
void LaneEmitter::emitReduce(tile::ReduceOp op) {
  RegisterFile from = fileOf(op.getSource());
  int dim = static_cast<int>(op.getDim());
  bool isScalar = !isa<RankedTensorType>(op.getResult().getType());
  RegisterFile to = isScalar ? RegisterFile({}, tile::LaneLayout()) : fileOf(op.getResult());
  Registers values;
  if (auto found = unscaled.find(op.getSource()); found != unscaled.end())
    values = largestOf(found->second, from, to, dim);
  else
    values = reduced(op.getKind(), registersOf(op.getSource()), from, to, dim);
  for (int bit = 0; bit < tile::LaneLayout::kLaneBits; ++bit)
    if (from.layout().lane[bit].dim == dim)
      for (Value &value : values)
        value = combine(op.getKind(), value, shuffle("bfly", value, constant32(1 << bit)));
  if (isScalar)
    scalars.map(op.getResult(), uniform(values.front()));
  else
    registers[op.getResult()] = std::move(values);
}
