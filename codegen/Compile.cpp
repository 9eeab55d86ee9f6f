// SPDX-License-Identifier: Apache-2.0
//
// The way of a program, phase by phase, and what is left behind when one fails.

#include "codegen/Compile.h"

#include "codegen/Bundle.h"
#include "codegen/ScheduleSpace.h"
#include "dialect/kvq/Kvq.h"
#include "dialect/tile/Tile.h"
#include "passes/KernelModule.h"
#include "passes/Pipelines.h"
#include "passes/ScoreFunction.h"
#include "passes/expand/Kernels.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"

#include <chrono>

using namespace mlir;
using namespace mlir::kvq;

// Phases that all targets share; "kernel" is read or built, passes lead to the others.
static constexpr PhaseInfo kSharedPhases[] = {
    {"kernel", "the plain program in kvq ops, or the text as it was given"},
    {"fused", "after the rewrites on kvq ops: attention on packed caches"},
    {"tile", "tile programs: no kvq op is left"},
    {"folded", "scales folded into coefficients: dots of raw codes"},
};

llvm::SmallVector<PhaseInfo> mlir::kvq::allPhases(const Target &target) {
  llvm::SmallVector<PhaseInfo> phases(std::begin(kSharedPhases), std::end(kSharedPhases));
  llvm::append_range(phases, target.passPhases());
  llvm::append_range(phases, target.emitPhases());
  return phases;
}

namespace {

// Collects diagnostics as "line:column: message", one line each, notes after their error.
class Diagnostics {
public:
  explicit Diagnostics(MLIRContext &context)
      : handler(&context, [this](Diagnostic &diagnostic) {
          append(diagnostic);
          for (Diagnostic &note : diagnostic.getNotes())
            append(note);
          return success();
        }) {}
  std::string text;

private:
  void append(Diagnostic &diagnostic) {
    if (!text.empty())
      text += "\n";
    if (auto at = diagnostic.getLocation()->findInstanceOf<FileLineColLoc>())
      text += std::to_string(at.getLine()) + ":" + std::to_string(at.getColumn()) + ": ";
    text += (diagnostic.getSeverity() == DiagnosticSeverity::Note ? "note: " : "") + diagnostic.str();
  }
  ScopedDiagnosticHandler handler;
};

// Registered once: a pass pipeline creates dialects' types lazily, in this context only.
void loadDialects(MLIRContext &context, const Target &target) {
  DialectRegistry registry;
  registry.insert<KvqDialect, tile::KvqTileDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect,
                  scf::SCFDialect, tensor::TensorDialect, vector::VectorDialect, LLVM::LLVMDialect>();
  target.registerDialects(registry);
  context.appendDialectRegistry(registry);
  context.loadAllAvailableDialects();
}

// Why the module is not one kernel, or nothing.
std::string checkOneKernel(ModuleOp module) {
  int kernels = 0;
  for (auto func : module.getOps<func::FuncOp>())
    kernels += func->hasAttr(tile::kKernelAttr) || func->hasAttr(kKernelAttr);
  if (kernels == 1)
    return "";
  return "the module must hold one kernel, this one holds " + std::to_string(kernels) +
         "; mark a func.func with the attribute kvq_tile.kernel";
}

std::string signatureOf(ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream os(text);
  for (auto func : module.getOps<func::FuncOp>())
    if (func->hasAttr(tile::kKernelAttr))
      for (Type type : func.getArgumentTypes()) {
        os << (text.empty() ? "" : " ");
        if (auto ptr = dyn_cast<tile::PtrType>(type))
          os << "ptr<" << ptr.getElementType() << ">";
        else
          os << type;
      }
  return text;
}

// One compilation: state that the phases share.
class Compilation : PhaseSink {
public:
  explicit Compilation(const CompileInput &input)
      : input(input), phases(allPhases(*input.target)), context(MLIRContext::Threading::DISABLED),
        diagnostics(context) {
    loadDialects(context, *input.target);
  }

  // From where to where. This and run() give false when it failed; the reason is in error().
  bool choosePhases() {
    start = input.startAt.empty() ? 0 : placeOf(input.startAt);
    stop = input.stopAfter.empty() ? phases.size() - 1 : placeOf(input.stopAfter);
    if (!failure.empty())
      return false;
    if (start >= emitBegin())
      return fail("a program of the phase \"" + input.startAt +
                  "\" is no MLIR module and cannot be compiled; start at \"" + phases[emitBegin() - 1].name.str() +
                  "\" or before");
    if (start > stop)
      return fail("phase \"" + input.stopAfter + "\" is before \"" + input.startAt + "\", where the program starts");
    return true;
  }

  bool run(CompileResult &result) {
    if (!parse())
      return false;
    bool goesOn = finish(start);
    for (size_t place = start + 1; goesOn && place < emitBegin(); ++place) {
      PassManager pm(&context);
      buildPhase(pm, phases[place].name);
      if (failed(pm.run(*module)))
        return false;
      if (phases[place].name == "folded")
        result.signature = signatureOf(*module);
      goesOn = finish(place);
    }
    if (goesOn)
      if (llvm::Error error = input.target->emit(*module, *this))
        return fail(llvm::toString(std::move(error)));
    result.output = std::move(output);
    return true;
  }
  std::string error() const { return failure.empty() ? diagnostics.text : failure; }
  std::string program() const { return input.source.empty() ? printed : input.source; }

private:
  size_t emitBegin() const { return phases.size() - input.target->emitPhases().size(); }

  // Where the phase of that name is; phases.size(), and a failure, where there is none.
  size_t placeOf(StringRef name) {
    std::string names;
    for (size_t place = 0; place < phases.size(); ++place) {
      if (phases[place].name == name)
        return place;
      names += (names.empty() ? "" : ", ") + phases[place].name.str();
    }
    failure = "unknown phase \"" + name.str() + "\"; use one of " + names;
    return phases.size();
  }

  bool parse() {
    if (!input.request.empty()) {
      auto request = ::kvq::parseKernelRequest(input.request);
      if (!request.isOk())
        return fail(request.status().message());
      if (::kvq::Status taken = input.target->checkRequest(request.value()); !taken.isOk())
        return fail(taken.message());
      module = buildKernelModule(&context, request.value());
      if (!input.schedule.empty() && !attachSchedule(request.value()))
        return false;
      return input.score.empty() || addScore();
    } else {
      module = parseSourceString<ModuleOp>(input.source, &context, input.sourceName);
      if (module && start == 0)
        failure = checkOneKernel(*module);
    }
    return module && failure.empty();
  }

  bool attachSchedule(const ::kvq::KernelRequest &request) {
    auto parsed = ::kvq::parseSchedule(input.schedule);
    const auto space = getScheduleSpace(request, *input.target);
    const ::kvq::Status legal = !space.isOk()   ? space.status()
                                : parsed.isOk() ? ::kvq::checkSchedule(space.value(), parsed.value())
                                                : parsed.status();
    if (!legal.isOk())
      return fail(legal.message());
    tile::ScheduleAttr schedule = toAttr(&context, parsed.value());
    for (auto func : module->getOps<func::FuncOp>())
      if (func->hasAttr(kKernelAttr))
        func->setAttr(tile::kScheduleAttr, schedule);
    return true;
  }

  // False where the score function is wrong; a diagnostic says where.
  bool addScore() {
    auto score = parseSourceString<ModuleOp>(input.score, &context, input.sourceName);
    return score && succeeded(addScoreFunction(*module, *score)) && succeeded(verify(*module));
  }

  void buildPhase(PassManager &pm, StringRef phase) {
    if (phase == "fused")
      buildFusedPipeline(pm, input.target->model());
    else if (phase == "tile")
      buildTilePipeline(pm, input.target->model());
    else if (phase == "folded")
      buildFoldedPipeline(pm, input.target->model());
    else
      input.target->buildPhase(pm, phase);
  }

  // Hands the module on at a phase. False when it was the last one wished for.
  bool finish(size_t place) {
    // The first is kept for a bundle.
    if (place != start && !wants(phases[place].name))
      return true;
    std::string text;
    llvm::raw_string_ostream os(text);
    module->print(os);
    if (place == start)
      printed = text;
    return handOn(phases[place].name, std::move(text));
  }

  bool wants(StringRef phase) const override { return input.onPhase || phases[stop].name == phase; }

  bool handOn(StringRef phase, std::string program) override {
    size_t place = llvm::find_if(phases, [&](const PhaseInfo &info) { return info.name == phase; }) - phases.begin();
    if (input.onPhase && phases[place].isText)
      input.onPhase(place, phases[place], program);
    if (place != stop)
      return true;
    output = std::move(program);
    return false;
  }

  bool fail(std::string message) {
    failure = std::move(message);
    return false;
  }

  const CompileInput &input;
  const llvm::SmallVector<PhaseInfo> phases;
  MLIRContext context;
  Diagnostics diagnostics;
  OwningOpRef<ModuleOp> module;
  size_t start = 0, stop = 0; // places in phases
  std::string printed, output, failure;
};

} // namespace

llvm::Expected<CompileResult> mlir::kvq::compile(const CompileInput &input) {
  if (!input.target)
    return llvm::createStringError("no target is given to compile for; see findTarget");
  if (input.request.empty() == input.source.empty())
    return llvm::createStringError("give either a kernel request or an IR module");
  if (input.request.empty() && !input.score.empty())
    return llvm::createStringError("a score function goes with a kernel request; a module has its score region");
  if (input.request.empty() && !input.schedule.empty())
    return llvm::createStringError("a schedule goes with a kernel request; a module has it as kvq_tile.schedule");
  if (!input.request.empty() && !input.startAt.empty())
    return llvm::createStringError("a kernel request begins at the phase \"kernel\", not at \"" + input.startAt + "\"");
  auto start = std::chrono::steady_clock::now();
  CompileResult result;
  Compilation compilation(input);
  if (!compilation.choosePhases())
    return llvm::createStringError(compilation.error());
  if (!compilation.run(result)) {
    std::string message = compilation.error();
    if (input.writeBundle && !compilation.program().empty())
      message += "\n" + writeBundle(input, compilation.program(), message);
    return llvm::createStringError(message);
  }
  result.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return result;
}
