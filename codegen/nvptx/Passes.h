// SPDX-License-Identifier: Apache-2.0
//
// Passes and the pipeline of the NVIDIA target: tile programs to the llvm and nvvm dialects.
#pragma once

#include "codegen/nvptx/NvptxTarget.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::kvq::nvptx {

#define GEN_PASS_DECL
#include "codegen/nvptx/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "codegen/nvptx/Passes.h.inc"

// Halves as operands, then a lane layout for every tile: the phase "layouts".
void buildLayoutsPipeline(OpPassManager &pm);
// kvq-nvptx-lower-tiles for a processor and clean-up: the phase "lanes".
void buildLanesPipeline(OpPassManager &pm, int64_t sm, UnpackForm form);
// From there to the llvm and nvvm dialects, verified: the phase "llvm".
void buildLLVMPipeline(OpPassManager &pm);
// The two as named pipelines for the command line: kvq-nvptx-lanes (options sm, unpack) and kvq-nvptx-to-llvm.
void registerPipelines();
// The nvvm dialect, with what its conversion needs.
void registerDialects(DialectRegistry &registry);

} // namespace mlir::kvq::nvptx
