// SPDX-License-Identifier: Apache-2.0
//
// LLVM behind every target.

#include "codegen/EmitLLVM.h"

#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/Analysis/TargetLibraryInfo.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Target/TargetMachine.h"

using namespace mlir;

llvm::Expected<std::unique_ptr<llvm::Module>> mlir::kvq::translateModule(ModuleOp source, llvm::TargetMachine &machine,
                                                                         llvm::LLVMContext &context) {
  registerBuiltinDialectTranslation(*source->getContext());
  registerLLVMDialectTranslation(*source->getContext());
  std::unique_ptr<llvm::Module> module = translateModuleToLLVMIR(source, context, "kvq");
  if (!module)
    return llvm::createStringError("translation to LLVM IR failed");
  module->setTargetTriple(machine.getTargetTriple());
  module->setDataLayout(machine.createDataLayout());
  for (llvm::Function &function : *module) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("no-builtins");
    function.addFnAttr("target-cpu", machine.getTargetCPU());
    if (!machine.getTargetFeatureString().empty())
      function.addFnAttr("target-features", machine.getTargetFeatureString());
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }
  return module;
}

static void runPasses(llvm::Module &module, llvm::TargetMachine &machine,
                      llvm::function_ref<void(llvm::PassBuilder &, llvm::ModulePassManager &)> build) {
  llvm::PipelineTuningOptions tuning;
  tuning.LoopVectorization = false;
  tuning.SLPVectorization = false;
  tuning.LoopUnrolling = false;
  tuning.LoopInterleaving = false;
  llvm::LoopAnalysisManager lam;
  llvm::FunctionAnalysisManager fam;
  llvm::CGSCCAnalysisManager cgam;
  llvm::ModuleAnalysisManager mam;
  llvm::PassBuilder builder(&machine, tuning);
  builder.registerModuleAnalyses(mam);
  builder.registerCGSCCAnalyses(cgam);
  builder.registerFunctionAnalyses(fam);
  builder.registerLoopAnalyses(lam);
  builder.crossRegisterProxies(lam, fam, cgam, mam);
  llvm::ModulePassManager passes;
  build(builder, passes);
  passes.run(module, mam);
}

void mlir::kvq::optimizeModule(llvm::Module &module, llvm::TargetMachine &machine) {
  runPasses(module, machine, [](llvm::PassBuilder &builder, llvm::ModulePassManager &passes) {
    passes = builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O2);
  });
}

void mlir::kvq::optimizeModule(llvm::Module &module, llvm::TargetMachine &machine, llvm::StringRef text) {
  runPasses(module, machine, [text](llvm::PassBuilder &builder, llvm::ModulePassManager &passes) {
    llvm::cantFail(builder.parsePassPipeline(passes, text)); // a constant of the target's
  });
}

bool mlir::kvq::handOnIR(PhaseSink &sink, const llvm::Module &module) {
  if (!sink.wants("llvm-ir"))
    return true;
  std::string text;
  llvm::raw_string_ostream os(text);
  module.print(os, nullptr);
  return sink.handOn("llvm-ir", std::move(text));
}

llvm::Expected<std::string> mlir::kvq::emitFile(llvm::Module &module, llvm::TargetMachine &machine,
                                                llvm::CodeGenFileType kind) {
  llvm::SmallString<0> buffer;
  llvm::raw_svector_ostream stream(buffer);
  llvm::legacy::PassManager pm;
  if (machine.addPassesToEmitFile(pm, stream, nullptr, kind))
    return llvm::createStringError("this LLVM cannot emit files for " + machine.getTargetTriple().str());
  pm.run(module);
  return std::string(buffer.str());
}
