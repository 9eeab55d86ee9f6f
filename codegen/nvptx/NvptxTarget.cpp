// SPDX-License-Identifier: Apache-2.0
//
// The processors, and the way of a program on them: registers of lanes, the llvm dialect, LLVM IR, PTX.

#include "codegen/nvptx/NvptxTarget.h"

#include "codegen/Target.h"
#include "codegen/nvptx/EmitPtx.h"
#include "codegen/nvptx/Passes.h"

#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"

#include <vector>

using namespace mlir;
using namespace mlir::kvq;

static constexpr nvptx::Processor kProcessors[] = {{80, 78}, {86, 78}, {89, 78}, {90, 78}, {100, 86}, {120, 87}};

llvm::ArrayRef<nvptx::Processor> nvptx::allProcessors() { return kProcessors; }

const nvptx::Processor *nvptx::findProcessor(int64_t sm) {
  for (const Processor &processor : kProcessors)
    if (processor.sm == sm)
      return &processor;
  return nullptr;
}

static constexpr PhaseInfo kPassPhases[] = {
    {"layouts", "tile programs in which every tile says which lane holds which element"},
    {"lanes", "scalars and registers of the lanes of a warp"},
    {"llvm", "the llvm and nvvm dialects"},
};
static constexpr PhaseInfo kEmitPhases[] = {
    {"llvm-ir", "LLVM IR after optimization"},
    {"ptx", "PTX text"},
};

namespace {

class NvptxTarget final : public mlir::kvq::Target {
public:
  explicit NvptxTarget(const nvptx::Processor &processor) : processor(processor) {}
  std::string name() const override { return "nvptx:" + processor.name(); }
  llvm::ArrayRef<PhaseInfo> passPhases() const override { return kPassPhases; }
  llvm::ArrayRef<PhaseInfo> emitPhases() const override { return kEmitPhases; }
  TargetModel model() const override {
    TargetModel model;
    model.coefficients = Coefficients::F16;
    model.laneRegisters = 255;
    return model;
  }
  void registerDialects(DialectRegistry &registry) const override { nvptx::registerDialects(registry); }

  void buildPhase(OpPassManager &manager, StringRef phase) const override {
    if (phase == "layouts")
      nvptx::buildLayoutsPipeline(manager);
    else if (phase == "lanes")
      nvptx::buildLanesPipeline(manager, processor.sm);
    else
      nvptx::buildLLVMPipeline(manager);
  }

  llvm::Error emit(ModuleOp source, PhaseSink &sink) const override {
    llvm::LLVMContext context;
    auto module = nvptx::translateToLLVM(source, processor, context);
    if (!module)
      return module.takeError();
    if (sink.wants("llvm-ir")) {
      std::string text;
      llvm::raw_string_ostream os(text);
      (*module)->print(os, nullptr);
      if (!sink.handOn("llvm-ir", std::move(text)))
        return llvm::Error::success();
    }
    auto ptx = nvptx::emitPtx(**module, processor);
    if (!ptx)
      return ptx.takeError();
    sink.handOn("ptx", std::move(*ptx));
    return llvm::Error::success();
  }

private:
  const nvptx::Processor &processor;
};

} // namespace

const mlir::kvq::Target *nvptx::targetOf(const Processor &processor) {
  static const std::vector<NvptxTarget> targets(std::begin(kProcessors), std::end(kProcessors));
  return &targets[&processor - kProcessors];
}
