// SPDX-License-Identifier: Apache-2.0
//
// A target: what code is made for, and the way of a program from the phase "folded", a verified tile program, to what
// the target gives out. What is before that phase, all targets share.
#pragma once

#include "passes/Pipelines.h"
#include "runtime/format/problem.h"
#include "runtime/format/schedule.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/DialectRegistry.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <string>

namespace mlir::kvq {

// Name of the function in everything that is given out.
inline constexpr llvm::StringLiteral kEntryName = "kvq_entry";

struct PhaseInfo {
  llvm::StringLiteral name, help;
  bool isText = true; // can be looked at; an object cannot
};

// Where emission hands over the program at each phase that it goes through.
class PhaseSink {
public:
  virtual ~PhaseSink() = default;
  // Whether anybody asks for the program at that phase; else it need not be printed.
  virtual bool wants(llvm::StringRef phase) const = 0;
  // False when nobody wants what follows.
  virtual bool handOn(llvm::StringRef phase, std::string program) = 0;
};

class Target {
public:
  virtual ~Target() = default;
  // Canonical text: "x86-64-v4", "nvptx:sm_80".
  virtual std::string name() const = 0;
  // Phases after "folded" whose program is an MLIR module, in their order.
  virtual llvm::ArrayRef<PhaseInfo> passPhases() const = 0;
  // Those that follow, in their order; the last is what the target gives out.
  virtual llvm::ArrayRef<PhaseInfo> emitPhases() const = 0;
  // The passes that lead to a phase of passPhases().
  virtual void buildPhase(OpPassManager &manager, llvm::StringRef phase) const = 0;
  // From a module of the last of passPhases() through emitPhases(), until the sink wants no more.
  virtual llvm::Error emit(ModuleOp module, PhaseSink &sink) const = 0;
  // What passes know of it.
  virtual TargetModel model() const { return {}; }
  // Unsupported where the target has no kernel for a request: which limit, and what fits.
  virtual ::kvq::Status checkRequest(const ::kvq::KernelRequest &request) const { return ::kvq::Status::ok(); }
  // Schedules of an attend kernel with the tile of `standard` that make code of their own, `standard` among them; none
  // where the target does not take that tile.
  virtual llvm::SmallVector<::kvq::Schedule> scheduleVariants(const ::kvq::KernelRequest &request,
                                                              const ::kvq::Schedule &standard) const {
    return {standard};
  }
  // Dialects of the target's own.
  virtual void registerDialects(DialectRegistry &registry) const {}
};

// Every target, CPUs first; of CPU levels not the @host ones, of GPUs not the +magic ones.
llvm::SmallVector<const Target *> allTargets();
// The target of that name, or an error that lists them.
llvm::Expected<const Target *> findTarget(llvm::StringRef name);

} // namespace mlir::kvq
