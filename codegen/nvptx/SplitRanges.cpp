// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-split-ranges: the largest of a tile's parameters is found among copies of its own.

#include "codegen/nvptx/Passes.h"
#include "dialect/tile/Tile.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_SPLITRANGESPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;
using namespace mlir::kvq;

// Whether products take the elements, as values or as scales of their coefficients.
static bool isForProducts(Value tile) {
  return llvm::any_of(tile.getUsers(), [&](Operation *user) {
    if (auto dot = dyn_cast<tile::DotOp>(user))
      return dot.getX() == tile;
    if (auto coeff = dyn_cast<tile::CoeffOp>(user))
      return coeff.getScale() == tile;
    return OpTrait::hasElementwiseMappableTraits(user) && user->getNumResults() == 1 &&
           isForProducts(user->getResult(0));
  });
}

// What makes the reduction's tile out of loads, element by element, in an order in which each op follows its operands;
// nothing where something else does. Constants and masks are among it: through them both would get one layout.
static SmallVector<Operation *> madeOf(tile::ReduceOp reduce) {
  SetVector<Operation *> own, outside; // of the reduction's block and of others
  SmallVector<Value> open = {reduce.getSource()};
  while (!open.empty()) {
    Operation *op = open.pop_back_val().getDefiningOp();
    if (isa_and_present<arith::ConstantOp, tensor::SplatOp, tile::BroadcastOp>(op)) {
      (op->getBlock() == reduce->getBlock() ? own : outside).insert(op);
      continue;
    }
    bool isLoad = isa_and_present<tile::LoadOp>(op);
    if (!op || op->getBlock() != reduce->getBlock() || (!isLoad && !OpTrait::hasElementwiseMappableTraits(op)))
      return {};
    if (own.insert(op) && !isLoad)
      llvm::append_range(open, op->getOperands());
  }
  SmallVector<Operation *> ordered = own.takeVector();
  llvm::sort(ordered, [](Operation *a, Operation *c) { return a->isBeforeInBlock(c); });
  ordered.insert(ordered.begin(), outside.begin(), outside.end());
  return ordered;
}

namespace {

struct SplitRanges : mlir::kvq::nvptx::impl::SplitRangesPassBase<SplitRanges> {
  void runOnOperation() override {
    SmallVector<tile::ReduceOp> reductions;
    getOperation().walk([&](tile::ReduceOp reduce) { reductions.push_back(reduce); });
    for (tile::ReduceOp reduce : reductions)
      split(reduce);
  }

  static void split(tile::ReduceOp reduce) {
    SmallVector<Operation *> ops = madeOf(reduce);
    if (llvm::none_of(ops, [](Operation *op) { return isa<tile::LoadOp>(op) && isForProducts(op->getResult(0)); }))
      return;
    OpBuilder b(reduce);
    IRMapping copies;
    for (Operation *op : ops)
      b.clone(*op, copies);
    reduce.getSourceMutable().set(copies.lookup(reduce.getSource()));
    for (Operation *op : llvm::reverse(ops))
      if (op->use_empty())
        op->erase();
  }
};

} // namespace
