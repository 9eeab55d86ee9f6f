// SPDX-License-Identifier: Apache-2.0
//
// Passes of the NVIDIA target.

#ifndef KVQ_CODEGEN_NVPTX_PASSES_TD
#define KVQ_CODEGEN_NVPTX_PASSES_TD

include "mlir/Pass/PassBase.td"

def LowerTilesPass : Pass<"kvq-nvptx-lower-tiles", "::mlir::ModuleOp"> {
  let summary = "Distribute tile programs over the lanes of a warp";
  let description = [{
    Replaces each kernel (a function with `kvq_tile.kernel`) by `kvq_entry`, in which every tile is the registers that
    one lane has of it.

    Precondition: kvq-verify-tiles. Not this pass's job: conversion to the llvm dialect (kvq-nvptx-to-llvm).
  }];
  let options = [Option<"sm", "sm", "int64_t", "80", "processor to lower for: 80, 86, 89, 90, 100 or 120">];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect",
                           "::mlir::LLVM::LLVMDialect", "::mlir::NVVM::NVVMDialect", "::mlir::func::FuncDialect",
                           "::mlir::math::MathDialect"];
}

def LowerMathPass : Pass<"kvq-nvptx-lower-math", "::mlir::ModuleOp"> {
  let summary = "Math functions as instructions of the GPU or polynomials";
  let description = [{
    `math.exp2` and `math.log2` of f32 become `ex2.approx.ftz` and `lg2.approx.ftz`; other functions that have no
    instruction become polynomials: PTX may not call a library.

    Not this pass's job: functions that are one instruction after conversion to the llvm dialect (`math.sqrt`).
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::vector::VectorDialect", "::mlir::LLVM::LLVMDialect",
                           "::mlir::math::MathDialect"];
}

#endif
