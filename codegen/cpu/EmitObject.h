// SPDX-License-Identifier: Apache-2.0
//
// The llvm dialect to LLVM IR, assembly and a relocatable object for a CPU level; and running an object in process.
#pragma once

#include "codegen/cpu/Target.h"
#include "kvq/kernel_abi.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>

namespace llvm {
class LLVMContext;
class Module;
namespace orc {
class LLJIT;
}
} // namespace llvm

namespace mlir::kvq::cpu {

// Optimized LLVM IR of a module in the llvm dialect. `context` must outlive the result.
llvm::Expected<std::unique_ptr<llvm::Module>> translateToLLVM(ModuleOp module, const CpuLevel &level,
                                                              llvm::LLVMContext &context);
llvm::Expected<std::string> emitAssembly(llvm::Module &module, const CpuLevel &level);
// An ELF object. Fails when it has an undefined symbol: kernels call nothing.
llvm::Expected<std::string> emitObject(llvm::Module &module, const CpuLevel &level);

// An object made executable in this process by ORC. For the compiler's own tests and tools; the runtime loads objects
// without LLVM.
class LoadedObject {
public:
  static llvm::Expected<LoadedObject> load(llvm::StringRef object, llvm::StringRef entry);
  kvq_kernel_fn function() const { return fn; }
  LoadedObject(LoadedObject &&);
  ~LoadedObject();

private:
  LoadedObject(std::unique_ptr<llvm::orc::LLJIT> jit, kvq_kernel_fn fn);
  std::unique_ptr<llvm::orc::LLJIT> jit;
  kvq_kernel_fn fn;
};

} // namespace mlir::kvq::cpu
