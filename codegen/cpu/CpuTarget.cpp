// SPDX-License-Identifier: Apache-2.0
//
// CPU levels as targets: native vectors, the llvm dialect, LLVM IR, assembly, an ELF object.

#include "codegen/EmitLLVM.h"
#include "codegen/Target.h"
#include "codegen/cpu/EmitObject.h"
#include "codegen/cpu/Passes.h"

#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Transforms/Utils/Cloning.h"

#include <map>

using namespace mlir;
using namespace mlir::kvq;

static constexpr PhaseInfo kPassPhases[] = {
    {"vector", "native vectors in rolled loops"},
    {"llvm", "the llvm dialect"},
};
static constexpr PhaseInfo kEmitPhases[] = {
    {"llvm-ir", "LLVM IR after optimization"},
    {"assembly", "the processor's instructions as text"},
    {"object", "an ELF relocatable object", /*isText=*/false},
};

namespace {

class CpuTarget final : public mlir::kvq::Target {
public:
  explicit CpuTarget(const cpu::CpuLevel &level) : level(level) {}
  std::string name() const override { return level.name; }
  llvm::ArrayRef<PhaseInfo> passPhases() const override { return kPassPhases; }
  llvm::ArrayRef<PhaseInfo> emitPhases() const override { return kEmitPhases; }

  TargetModel model() const override {
    TargetModel model;
    model.accumulators = level.accumulators;
    return model;
  }
  void buildPhase(OpPassManager &manager, StringRef phase) const override {
    if (phase == "vector")
      cpu::buildVectorPipeline(manager, level.name);
    else
      cpu::buildLLVMPipeline(manager);
  }

  llvm::Error emit(ModuleOp source, PhaseSink &sink) const override {
    llvm::LLVMContext context;
    auto module = cpu::translateToLLVM(source, level, context);
    if (!module)
      return module.takeError();
    if (!handOnIR(sink, **module))
      return llvm::Error::success();
    if (sink.wants("assembly")) { // of a copy: emitting changes the module
      auto assembly = cpu::emitAssembly(*llvm::CloneModule(**module), level);
      if (!assembly)
        return assembly.takeError();
      if (!sink.handOn("assembly", std::move(*assembly)))
        return llvm::Error::success();
    }
    auto object = cpu::emitObject(**module, level);
    if (!object)
      return object.takeError();
    sink.handOn("object", std::move(*object));
    return llvm::Error::success();
  }

private:
  const cpu::CpuLevel &level;
};

} // namespace

const mlir::kvq::Target *cpu::targetOf(const CpuLevel &level) {
  static const std::map<StringRef, CpuTarget> targets = [] {
    std::map<StringRef, CpuTarget> result;
    for (const CpuLevel &plain : allLevels())
      for (const CpuLevel *each : {&plain, findLevel(plain.name + "@host")})
        result.try_emplace(each->name, *each);
    return result;
  }();
  return &targets.at(level.name);
}
