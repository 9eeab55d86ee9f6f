// SPDX-License-Identifier: Apache-2.0
//
// Passes and the pipeline of the CPU target: tile programs to the llvm dialect.
#pragma once

#include "codegen/cpu/Target.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::kvq::cpu {

#define GEN_PASS_DECL
#include "codegen/cpu/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "codegen/cpu/Passes.h.inc"

// kvq-cpu-lower-tiles for a level of that name and clean-up: the phase "vector".
void buildVectorPipeline(OpPassManager &pm, StringRef level);
// From there to the llvm dialect, verified: the phase "llvm".
void buildLLVMPipeline(OpPassManager &pm);
// The two as named pipelines for the command line: kvq-cpu-vector (option level) and kvq-cpu-to-llvm.
void registerPipelines();

} // namespace mlir::kvq::cpu
