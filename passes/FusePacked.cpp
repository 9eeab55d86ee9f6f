// SPDX-License-Identifier: Apache-2.0
//
// kvq-fuse-packed: attention on K and V that were only just made dense reads what they were made from. It does not
// choose how a kernel runs.

#include "dialect/kvq/Kvq.h"
#include "passes/Passes.h"

#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::kvq {
#define GEN_PASS_DEF_KVQFUSEPACKED
#include "passes/Passes.h.inc"
} // namespace mlir::kvq

using namespace mlir;
using namespace mlir::kvq;

namespace {

// Whether an op between the two, which stand in one block in this order, may write memory. An op that does not tell
// its effects may.
bool mayWriteBetween(Operation *first, Operation *last) {
  for (Operation *op = first->getNextNode(); op && op != last; op = op->getNextNode()) {
    auto effects = getEffectsRecursively(op);
    if (!effects || llvm::any_of(*effects, [](const MemoryEffects::EffectInstance &effect) {
          return isa<MemoryEffects::Write, MemoryEffects::Free>(effect.getEffect());
        }))
      return true;
  }
  return false;
}

void replaceKeys(AttentionOp op, Value key, Value value, PatternRewriter &rewriter) {
  rewriter.modifyOpInPlace(op, [&] {
    op.getKeyMutable().assign(key);
    op.getValueMutable().assign(value ? ValueRange(value) : ValueRange());
  });
}

struct FuseRead : OpRewritePattern<AttentionOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(AttentionOp op, PatternRewriter &rewriter) const override {
    auto read = op.getKey().getDefiningOp<ReadOp>();
    if (!read || op.getKey() != read.getK() || op.getValue() != read.getV() || read->getBlock() != op->getBlock())
      return rewriter.notifyMatchFailure(op, "K and V are not those of one kvq.read in the same block");
    ProblemAttr problem = read.getCache().getType().getProblem();
    auto q = cast<RankedTensorType>(op.getQ().getType());
    bool heads = q.isDynamicDim(1) || q.getDimSize(1) % problem.getRatio() == 0;
    if (q.getElementType() != problem.getType() || !heads)
      return rewriter.notifyMatchFailure(op, "the queries do not fit the cache's problem");
    if (bool(op.getWindow()) != problem.getWindow() || bool(op.getScoreCap()) != problem.getScoreCap())
      return rewriter.notifyMatchFailure(op, "a window or a score cap is not as the cache's problem says");
    if (!op.getBoundsAttr() || !op.getBoundsAttr().getCausal())
      return rewriter.notifyMatchFailure(op, "the queries see later keys than a cache shows them");
    if (mayWriteBetween(read, op))
      return rewriter.notifyMatchFailure(op, "the cache may change between the read and the attention");
    replaceKeys(op, read.getCache(), Value(), rewriter);
    return success();
  }
};

struct FuseDequantize : OpRewritePattern<AttentionOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(AttentionOp op, PatternRewriter &rewriter) const override {
    if (!op.getValue())
      return rewriter.notifyMatchFailure(op, "K and V already are a cache");
    auto k = op.getKey().getDefiningOp<DequantizeOp>(), v = op.getValue().getDefiningOp<DequantizeOp>();
    if (!k || !v || !k.getPackedType() || !v.getPackedType())
      return rewriter.notifyMatchFailure(op, "K and V are not two dequantized packed matrices");
    for (DequantizeOp source : {k, v})
      if (!getElementTypeOrSelf(source.getValues()).isF32())
        return rewriter.notifyMatchFailure(op, "K or V was rounded to 16 bits");
    replaceKeys(op, k.getSource(), v.getSource(), rewriter);
    return success();
  }
};

struct FusePacked : mlir::kvq::impl::KvqFusePackedBase<FusePacked> {
  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    patterns.add<FuseRead, FuseDequantize>(&getContext());
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};

} // namespace
