// SPDX-License-Identifier: Apache-2.0
//
// What the drivers for IR text share: the layers below kvq.
#pragma once

#include "codegen/Passes.h"
#include "codegen/cpu/Passes.h"
#include "codegen/nvptx/Passes.h"
#include "dialect/tile/Tile.h"
#include "passes/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "mlir/Transforms/Passes.h"

namespace mlir::kvq {

// The tile dialect, what is below it, and the passes that begin there.
inline void registerTileLayer(DialectRegistry &registry) {
  registry.insert<arith::ArithDialect, cf::ControlFlowDialect, func::FuncDialect, LLVM::LLVMDialect, math::MathDialect,
                  memref::MemRefDialect, scf::SCFDialect, tensor::TensorDialect, vector::VectorDialect,
                  tile::KvqTileDialect>();
  registerKvqTileFoldScales();
  nvptx::registerDialects(registry);
  registerKvqVerifyTiles();
  registerKvqCodegenPasses();
  cpu::registerKvqCpuPasses();
  cpu::registerPipelines();
  nvptx::registerKvqNvptxPasses();
  nvptx::registerPipelines();
  registerTransformsPasses();
}

} // namespace mlir::kvq
