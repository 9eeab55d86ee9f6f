// SPDX-License-Identifier: Apache-2.0
//
// Loads and stores of tile programs.

#include "codegen/cpu/TileEmitter.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::cpu;

void TileEmitter::copyRun(Value from, Value to, Type element, int64_t count) {
  int64_t lanes = lanesFor(count), step = unrolled(count, lanes);
  loop(0, count, step, [&](Value first) {
    for (int64_t done = 0; done < step; done += lanes) {
      Value i = add(first, constant(done));
      storeVector(loadVector(address(from, element, i), element, lanes), address(to, element, i));
    }
  });
}

void TileEmitter::zeroRun(Value to, Type element, int64_t count) {
  int64_t lanes = lanesFor(count);
  Type type = vectorOf(storage(element), lanes);
  Value zero = isa<FloatType>(storage(element)) ? splat(type, 0.0) : splatInt(type, 0);
  loop(0, count, lanes, [&](Value i) { storeVector(zero, address(to, element, i)); });
}

// A load may stand for the memory itself, without a copy, when nothing is stored between it and its last use.
bool TileEmitter::canAlias(tile::LoadOp op) {
  Operation *last = op;
  for (Operation *user : op->getUsers()) {
    Operation *ancestor = op->getBlock()->findAncestorOpInBlock(*user);
    // A lazy user is evaluated later, at its own users; follow those too.
    SmallVector<Operation *> work = {user};
    while (!work.empty()) {
      Operation *next = work.pop_back_val();
      ancestor = op->getBlock()->findAncestorOpInBlock(*next);
      if (!ancestor)
        return false;
      if (last->isBeforeInBlock(ancestor))
        last = ancestor;
      if (next->getNumResults() == 1 && isa<RankedTensorType>(next->getResult(0).getType()) &&
          isLazy(next->getResult(0)))
        llvm::append_range(work, next->getUsers());
    }
  }
  for (Operation *at = op->getNextNode(); at && at != last->getNextNode(); at = at->getNextNode()) {
    bool stores =
        at->walk([](Operation *inner) {
            return isa<tile::StoreOp, tile::StoreCodesOp>(inner) ? WalkResult::interrupt() : WalkResult::advance();
          }).wasInterrupted();
    if (stores)
      return false;
  }
  return true;
}

LogicalResult TileEmitter::emitLoad(tile::LoadOp op) {
  Value ptr = scalars.lookup(op.getPtr());
  auto offsets = dyn_cast<RankedTensorType>(op.getOffset().getType());
  auto type = dyn_cast<RankedTensorType>(op.getResult().getType());
  Type element = getElementTypeOrSelf(op.getResult().getType());

  if (!type) { // a scalar
    Value at = address(ptr, element, scalars.lookup(op.getOffset()));
    if (!op.getMask()) {
      scalars.map(op.getResult(), loadVector(at, element, 1));
      return success();
    }
    auto branch = b.create<scf::IfOp>(TypeRange(storage(element)), scalars.lookup(op.getMask()), true, true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToEnd(&branch.getThenRegion().front());
    b.create<scf::YieldOp>(loadVector(at, element, 1));
    b.setInsertionPointToEnd(&branch.getElseRegion().front());
    Type stored = storage(element);
    b.create<scf::YieldOp>(isa<FloatType>(stored) ? splat(stored, 0.0) : splatInt(stored, 0));
    scalars.map(op.getResult(), branch.getResult(0));
    return success();
  }

  int64_t rows = offsets ? offsets.getDimSize(0) : 1;
  int64_t run = offsets && type.getRank() == 1 ? 1 : type.getShape().back();
  auto offsetOf = [&](Value row) { return offsets ? eval(op.getOffset(), {row}, 1) : scalars.lookup(op.getOffset()); };
  if (rows == 1 && !op.getMask() && canAlias(op)) {
    Value at = address(ptr, element, offsetOf(constant(0)));
    buffers[op.getResult()] = {at, SmallVector<int64_t>(type.getShape()), element};
    return success();
  }
  // Rows that are only converted to f32 are read where they lie.
  bool converted = llvm::all_of(op->getUsers(), llvm::IsaPred<arith::ExtFOp>);
  if (offsets && type.getRank() == 2 && !op.getMask() && converted && canAlias(op)) {
    if (!buffers.contains(op.getOffset()) && failed(materialize(op.getOffset())))
      return failure();
    Value places = buffers.lookup(op.getOffset()).ptr;
    buffers[op.getResult()] = {ptr, SmallVector<int64_t>(type.getShape()), element, places};
    return success();
  }
  Buffer buffer = allocate(type.getShape(), element);
  buffers[op.getResult()] = buffer;
  if (auto reductions = reductionsBesides(op.getResult()); !reductions.empty() && offsets && !op.getMask()) {
    writeReduced(op.getResult(), buffer, reductions, [&](Value row, Value column, int64_t lanes) {
      return loadVector(address(ptr, element, add(offsetOf(row), column)), element, lanes);
    });
    return success();
  }
  loop(0, rows, 1, [&](Value row) {
    Value to = address(buffer.ptr, element, mul(row, run));
    if (!op.getMask())
      return copyRun(address(ptr, element, offsetOf(row)), to, element, run);
    Value valid = offsets ? eval(op.getMask(), {row}, 1) : scalars.lookup(op.getMask());
    auto branch = b.create<scf::IfOp>(valid, /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(&branch.getThenRegion().front());
    copyRun(address(ptr, element, offsetOf(row)), to, element, run);
    b.setInsertionPointToStart(&branch.getElseRegion().front());
    zeroRun(to, element, run);
  });
  return success();
}

LogicalResult TileEmitter::emitStore(tile::StoreOp op) {
  Value ptr = scalars.lookup(op.getPtr());
  auto offsets = dyn_cast<RankedTensorType>(op.getOffset().getType());
  auto type = dyn_cast<RankedTensorType>(op.getValue().getType());
  Type element = getElementTypeOrSelf(op.getValue().getType());
  int64_t rows = offsets ? offsets.getDimSize(0) : 1;
  int64_t run = !type || (offsets && type.getRank() == 1) ? 1 : type.getShape().back();
  int64_t lanes = lanesFor(run);
  auto storeRow = [&](Value row) {
    Value offset = offsets ? eval(op.getOffset(), {row}, 1) : scalars.lookup(op.getOffset());
    Value to = address(ptr, element, offset);
    if (!type)
      return storeVector(scalars.lookup(op.getValue()), to);
    loop(0, run, lanes, [&](Value i) {
      SmallVector<Value> index;
      if (offsets)
        index.push_back(row);
      if (!offsets || type.getRank() == 2)
        index.push_back(i);
      storeVector(eval(op.getValue(), index, lanes), address(to, element, i));
    });
  };
  loop(0, rows, 1, [&](Value row) {
    if (!op.getMask())
      return storeRow(row);
    Value valid = offsets ? eval(op.getMask(), {row}, 1) : scalars.lookup(op.getMask());
    auto branch = b.create<scf::IfOp>(valid, /*withElseRegion=*/false);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(&branch.getThenRegion().front());
    storeRow(row);
  });
  return success();
}
