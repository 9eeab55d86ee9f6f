// SPDX-License-Identifier: Apache-2.0
//
// Tiles that wait: registers of scales are made where coefficients need them, and those of loads under a mask where
// products do, one by one. Those of all groups or of a whole tile at once would not fit the registers, and what is made
// early stays there: neither LLVM nor ptxas moves a load down.

#include "codegen/nvptx/Access.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::RegisterFile;

// A product of all elements with one number.
static bool isScaling(Operation *op) {
  auto mul = dyn_cast<arith::MulFOp>(op);
  return mul && mul.getRhs().getDefiningOp<tensor::SplatOp>();
}

// Whether each register of the op's tile can be made by itself, at any place behind the op in its block.
static bool isMadeByRegister(Operation *op, function_ref<bool(Value)> isReadOnly) {
  if (auto load = dyn_cast<tile::LoadOp>(op))
    return isReadOnly(load.getPtr());
  if (auto convert = dyn_cast<tile::ConvertOp>(op)) {
    auto source = tile::getLanes(convert.getSource().getType()), target = tile::getLanes(convert.getType());
    return source->sameLanes(*target) || isTransposition(*source, *target);
  }
  return isa<arith::SelectOp, arith::ExtFOp, arith::TruncFOp>(op) || isScaling(op);
}

// Loaded under a mask, perhaps as elements of another type, or brought to a range.
static bool isLoadedLate(Operation *op) {
  Operation *origin = originOf(op->getResult(0));
  auto load = dyn_cast_if_present<tile::LoadOp>(origin);
  return load ? load.getMask() != nullptr : origin && isScaling(origin);
}

// Whether coefficients of the op's block, or under a mask also products, are all that its tile is for.
bool LaneEmitter::canWait(Operation *op) {
  if (op->getNumResults() != 1 || !isa<RankedTensorType>(op->getResult(0).getType()) ||
      !isMadeByRegister(op, [&](Value ptr) { return isReadOnly(ptr); }))
    return false;
  return llvm::all_of(op->getUsers(), [&](Operation *user) {
    if (user->getBlock() != op->getBlock())
      return false;
    if (auto dot = dyn_cast<tile::DotOp>(user); dot && isLoadedLate(op))
      return dot.getCoeff() != op->getResult(0) && dot.getAcc() != op->getResult(0) && usesTensorCores(dot);
    auto coeff = dyn_cast<tile::CoeffOp>(user);
    return coeff ? coeff.getScale() == op->getResult(0) : canWait(user);
  });
}

void LaneEmitter::wait(Operation *op) {
  Value tile = op->getResult(0);
  registers[tile].resize(static_cast<size_t>(fileOf(tile).count()));
  waiting.insert(tile);
}

// A register of a tile, which may have waited for this.
Value LaneEmitter::registerOf(Value tile, int64_t number) {
  if (Value made = registersOf(tile)[number]; made || !waiting.contains(tile))
    return made;
  Operation *op = tile.getDefiningOp();
  if (auto load = dyn_cast<tile::LoadOp>(op)) {
    makeLoaded(load, number);
    return registersOf(tile)[number];
  }
  Value value;
  if (auto convert = dyn_cast<tile::ConvertOp>(op)) {
    value = makeConverted(convert, number);
  } else {
    SmallVector<Value> operands;
    for (Value operand : op->getOperands())
      operands.push_back(isa<RankedTensorType>(operand.getType()) ? registerOf(operand, number) : scalarOf(operand));
    value = b.create(op->getLoc(), op->getName().getIdentifier(), operands, registerType(tile.getType()))->getResult(0);
  }
  return registers[tile][number] = value;
}

Value LaneEmitter::elementOf(Value tile, ArrayRef<int64_t> index) {
  RegisterFile file = fileOf(tile);
  Value value = registerOf(tile, file.find(index));
  tile::TileBit bit = file.layout().pair;
  return isa<VectorType>(value.getType()) ? half(value, index[bit.dim] >> bit.bit & 1) : value;
}

// Its register out of those of the source: single elements become pairs, or the reverse, or pairs of another direction.
Value LaneEmitter::makeConverted(tile::ConvertOp op, int64_t number) {
  RegisterFile source = fileOf(op.getSource()), target = fileOf(op.getResult());
  SmallVector<int64_t> index = target.base(number);
  bool isOther = isTransposition(source.layout(), target.layout());
  if (isOther && !source.layout().pair.isNone())
    return transposed(registerOf(op.getSource(), source.find(index)));
  Value low = elementOf(op.getSource(), index);
  tile::TileBit bit = isOther ? target.layout().lane[2] : target.layout().pair;
  if (bit.isNone())
    return low;
  index[bit.dim] |= int64_t(1) << bit.bit;
  Value both = pair(low, elementOf(op.getSource(), index));
  return isOther ? transposed(both) : both;
}

// A run that contains an index; zeros where its mask is not set.
LaneEmitter::Registers LaneEmitter::loadRunIf(const Access &access, SmallVector<int64_t> index,
                                              ArrayRef<int64_t> numbers) {
  if (access.masks.empty())
    return loadRun(access, numbers);
  if (access.runs)
    index.pop_back();
  Value mask = access.masks[access.offsetFile ? access.offsetFile->find(index) : 0];
  size_t count = access.filledBy(numbers).size();
  SmallVector<Type> types(count, access.filledType());
  auto branch = scf::IfOp::create(b, types, mask, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(branch.thenBlock());
  scf::YieldOp::create(b, loadRun(access, numbers));
  b.setInsertionPointToStart(branch.elseBlock());
  scf::YieldOp::create(b, SmallVector<Value>(count, zeroOf(access.filledType())));
  return Registers(branch.getResults());
}

// Everything that comes with a register in one access.
void LaneEmitter::makeLoaded(tile::LoadOp op, int64_t number) {
  Value tile = op.getResult();
  Access access = accessOf(op.getPtr(), op.getOffset(), op.getMask(), cast<RankedTensorType>(tile.getType()));
  SmallVector<int64_t> first = access.file.base(number);
  tile::TileBit bit = access.file.layout().pair;
  auto run = [&](SmallVector<int64_t> index) {
    int64_t begin = index.back() / access.run * access.run;
    SmallVector<int64_t> numbers;
    for (int64_t i = 0; i < access.run; ++i) {
      index.back() = begin + i;
      numbers.push_back(access.elements.find(index));
    }
    return std::pair(numbers, loadRunIf(access, index, numbers));
  };
  if (access.inPairs) {
    auto [numbers, values] = run(first);
    for (auto [filled, value] : llvm::zip(access.filledBy(numbers), values))
      registers[tile][filled] = value;
    return;
  }
  DenseMap<int64_t, Value> loaded;
  auto add = [&](SmallVector<int64_t> index) {
    auto [numbers, values] = run(index);
    for (auto [element, value] : llvm::zip(numbers, values))
      loaded[element] = value;
  };
  add(first);
  if (!bit.isNone() && !loaded.contains(partner(access, first))) {
    SmallVector<int64_t> second = first;
    second[bit.dim] |= int64_t(1) << bit.bit;
    add(second);
  }
  for (auto [element, value] : loaded) {
    SmallVector<int64_t> index = access.elements.base(element);
    Value &target = registers[tile][access.file.find(index)];
    if (bit.isNone()) {
      target = value;
      continue;
    }
    if (index[bit.dim] >> bit.bit & 1 || target)
      continue;
    if (auto other = loaded.find(partner(access, index)); other != loaded.end())
      target = pair(value, other->second);
  }
}

// The register of the element whose pair bit is set.
int64_t LaneEmitter::partner(const Access &access, SmallVector<int64_t> index) {
  tile::TileBit bit = access.file.layout().pair;
  index[bit.dim] |= int64_t(1) << bit.bit;
  return access.elements.find(index);
}
