// SPDX-License-Identifier: Apache-2.0
//
// kvq-fold-pack: runs the folds of kvq.pack and kvq.unpack (dialect/kvq/KvqOps.cpp) and removes what they leave unused.

#include "dialect/kvq/Kvq.h"
#include "passes/Passes.h"

namespace mlir::kvq {
#define GEN_PASS_DEF_KVQFOLDPACK
#include "passes/Passes.h.inc"
} // namespace mlir::kvq

using namespace mlir;
using namespace mlir::kvq;

namespace {

struct FoldPack : mlir::kvq::impl::KvqFoldPackBase<FoldPack> {
  void runOnOperation() override {
    SmallVector<Operation *> folded;
    getOperation()->walk([&](Operation *op) {
      SmallVector<OpFoldResult, 1> results;
      if (!isa<PackOp, UnpackOp>(op) || failed(op->fold(results)) || results.empty())
        return;
      op->getResult(0).replaceAllUsesWith(cast<Value>(results.front()));
      folded.push_back(op);
    });
    for (Operation *op : folded) {
      Operation *producer = op->getOperand(0).getDefiningOp();
      op->erase();
      if (isOpTriviallyDead(producer))
        producer->erase();
    }
  }
};

} // namespace
