// SPDX-License-Identifier: Apache-2.0
//
// The processors, and the way of a program on them: registers of lanes, the llvm dialect, LLVM IR, PTX.

#include "codegen/nvptx/NvptxTarget.h"

#include "codegen/EmitLLVM.h"
#include "codegen/Target.h"
#include "codegen/nvptx/EmitPtx.h"
#include "codegen/nvptx/LaneEmitter.h"
#include "codegen/nvptx/Passes.h"
#include "passes/DefaultSchedule.h"

#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"

#include <vector>

using namespace mlir;
using namespace mlir::kvq;

static constexpr nvptx::Processor kProcessors[] = {{80, 78, 4}, {86, 78, 0},  {89, 78, 0},
                                                   {90, 78, 8}, {100, 86, 8}, {120, 87, 0}};

llvm::ArrayRef<nvptx::Processor> nvptx::allProcessors() { return kProcessors; }

const nvptx::Processor *nvptx::findProcessor(int64_t sm) {
  for (const Processor &processor : kProcessors)
    if (processor.sm == sm)
      return &processor;
  return nullptr;
}

// Of a program: all of a block. Its keys are read by as many loads at once, and it leaves one partial result where as
// many programs would leave that many.
static constexpr int64_t kWarps = 4;

// That a lane has where so many blocks shall lie on a multiprocessor, which gives them by eights.
static int64_t registersOf(int64_t blocks) {
  static constexpr int64_t kRegisters = 1 << 16; // of a multiprocessor
  return kRegisters / (blocks * nvptx::kBlockThreads) / 8 * 8;
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
  NvptxTarget(const nvptx::Processor &processor, nvptx::UnpackForm form) : processor(processor), form(form) {}
  std::string name() const override {
    return "nvptx:" + processor.name() + (form == nvptx::UnpackForm::Magic ? "+magic" : "");
  }
  llvm::ArrayRef<PhaseInfo> passPhases() const override { return kPassPhases; }
  llvm::ArrayRef<PhaseInfo> emitPhases() const override { return kEmitPhases; }
  TargetModel model() const override {
    TargetModel model;
    model.coefficients = form == nvptx::UnpackForm::Magic ? Coefficients::NormalF16 : Coefficients::F16;
    model.laneRegisters = 255;
    model.bitsAhead = processor.bitsAhead;
    model.warps = kWarps;
    return model;
  }
  ::kvq::Status checkRequest(const ::kvq::KernelRequest &request) const override;
  llvm::SmallVector<::kvq::Schedule> scheduleVariants(const ::kvq::KernelRequest &request,
                                                      const ::kvq::Schedule &standard) const override {
    llvm::SmallVector<::kvq::Schedule> variants;
    for (int pages : {0, 1, 2})
      for (int blocks : {0, 3, 4}) { // the compiler's own is 2
        if (blocks > 0 && !fitsRegisters(standard.tileTokens, request, registersOf(blocks)))
          continue;
        for (int warps : {1, 2, 4}) {
          variants.push_back(standard);
          variants.back().prefetch = pages;
          variants.back().blocks = blocks;
          variants.back().warps = warps;
        }
      }
    return variants;
  }
  void registerDialects(DialectRegistry &registry) const override { nvptx::registerDialects(registry); }

  void buildPhase(OpPassManager &manager, StringRef phase) const override {
    if (phase == "layouts")
      nvptx::buildLayoutsPipeline(manager);
    else if (phase == "lanes")
      nvptx::buildLanesPipeline(manager, processor.sm, form);
    else
      nvptx::buildLLVMPipeline(manager);
  }

  llvm::Error emit(ModuleOp source, PhaseSink &sink) const override {
    llvm::LLVMContext context;
    auto module = nvptx::translateToLLVM(source, processor, context);
    if (!module)
      return module.takeError();
    if (!handOnIR(sink, **module))
      return llvm::Error::success();
    auto ptx = nvptx::emitPtx(**module, processor);
    if (!ptx)
      return ptx.takeError();
    sink.handOn("ptx", std::move(*ptx));
    return llvm::Error::success();
  }

private:
  const nvptx::Processor &processor;
  const nvptx::UnpackForm form;
};

} // namespace

// Elements of the query or of the output of a program, which lie in the registers of a warp: 2048, or half as many
// where operands are two halves each. Of more, lanes would spill. No program has fewer rows than a product.
static int mostElements(const ::kvq::KernelRequest &request) {
  bool isWide = request.type == ::kvq::ElementType::F32 || request.accuracy == ::kvq::Accuracy::Full;
  return std::max(isWide ? 1024 : 2048, 8 * std::max(request.dk, request.dv));
}

::kvq::Status NvptxTarget::checkRequest(const ::kvq::KernelRequest &request) const {
  const int head = std::max(request.dk, request.dv), elements = mostElements(request), most = elements / head / 8 * 8;
  if (request.op != ::kvq::KernelOp::Attend)
    return ::kvq::Status::ok();
  for (int bits : {request.pair.k.bits, request.pair.v.bits})
    if (bits == 3)
      return {::kvq::Code::Unsupported,
              "codes of 3 bits, which lie in several planes, have no product on " + name() + ": use 2, 4 or 8 bits"};
  if (request.rows > most)
    return {::kvq::Code::Unsupported, std::to_string(request.rows) + " rows of a head of " + std::to_string(head) +
                                          " do not fit the registers of a warp, which hold " +
                                          std::to_string(elements) + " elements of a query or an output on " + name() +
                                          ": use " + std::to_string(most) + " rows"};
  return ::kvq::Status::ok();
}

// Those of a form, in the order of the processors.
static const std::vector<NvptxTarget> &targetsOf(nvptx::UnpackForm form) {
  auto make = [](nvptx::UnpackForm form) {
    std::vector<NvptxTarget> targets;
    for (const nvptx::Processor &processor : kProcessors)
      targets.emplace_back(processor, form);
    return targets;
  };
  static const std::vector<NvptxTarget> subnormal = make(nvptx::UnpackForm::Subnormal);
  static const std::vector<NvptxTarget> magic = make(nvptx::UnpackForm::Magic);
  return form == nvptx::UnpackForm::Magic ? magic : subnormal;
}

const mlir::kvq::Target *nvptx::targetOf(const Processor &processor, UnpackForm form) {
  return &targetsOf(form)[static_cast<size_t>(&processor - kProcessors)];
}

const mlir::kvq::Target *nvptx::findTarget(StringRef name) {
  for (UnpackForm form : {UnpackForm::Subnormal, UnpackForm::Magic})
    for (const NvptxTarget &target : targetsOf(form))
      if (target.name() == name)
        return &target;
  return nullptr;
}
