// SPDX-License-Identifier: Apache-2.0
//
// The way of a program, phase by phase, and what is left behind when one fails.

#include "codegen/Compile.h"

#include "codegen/Bundle.h"
#include "codegen/cpu/EmitObject.h"
#include "codegen/cpu/Passes.h"
#include "dialect/kvq/Kvq.h"
#include "dialect/tile/Tile.h"
#include "passes/KernelModule.h"
#include "passes/Pipelines.h"

#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Transforms/Utils/Cloning.h"

#include <chrono>

using namespace mlir;
using namespace mlir::kvq;

static constexpr PhaseInfo kPhases[] = {
    {Phase::Kernel, "kernel", "the plain program in kvq ops, or the text as it was given"},
    {Phase::Fused, "fused", "after the rewrites on kvq ops: attention on packed caches"},
    {Phase::Tile, "tile", "tile programs: no kvq op is left"},
    {Phase::Folded, "folded", "scales folded into coefficients: dots of raw codes"},
    {Phase::Vector, "vector", "native vectors in rolled loops"},
    {Phase::LLVM, "llvm", "the llvm dialect"},
    {Phase::LLVMIR, "llvm-ir", "LLVM IR after optimization"},
    {Phase::Assembly, "assembly", "the processor's instructions as text"},
    {Phase::Object, "object", "an ELF relocatable object"},
};

llvm::ArrayRef<PhaseInfo> mlir::kvq::allPhases() { return kPhases; }

llvm::Expected<Phase> mlir::kvq::parsePhase(StringRef name) {
  std::string names;
  for (const PhaseInfo &info : kPhases) {
    if (info.name == name)
      return info.phase;
    names += (names.empty() ? "" : ", ") + info.name.str();
  }
  return llvm::createStringError("unknown phase \"" + name + "\"; use one of " + names);
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
void loadDialects(MLIRContext &context) {
  DialectRegistry registry;
  registry.insert<KvqDialect, tile::KvqTileDialect, arith::ArithDialect, func::FuncDialect, math::MathDialect,
                  scf::SCFDialect, tensor::TensorDialect, vector::VectorDialect, LLVM::LLVMDialect>();
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
class Compilation {
public:
  explicit Compilation(const CompileInput &input)
      : input(input), context(MLIRContext::Threading::DISABLED), diagnostics(context) {
    loadDialects(context);
  }

  // False when it failed; the reason is in error().
  bool run(CompileResult &result) {
    if (!parse() || !finish(Phase::Kernel, result))
      return done;
    for (Phase phase : {Phase::Fused, Phase::Tile, Phase::Folded, Phase::Vector, Phase::LLVM}) {
      PassManager pm(&context);
      buildPhase(pm, phase);
      if (failed(pm.run(*module)))
        return false;
      if (phase == Phase::Folded)
        result.signature = signatureOf(*module);
      if (!finish(phase, result))
        return done;
    }
    return emit(result);
  }
  std::string error() const { return failure.empty() ? diagnostics.text : failure; }
  std::string program() const { return input.source.empty() ? printed : input.source; }

private:
  bool parse() {
    if (!input.request.empty()) {
      auto request = ::kvq::parseKernelRequest(input.request);
      if (!request.isOk()) {
        failure = request.status().message();
        return false;
      }
      module = buildKernelModule(&context, request.value());
    } else {
      module = parseSourceString<ModuleOp>(input.source, &context, input.sourceName);
      if (module)
        failure = checkOneKernel(*module);
    }
    return module && failure.empty();
  }

  void buildPhase(PassManager &pm, Phase phase) {
    switch (phase) {
    case Phase::Fused:
      return buildFusedPipeline(pm);
    case Phase::Tile:
      return buildTilePipeline(pm);
    case Phase::Folded:
      return buildFoldedPipeline(pm);
    case Phase::Vector:
      return cpu::buildVectorPipeline(pm, input.level->name);
    default:
      return cpu::buildLLVMPipeline(pm);
    }
  }

  // Hands a phase's program on. False when it was the last one wished for.
  bool finish(Phase phase, CompileResult &result) {
    if (input.onPhase || input.stopAfter == phase || phase == Phase::Kernel) {
      printed.clear();
      llvm::raw_string_ostream os(printed);
      module->print(os);
    }
    return handOn(phase, result);
  }

  bool handOn(Phase phase, CompileResult &result) {
    if (input.onPhase)
      input.onPhase(kPhases[static_cast<size_t>(phase)], printed);
    if (input.stopAfter != phase)
      return true;
    result.output = printed;
    done = true;
    return false;
  }

  bool emit(CompileResult &result) {
    llvm::LLVMContext llvmContext;
    auto translated = cpu::translateToLLVM(*module, *input.level, llvmContext);
    if (!translated)
      return fail(translated.takeError());
    if (input.onPhase || input.stopAfter == Phase::LLVMIR) {
      printed.clear();
      llvm::raw_string_ostream os(printed);
      (*translated)->print(os, nullptr);
      if (!handOn(Phase::LLVMIR, result))
        return done;
    }
    if (input.onPhase || input.stopAfter == Phase::Assembly) {
      auto assembly = cpu::emitAssembly(*llvm::CloneModule(**translated), *input.level);
      if (!assembly)
        return fail(assembly.takeError());
      printed = std::move(*assembly);
      if (!handOn(Phase::Assembly, result))
        return done;
    }
    auto object = cpu::emitObject(**translated, *input.level);
    if (!object)
      return fail(object.takeError());
    result.output = std::move(*object);
    return true;
  }

  bool fail(llvm::Error error) {
    failure = llvm::toString(std::move(error));
    return false;
  }

  const CompileInput &input;
  MLIRContext context;
  Diagnostics diagnostics;
  OwningOpRef<ModuleOp> module;
  std::string printed, failure;
  bool done = false;
};

} // namespace

llvm::Expected<CompileResult> mlir::kvq::compile(const CompileInput &input) {
  if (!input.level)
    return llvm::createStringError("no CPU level is given; use one of the levels of this host");
  if (input.request.empty() == input.source.empty())
    return llvm::createStringError("give either a kernel request or an IR module");
  auto start = std::chrono::steady_clock::now();
  CompileResult result;
  Compilation compilation(input);
  if (!compilation.run(result)) {
    std::string message = compilation.error();
    if (input.writeBundle && !compilation.program().empty())
      message += "\n" + writeBundle(input, compilation.program(), message);
    return llvm::createStringError(message);
  }
  result.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return result;
}
