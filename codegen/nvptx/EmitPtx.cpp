// SPDX-License-Identifier: Apache-2.0
//
// LLVM behind the NVIDIA target.

#include "codegen/nvptx/EmitPtx.h"

#include "codegen/EmitLLVM.h"
#include "codegen/Target.h"

#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Target/TargetMachine.h"

#include <mutex>

using namespace mlir::kvq;

extern "C" void LLVMInitializeNVPTXTargetInfo();
extern "C" void LLVMInitializeNVPTXTarget();
extern "C" void LLVMInitializeNVPTXTargetMC();
extern "C" void LLVMInitializeNVPTXAsmPrinter();

static llvm::Expected<std::unique_ptr<llvm::TargetMachine>> createMachine(const nvptx::Processor &processor) {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
  });
  llvm::Triple triple("nvptx64-nvidia-cuda");
  std::string error;
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(triple, error);
  if (!target)
    return llvm::createStringError("no back end for nvptx64 is linked in here: " + error);
  llvm::TargetOptions options;
  // Fuses what says so (llvm.fmuladd, the flag contract) and marks everything else .rn, which ptxas leaves alone.
  options.AllowFPOpFusion = llvm::FPOpFusion::Standard;
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(
      triple, processor.name(), "+ptx" + std::to_string(processor.ptxVersion), options, llvm::Reloc::Static,
      /*CM=*/std::nullopt, llvm::CodeGenOptLevel::Default));
}

// Why the module is not one kernel that stands alone; empty where it is. Intrinsics are declarations, but no symbols.
static std::string checkKernel(const llvm::Module &module) {
  const llvm::Function *entry = module.getFunction(kEntryName);
  if (!entry || entry->isDeclaration() || entry->getCallingConv() != llvm::CallingConv::PTX_Kernel)
    return "the module has no kernel kvq_entry; give the function of that name the attribute nvvm.kernel";
  for (const llvm::Function &function : module)
    if (function.isDeclaration() && !function.isIntrinsic() && !function.use_empty())
      return "the PTX would call '" + function.getName().str() + "', which no GPU has; use ops that have a lowering";
  return "";
}

llvm::Expected<std::unique_ptr<llvm::Module>>
mlir::kvq::nvptx::translateToLLVM(ModuleOp source, const Processor &processor, llvm::LLVMContext &context) {
  mlir::registerNVVMDialectTranslation(*source->getContext());
  auto machine = createMachine(processor);
  if (!machine)
    return machine.takeError();
  auto module = translateModule(source, **machine, context);
  if (!module)
    return module;
  if (std::string why = checkKernel(**module); !why.empty())
    return llvm::createStringError(why);
  optimizeModule(**module, **machine);
  return module;
}

llvm::Expected<std::string> mlir::kvq::nvptx::emitPtx(llvm::Module &module, const Processor &processor) {
  auto machine = createMachine(processor);
  if (!machine)
    return machine.takeError();
  return emitFile(module, **machine, llvm::CodeGenFileType::AssemblyFile);
}
