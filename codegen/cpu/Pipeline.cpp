// SPDX-License-Identifier: Apache-2.0
//
// The CPU pipeline, in one place.

#include "codegen/Passes.h"
#include "codegen/TileKernel.h"
#include "codegen/cpu/Passes.h"
#include "codegen/cpu/TileEmitter.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;
using namespace mlir::kvq;

namespace mlir::kvq::cpu {
#define GEN_PASS_DEF_LOWERTILESPASS
#include "codegen/cpu/Passes.h.inc"
} // namespace mlir::kvq::cpu

using namespace mlir::kvq::cpu;

namespace {

// math.fma (also the polynomials' own) as fmuladd: without FMA on the level it is two operations, never a call.
struct FmaToMulAdd : OpRewritePattern<math::FmaOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(math::FmaOp op, PatternRewriter &rewriter) const override {
    rewriter.replaceOpWithNewOp<LLVM::FMulAddOp>(op, op.getA(), op.getB(), op.getC());
    return success();
  }
};

// math.floor for levels without roundps: the nearest integer, less one where that is above x.
struct FloorWithoutRound : OpRewritePattern<math::FloorOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(math::FloorOp op, PatternRewriter &rewriter) const override {
    ImplicitLocOpBuilder b(op.getLoc(), rewriter);
    Value x = op.getOperand(), nearest = emitRoundEven(b, x);
    TypedAttr one = b.getF32FloatAttr(1.0f);
    if (auto vector = dyn_cast<VectorType>(x.getType()))
      one = DenseElementsAttr::get(vector, one);
    Value lower = b.create<arith::SubFOp>(nearest, b.create<arith::ConstantOp>(one));
    Value above = b.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, nearest, x);
    rewriter.replaceOpWithNewOp<arith::SelectOp>(op, above, lower, nearest);
    return success();
  }
};

struct LowerTiles : mlir::kvq::cpu::impl::LowerTilesPassBase<LowerTiles> {
  using LowerTilesPassBase::LowerTilesPassBase;

  void runOnOperation() override {
    const CpuLevel *target = findLevel(level);
    if (!target) {
      getOperation().emitError("unknown CPU level \"") << level << "\"; use one of " << levelNames();
      return signalPassFailure();
    }
    FailureOr<func::FuncOp> kernel = findTileKernel(getOperation());
    if (failed(kernel))
      return signalPassFailure();
    if (failed(checkTiles(*kernel)) || failed(TileEmitter(*kernel, *target).emit()))
      return signalPassFailure();
    kernel->erase();
    // tanh, exp, log and the like from a score region, as polynomials: an object may not call libm.
    RewritePatternSet patterns(&getContext());
    MathPolynomialApproximationOptions options;
    populateMathPolynomialApproximationPatterns(patterns, options);
    patterns.add<FmaToMulAdd>(&getContext());
    if (!target->hasRound)
      patterns.add<FloorWithoutRound>(&getContext());
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};

} // namespace

void mlir::kvq::cpu::buildVectorPipeline(OpPassManager &pm, StringRef level) {
  LowerTilesPassOptions options;
  options.level = level.str();
  pm.addPass(createLowerTilesPass(options));
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
}

void mlir::kvq::cpu::buildLLVMPipeline(OpPassManager &pm) {
  pm.addPass(createLoopInvariantCodeMotionPass());
  pm.addPass(createSCFToControlFlowPass());
  ConvertVectorToLLVMPassOptions vectorOptions;
  vectorOptions.reassociateFPReductions = true; // otherwise a sum of lanes is a chain of 16 additions
  pm.addPass(createConvertVectorToLLVMPass(vectorOptions));
  pm.addPass(createConvertMathToLLVMPass());
  pm.addPass(createArithToLLVMConversionPass());
  pm.addPass(createConvertIndexToLLVMPass());
  pm.addPass(createConvertFuncToLLVMPass());
  pm.addPass(createConvertControlFlowToLLVMPass());
  pm.addPass(createReconcileUnrealizedCastsPass());
  pm.addPass(createCSEPass());
  pm.addPass(createVerifyLLVMPass());
}

void mlir::kvq::cpu::registerPipelines() {
  struct LevelOption : PassPipelineOptions<LevelOption> {
    Option<std::string> level{*this, "level", llvm::cl::desc("CPU level"), llvm::cl::init("x86-64")};
  };
  PassPipelineRegistration<LevelOption>(
      "kvq-cpu-vector", "Tile programs to native vectors",
      [](OpPassManager &pm, const LevelOption &options) { buildVectorPipeline(pm, options.level); });
  PassPipelineRegistration<>("kvq-cpu-to-llvm", "Native vectors to the llvm dialect",
                             [](OpPassManager &pm) { buildLLVMPipeline(pm); });
}
