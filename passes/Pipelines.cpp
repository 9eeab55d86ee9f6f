// SPDX-License-Identifier: Apache-2.0
//
// Phases and their passes.

#include "passes/Pipelines.h"

#include "mlir/Transforms/Passes.h"

using namespace mlir;

void mlir::kvq::buildFusedPipeline(OpPassManager &manager, const TargetModel &target) {
  manager.addPass(createKvqFusePacked());
  manager.addPass(createKvqFoldPack());
  KvqAttachScheduleOptions options;
  options.laneRegisters = target.laneRegisters;
  options.bitsAhead = target.bitsAhead;
  options.warps = target.warps;
  manager.addPass(createKvqAttachSchedule(options));
}

void mlir::kvq::buildTilePipeline(OpPassManager &manager, const TargetModel &target) {
  KvqExpandOptions options;
  options.coefficients = target.coefficients;
  options.laneRegisters = target.laneRegisters;
  options.bitsAhead = target.bitsAhead;
  options.warps = target.warps;
  manager.addPass(createKvqExpand(options));
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
}

void mlir::kvq::buildFoldedPipeline(OpPassManager &manager, const TargetModel &target) {
  KvqTileFoldScalesOptions options;
  options.coefficients = target.coefficients;
  manager.addPass(createKvqTileFoldScales(options));
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
  manager.addPass(createKvqVerifyTiles());
}
