// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-lower-math: math functions without a call, and the one function that is called.

#include "codegen/nvptx/Passes.h"
#include "dialect/tile/Tile.h"
#include <kvq/compiler_plugin.h>

#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_LOWERMATHPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;
using namespace mlir::kvq;

namespace {

// A function of one f32 that is one instruction. With .ftz subnormal arguments and results are zero; without it the
// back end scales around the instruction, for differences that no sum sees.
template <typename Op> struct ToIntrinsic : OpRewritePattern<Op> {
  ToIntrinsic(MLIRContext *context, StringRef intrinsic)
      : OpRewritePattern<Op>(context, /*benefit=*/2), intrinsic(intrinsic) {}

  LogicalResult matchAndRewrite(Op op, PatternRewriter &rewriter) const override {
    if (!op.getType().isF32())
      return rewriter.notifyMatchFailure(op, "not a scalar f32");
    auto call = LLVM::CallIntrinsicOp::create(rewriter, op.getLoc(), op.getType(), rewriter.getStringAttr(intrinsic),
                                              ValueRange(op.getOperand()));
    rewriter.replaceOp(op, call.getResult(0));
    return success();
  }
  StringRef intrinsic;
};

// A call of a function that whoever asked for the PTX defines: without effects, so that what nobody needs is not
// called.
struct ToHook : OpRewritePattern<tile::ScoreHookOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(tile::ScoreHookOp op, PatternRewriter &rewriter) const override {
    auto function = SymbolTable::lookupNearestSymbolFrom<LLVM::LLVMFuncOp>(op, rewriter.getStringAttr(KVQ_SCORE_HOOK));
    if (!function || !op.getResult().getType().isF32())
      return rewriter.notifyMatchFailure(op, "not a scalar f32");
    rewriter.replaceOpWithNewOp<LLVM::CallOp>(op, function, op.getOperands());
    return success();
  }
};

void declareHook(ModuleOp module) {
  if (!module.walk([](tile::ScoreHookOp) { return WalkResult::interrupt(); }).wasInterrupted())
    return;
  OpBuilder builder = OpBuilder::atBlockBegin(module.getBody());
  Type number = builder.getI32Type(), score = builder.getF32Type();
  auto type = LLVM::LLVMFunctionType::get(score, {score, number, number, number, number});
  auto function = LLVM::LLVMFuncOp::create(builder, module.getLoc(), KVQ_SCORE_HOOK, type);
  auto none = LLVM::ModRefInfo::NoModRef;
  function.setMemoryEffectsAttr(builder.getAttr<LLVM::MemoryEffectsAttr>(none, none, none, none, none, none));
  function.setNoUnwind(true);
  function.setWillReturn(true);
}

struct LowerMath : mlir::kvq::nvptx::impl::LowerMathPassBase<LowerMath> {
  using LowerMathPassBase::LowerMathPassBase;

  void runOnOperation() override {
    declareHook(getOperation());
    RewritePatternSet patterns(&getContext());
    patterns.add<ToHook>(&getContext());
    patterns.add<ToIntrinsic<math::Exp2Op>>(&getContext(), "llvm.nvvm.ex2.approx.ftz.f");
    patterns.add<ToIntrinsic<math::Log2Op>>(&getContext(), "llvm.nvvm.lg2.approx.ftz.f");
    populateMathPolynomialApproximationPatterns(patterns, MathPolynomialApproximationOptions());
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};

} // namespace
