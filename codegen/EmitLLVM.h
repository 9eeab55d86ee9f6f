// SPDX-License-Identifier: Apache-2.0
//
// What targets share between the llvm dialect and LLVM's output.
#pragma once

#include "codegen/Target.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/CodeGen.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>

namespace llvm {
class LLVMContext;
class Module;
class TargetMachine;
} // namespace llvm

namespace mlir::kvq {

// LLVM IR of a module in the llvm dialect and those whose translation is registered, for that machine. Functions call
// nothing of the C library (a loop must not become memcpy). `context` must outlive the result.
llvm::Expected<std::unique_ptr<llvm::Module>> translateModule(ModuleOp source, llvm::TargetMachine &machine,
                                                              llvm::LLVMContext &context);
// The default pipeline of -O2 without vectorizing and unrolling: kernels come with both already chosen, and LLVM's own
// would only cost compile time and code size.
void optimizeModule(llvm::Module &module, llvm::TargetMachine &machine);
// The text of a module as phase "llvm-ir", where the sink asks for it. False when nobody wants what follows.
bool handOnIR(PhaseSink &sink, const llvm::Module &module);
// The passes of a text as `opt -passes` takes it.
void optimizeModule(llvm::Module &module, llvm::TargetMachine &machine, llvm::StringRef passes);
// What the machine's back end writes, text or an object. Changes the module.
llvm::Expected<std::string> emitFile(llvm::Module &module, llvm::TargetMachine &machine, llvm::CodeGenFileType kind);

} // namespace mlir::kvq
