// SPDX-License-Identifier: Apache-2.0
//
// Phases and their passes.

#include "passes/Pipelines.h"

#include "mlir/Transforms/Passes.h"

using namespace mlir;

void mlir::kvq::buildFusedPipeline(OpPassManager &manager) {
  manager.addPass(createKvqFusePacked());
  manager.addPass(createKvqFoldPack());
  manager.addPass(createKvqAttachSchedule());
}

void mlir::kvq::buildTilePipeline(OpPassManager &manager, Coefficients coefficients) {
  KvqExpandOptions options;
  options.coefficients = coefficients;
  manager.addPass(createKvqExpand(options));
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
}

void mlir::kvq::buildFoldedPipeline(OpPassManager &manager, Coefficients coefficients) {
  KvqTileFoldScalesOptions options;
  options.coefficients = coefficients;
  manager.addPass(createKvqTileFoldScales(options));
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
  manager.addPass(createKvqVerifyTiles());
}
