// SPDX-License-Identifier: Apache-2.0
//
// The NVIDIA pipeline, in one place.

#include "codegen/Passes.h"
#include "codegen/nvptx/Passes.h"

#include "mlir/Conversion/NVVMToLLVM/NVVMToLLVM.h"
#include "mlir/Conversion/Passes.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

void mlir::kvq::nvptx::registerDialects(DialectRegistry &registry) { registry.insert<NVVM::NVVMDialect>(); }

void mlir::kvq::nvptx::buildLayoutsPipeline(OpPassManager &pm) {
  // Layouts begin at products, so what these multiply is settled first: halves, or f32 as two of them.
  pm.addPass(createHalfOperandsPass());
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  pm.addPass(createSplitRangesPass()); // a reduction's own loads get a layout of their own
  pm.addPass(createAssignLayoutsPass());
  pm.addPass(createCSEPass()); // tiles that were made again twice
  pm.addPass(createSinkConversionsPass());
  pm.addPass(createPriceConversionsPass()); // `kvqc --compile-to=layouts` shows them
}

void mlir::kvq::nvptx::buildLanesPipeline(OpPassManager &pm, int64_t sm, UnpackForm form) {
  LowerTilesPassOptions options;
  options.sm = sm;
  options.unpack = form;
  // One rule an op (LaneEmitter): scalars and registers of a lane, mma.sync, shuffles, loads in the order of pages.
  pm.addPass(createLowerTilesPass(options));
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
}

void mlir::kvq::nvptx::buildLLVMPipeline(OpPassManager &pm) {
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  pm.addPass(createLoopInvariantCodeMotionPass()); // while loops are still scf.for
  pm.addPass(createLowerMathPass());
  pm.addPass(createSCFToControlFlowPass());
  pm.addPass(createConvertVectorToLLVMPass());
  pm.addPass(createConvertMathToLLVMPass());
  pm.addPass(createArithToLLVMConversionPass());
  pm.addPass(createConvertIndexToLLVMPass()); // 64 bits, as offsets in the kernel ABI
  pm.addPass(createConvertFuncToLLVMPass());
  pm.addPass(createConvertControlFlowToLLVMPass());
  pm.addPass(createConvertNVVMToLLVMPass()); // nvvm ops that are inline PTX; the others LLVM has intrinsics for
  pm.addPass(createReconcileUnrealizedCastsPass());
  pm.addPass(createCSEPass());
  // Anything that has no lowering is refused here, with its name.
  VerifyLLVMPassOptions options;
  options.also = {NVVM::NVVMDialect::getDialectNamespace().str()};
  pm.addPass(createVerifyLLVMPass(options));
}

void mlir::kvq::nvptx::registerPipelines() {
  struct ProcessorOption : PassPipelineOptions<ProcessorOption> {
    Option<int64_t> sm{*this, "sm", llvm::cl::desc("processor"), llvm::cl::init(80)};
    Option<UnpackForm> unpack{
        *this, "unpack", llvm::cl::desc("how codes become halves"), llvm::cl::init(UnpackForm::Subnormal),
        llvm::cl::values(clEnumValN(UnpackForm::Subnormal, "subnormal", "as subnormal numbers"),
                         clEnumValN(UnpackForm::Magic, "magic", "as the low bits of 1024 + code"))};
  };
  PassPipelineRegistration<ProcessorOption>(
      "kvq-nvptx-lanes", "Tile programs to registers of lanes",
      [](OpPassManager &pm, const ProcessorOption &options) { buildLanesPipeline(pm, options.sm, options.unpack); });
  PassPipelineRegistration<>("kvq-nvptx-to-llvm", "Registers of lanes to the llvm and nvvm dialects",
                             [](OpPassManager &pm) { buildLLVMPipeline(pm); });
}
