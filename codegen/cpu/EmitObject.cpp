// SPDX-License-Identifier: Apache-2.0
//
// LLVM behind the CPU target.

#include "codegen/cpu/EmitObject.h"

#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/Analysis/TargetLibraryInfo.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Object/ObjectFile.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

#include <mutex>

using namespace mlir::kvq::cpu;

// The level whose processor the machine code is for: a spelled-out level's is this host's best.
static const CpuLevel &machineLevel(const CpuLevel &level) { return level.spelledOut ? *hostLevels().back() : level; }

static llvm::Expected<std::unique_ptr<llvm::TargetMachine>> createMachine(const CpuLevel &wanted) {
  static std::once_flag once;
  std::call_once(once, [] {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
  });
  const CpuLevel &level = machineLevel(wanted);
  llvm::Triple triple(level.arch == Arch::AArch64 ? "aarch64-unknown-linux-gnu" : "x86_64-unknown-linux-gnu");
  std::string error;
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(triple, error);
  if (!target)
    return llvm::createStringError("no back end for level " + level.name + " is linked in here; kvqc has all of them");
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Standard; // fuses what says so (llvm.fmuladd), nothing else
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(triple, level.cpu, level.features, options,
                                                                          llvm::Reloc::PIC_, llvm::CodeModel::Small,
                                                                          llvm::CodeGenOptLevel::Default));
}

// What every function of an object must know: no calls to the C library (a loop must not become memcpy), vectors as
// wide as the level's, no unwind tables.
static void setAttributes(llvm::Module &module, const CpuLevel &level) {
  const CpuLevel &machine = machineLevel(level);
  std::string bits = std::to_string(machine.lanes * 32);
  for (llvm::Function &function : module) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("no-builtins");
    function.addFnAttr("target-cpu", machine.cpu);
    if (!machine.features.empty())
      function.addFnAttr("target-features", machine.features);
    if (machine.arch == Arch::X86) {
      function.addFnAttr("prefer-vector-width", bits);
      function.addFnAttr("min-legal-vector-width", bits);
    }
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }
}

llvm::Expected<std::unique_ptr<llvm::Module>> mlir::kvq::cpu::translateToLLVM(ModuleOp source, const CpuLevel &level,
                                                                              llvm::LLVMContext &context) {
  mlir::registerBuiltinDialectTranslation(*source->getContext());
  mlir::registerLLVMDialectTranslation(*source->getContext());
  std::unique_ptr<llvm::Module> module = mlir::translateModuleToLLVMIR(source, context, "kvq");
  if (!module)
    return llvm::createStringError("translation to LLVM IR failed");
  auto machine = createMachine(level);
  if (!machine)
    return machine.takeError();
  module->setTargetTriple((*machine)->getTargetTriple());
  module->setDataLayout((*machine)->createDataLayout());
  setAttributes(*module, level);
  // The emitter has already chosen vectors and unrolling; LLVM's own would only cost compile time and code size.
  llvm::PipelineTuningOptions tuning;
  tuning.LoopVectorization = false;
  tuning.SLPVectorization = false;
  tuning.LoopUnrolling = false;
  tuning.LoopInterleaving = false;
  llvm::LoopAnalysisManager lam;
  llvm::FunctionAnalysisManager fam;
  llvm::CGSCCAnalysisManager cgam;
  llvm::ModuleAnalysisManager mam;
  llvm::PassBuilder builder(machine->get(), tuning);
  builder.registerModuleAnalyses(mam);
  builder.registerCGSCCAnalyses(cgam);
  builder.registerFunctionAnalyses(fam);
  builder.registerLoopAnalyses(lam);
  builder.crossRegisterProxies(lam, fam, cgam, mam);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O2).run(*module, mam);
  return module;
}

static llvm::Expected<std::string> emitFile(llvm::Module &module, const CpuLevel &level, llvm::CodeGenFileType kind) {
  auto machine = createMachine(level);
  if (!machine)
    return machine.takeError();
  llvm::SmallString<0> buffer;
  llvm::raw_svector_ostream stream(buffer);
  llvm::legacy::PassManager pm;
  if ((*machine)->addPassesToEmitFile(pm, stream, nullptr, kind))
    return llvm::createStringError("this LLVM cannot emit x86-64 files");
  pm.run(module);
  return std::string(buffer.str());
}

llvm::Expected<std::string> mlir::kvq::cpu::emitAssembly(llvm::Module &module, const CpuLevel &level) {
  return emitFile(module, level, llvm::CodeGenFileType::AssemblyFile);
}

llvm::Expected<std::string> mlir::kvq::cpu::emitObject(llvm::Module &module, const CpuLevel &level) {
  auto bytes = emitFile(module, level, llvm::CodeGenFileType::ObjectFile);
  if (!bytes)
    return bytes;
  auto object = llvm::object::ObjectFile::createObjectFile(llvm::MemoryBufferRef(*bytes, "kvq"));
  if (!object)
    return object.takeError();
  for (const llvm::object::SymbolRef &symbol : (*object)->symbols()) {
    auto flags = symbol.getFlags();
    if (!flags)
      return flags.takeError();
    auto name = symbol.getName();
    if (!name)
      return name.takeError();
    if ((*flags & llvm::object::SymbolRef::SF_Undefined) && !name->empty())
      return llvm::createStringError("the object would call '" + name->str() +
                                     "'; an op of the kernel has no lowering on level " + level.name);
  }
  return bytes;
}
