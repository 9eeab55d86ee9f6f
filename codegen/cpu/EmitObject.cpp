// SPDX-License-Identifier: Apache-2.0
//
// LLVM behind the CPU target.

#include "codegen/cpu/EmitObject.h"

#include "codegen/EmitLLVM.h"

#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Object/ObjectFile.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

#include <mutex>

using namespace mlir::kvq;
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

llvm::Expected<std::unique_ptr<llvm::Module>> mlir::kvq::cpu::translateToLLVM(ModuleOp source, const CpuLevel &level,
                                                                              llvm::LLVMContext &context) {
  auto machine = createMachine(level);
  if (!machine)
    return machine.takeError();
  auto module = translateModule(source, **machine, context);
  if (!module)
    return module;
  if (machineLevel(level).arch == Arch::X86) { // vectors as wide as the level's
    std::string bits = std::to_string(machineLevel(level).lanes * 32);
    for (llvm::Function &function : **module)
      if (!function.isDeclaration()) {
        function.addFnAttr("prefer-vector-width", bits);
        function.addFnAttr("min-legal-vector-width", bits);
      }
  }
  optimizeModule(**module, **machine);
  return module;
}

static llvm::Expected<std::string> emitLevel(llvm::Module &module, const CpuLevel &level, llvm::CodeGenFileType kind) {
  auto machine = createMachine(level);
  if (!machine)
    return machine.takeError();
  return emitFile(module, **machine, kind);
}

llvm::Expected<std::string> mlir::kvq::cpu::emitAssembly(llvm::Module &module, const CpuLevel &level) {
  return emitLevel(module, level, llvm::CodeGenFileType::AssemblyFile);
}

llvm::Expected<std::string> mlir::kvq::cpu::emitObject(llvm::Module &module, const CpuLevel &level) {
  auto bytes = emitLevel(module, level, llvm::CodeGenFileType::ObjectFile);
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
