// SPDX-License-Identifier: Apache-2.0
//
// LLVM behind the NVIDIA target.

#include "codegen/nvptx/EmitPtx.h"

#include "codegen/EmitLLVM.h"
#include "codegen/Target.h"
#include "codegen/nvptx/ParkValues.h"
#include "codegen/nvptx/ShareHalves.h"

#include <kvq/compiler_plugin.h>

#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "llvm/IR/Intrinsics.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Target/TargetMachine.h"

#include <mutex>

using namespace mlir::kvq;

extern "C" void LLVMInitializeNVPTXTargetInfo();
extern "C" void LLVMInitializeNVPTXTarget();
extern "C" void LLVMInitializeNVPTXTargetMC();
extern "C" void LLVMInitializeNVPTXAsmPrinter();

// Not -O2: its vector-combine takes loads of vectors apart, and what it makes of them is no longer known to be of
// memory that does not change (ld.global.nc).
static constexpr llvm::StringLiteral kPasses =
    "function(early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(licm<allowspeculation>),gvn,"
    "instcombine<no-verify-fixpoint>,simplifycfg,adce)";

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

// Functions that are intrinsics of LLVM and no instruction of a GPU: the back end would end the process.
static bool hasInstruction(const llvm::Function &intrinsic) {
  switch (intrinsic.getIntrinsicID()) {
  case llvm::Intrinsic::exp2:
    return !intrinsic.getReturnType()->getScalarType()->isDoubleTy();
  case llvm::Intrinsic::acos:
  case llvm::Intrinsic::asin:
  case llvm::Intrinsic::atan:
  case llvm::Intrinsic::atan2:
  case llvm::Intrinsic::cos:
  case llvm::Intrinsic::cosh:
  case llvm::Intrinsic::exp:
  case llvm::Intrinsic::exp10:
  case llvm::Intrinsic::log:
  case llvm::Intrinsic::log10:
  case llvm::Intrinsic::log2:
  case llvm::Intrinsic::pow:
  case llvm::Intrinsic::sin:
  case llvm::Intrinsic::sincos:
  case llvm::Intrinsic::sinh:
  case llvm::Intrinsic::tan:
  case llvm::Intrinsic::tanh:
    return false;
  default:
    return true;
  }
}

// Why the module is not one kernel that stands alone; empty where it is. Intrinsics are declarations, but no symbols.
static std::string checkKernel(const llvm::Module &module) {
  const llvm::Function *entry = module.getFunction(kEntryName);
  if (!entry || entry->isDeclaration() || entry->getCallingConv() != llvm::CallingConv::PTX_Kernel)
    return "the module has no kernel kvq_entry; give the function of that name the attribute nvvm.kernel";
  for (const llvm::Function &function : module)
    if (function.isDeclaration() && !function.use_empty() && function.getName() != KVQ_SCORE_HOOK &&
        !(function.isIntrinsic() && hasInstruction(function)))
      return "the PTX would call '" + function.getName().str() + "', which no GPU has; use ops that have a lowering";
  return "";
}

// Threads of a kernel's blocks along x and y where they are known and there are no others; else 0.
static std::array<int64_t, 2> threadsOf(const llvm::Function &kernel) {
  llvm::SmallVector<llvm::StringRef> extents;
  kernel.getFnAttribute("nvvm.reqntid").getValueAsString().split(extents, ',');
  std::array<int64_t, 3> threads = {0, 1, 1};
  for (auto [i, extent] : llvm::enumerate(extents))
    if (i >= threads.size() || extent.getAsInteger(10, threads[i]))
      return {};
  return threads[2] == 1 ? std::array{threads[0], threads[1]} : std::array<int64_t, 2>();
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
  optimizeModule(**module, **machine, kPasses);
  if (std::string why = checkKernel(**module); !why.empty())
    return llvm::createStringError(why);
  llvm::Function &kernel = *(*module)->getFunction(kEntryName);
  if (auto [x, y] = threadsOf(kernel); x > 0) {
    shareHalves(kernel);
    parkValues(kernel, x, y);
  }
  return module;
}

// Why the text is not one entry that calls nothing but a score function; empty where it is. A call can be of an
// address, or of a function of the module that was not inlined.
static std::string checkPtx(llvm::StringRef ptx) {
  if (!ptx.contains(".visible .entry kvq_entry(") || ptx.count(".entry ") != 1)
    return "the PTX has " + std::to_string(ptx.count(".entry ")) + " entries; a module holds one kernel, kvq_entry";
  for (llvm::StringRef line : llvm::split(ptx, '\n')) {
    llvm::StringRef text = line.ltrim();
    bool isCall = text.starts_with(".extern .func") || text.starts_with("call");
    if (isCall && !text.contains(KVQ_SCORE_HOOK))
      return "the PTX would call a function, and a kernel calls nothing: " + text.rtrim().str();
  }
  return "";
}

llvm::Expected<std::string> mlir::kvq::nvptx::emitPtx(llvm::Module &module, const Processor &processor) {
  auto machine = createMachine(processor);
  if (!machine)
    return machine.takeError();
  auto ptx = emitFile(module, **machine, llvm::CodeGenFileType::AssemblyFile);
  if (ptx)
    if (std::string why = checkPtx(*ptx); !why.empty())
      return llvm::createStringError(why);
  return ptx;
}
