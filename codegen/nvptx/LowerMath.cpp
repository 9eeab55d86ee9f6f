// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-lower-math: math functions without a call.

#include "codegen/nvptx/Passes.h"

#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_LOWERMATHPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;

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

struct LowerMath : mlir::kvq::nvptx::impl::LowerMathPassBase<LowerMath> {
  using LowerMathPassBase::LowerMathPassBase;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    patterns.add<ToIntrinsic<math::Exp2Op>>(&getContext(), "llvm.nvvm.ex2.approx.ftz.f");
    patterns.add<ToIntrinsic<math::Log2Op>>(&getContext(), "llvm.nvvm.lg2.approx.ftz.f");
    populateMathPolynomialApproximationPatterns(patterns, MathPolynomialApproximationOptions());
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};

} // namespace
