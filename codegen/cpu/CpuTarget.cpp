// SPDX-License-Identifier: Apache-2.0
//
// CPU levels as targets: native vectors, the llvm dialect, LLVM IR, assembly, an ELF object.

#include "codegen/EmitLLVM.h"
#include "codegen/Target.h"
#include "codegen/cpu/EmitObject.h"
#include "codegen/cpu/Passes.h"
#include "codegen/cpu/RegisterTile.h"

#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Transforms/Utils/Cloning.h"

#include <map>
#include <set>

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

  llvm::SmallVector<::kvq::Schedule> scheduleVariants(const ::kvq::KernelRequest &request,
                                                      const ::kvq::Schedule &standard) const override;

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

// Limits of register tiles are told apart by the tiles that they lead to: those of scores, one column a token, and of
// the output, one a channel; packed operands may be cut once, those of the tail never are.
llvm::SmallVector<::kvq::Schedule> CpuTarget::scheduleVariants(const ::kvq::KernelRequest &request,
                                                               const ::kvq::Schedule &standard) const {
  const bool mayCut = request.accuracy != ::kvq::Accuracy::Full && level.integers != cpu::IntegerDot::Bytes;
  std::set<std::vector<std::pair<int64_t, int64_t>>> known;
  llvm::SmallVector<::kvq::Schedule> result;
  auto add = [&](int rows, int vectors) {
    std::vector<std::pair<int64_t, int64_t>> tiles;
    for (int64_t columns : {standard.tileTokens, request.dv})
      for (bool cuts : {false, mayCut})
        tiles.push_back(cpu::chooseRegisterTile(level, request.rows, columns / level.lanes, cuts, rows, vectors));
    if (!known.insert(tiles).second)
      return;
    for (int prefetch : {0, 1, 2, 4})
      result.push_back({standard.tileTokens, rows, vectors, prefetch});
  };
  add(standard.rows, standard.vectors);
  for (int rows : {1, 2, 4, 8, 16})
    for (int vectors : {1, 2, 4, 8, 16})
      add(rows, vectors);
  return result;
}

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
