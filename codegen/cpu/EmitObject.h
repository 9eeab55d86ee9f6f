// SPDX-License-Identifier: Apache-2.0
//
// The llvm dialect to LLVM IR, assembly and a relocatable object for a CPU level.
#pragma once

#include "codegen/cpu/Target.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>

namespace llvm {
class LLVMContext;
class Module;
} // namespace llvm

namespace mlir::kvq::cpu {

// Optimized LLVM IR of a module in the llvm dialect. `context` must outlive the result.
llvm::Expected<std::unique_ptr<llvm::Module>> translateToLLVM(ModuleOp module, const CpuLevel &level,
                                                              llvm::LLVMContext &context);
llvm::Expected<std::string> emitAssembly(llvm::Module &module, const CpuLevel &level);
// An ELF object. Fails when it has an undefined symbol: kernels call nothing.
llvm::Expected<std::string> emitObject(llvm::Module &module, const CpuLevel &level);

} // namespace mlir::kvq::cpu
