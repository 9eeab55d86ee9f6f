// SPDX-License-Identifier: Apache-2.0
//
// The llvm and nvvm dialects to LLVM IR and PTX text.
#pragma once

#include "codegen/nvptx/NvptxTarget.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>

namespace llvm {
class LLVMContext;
class Module;
} // namespace llvm

namespace mlir::kvq::nvptx {

// Optimized LLVM IR of a module in the llvm and nvvm dialects. Its kernel is the function kvq_entry with the attribute
// nvvm.kernel; nvvm.reqntid, nvvm.maxntid, nvvm.minctasm and nvvm.maxnreg become directives. `context` must outlive the
// result. Fails when something is called that is not in the module.
llvm::Expected<std::unique_ptr<llvm::Module>> translateToLLVM(ModuleOp module, const Processor &processor,
                                                              llvm::LLVMContext &context);
// PTX text with one entry and no call. Changes the module.
llvm::Expected<std::string> emitPtx(llvm::Module &module, const Processor &processor);

} // namespace mlir::kvq::nvptx
