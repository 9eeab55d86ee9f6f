// SPDX-License-Identifier: Apache-2.0
//
// compile(): a kernel request or a tile program in, what a target gives out: an object, or PTX. The phases are the way
// of a program; each can be stopped at, dumped and looked at, and a program of a phase can be given instead of one of
// the first.
#pragma once

#include "codegen/Target.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <functional>
#include <string>

namespace mlir::kvq {

// All phases of a target in their order: those that targets share, then its own.
llvm::SmallVector<PhaseInfo> allPhases(const Target &target);

struct CompileInput {
  std::string request;  // canonical text of a KernelRequest, or empty:
  std::string source;   // then an IR module with one kernel, upper or tile level
  std::string score;    // of a request for attend: IR of its score function (passes/ScoreFunction.h), or empty
  std::string schedule; // of a request: text of one of its schedules (ScheduleSpace.h); empty: the default
  std::string sourceName = "<text>";
  const Target *target = nullptr;
  std::string startAt;   // phase that `source` is a program of, an MLIR module; empty: the first
  std::string stopAfter; // phase whose program is wanted; empty: the last, what the target gives out
  std::string bundleDir; // where a failed compile leaves its bundle; empty: the system's temporary folder
  bool writeBundle = true;
  // Called after each phase that has text, with its place in allPhases() and the program.
  std::function<void(size_t place, const PhaseInfo &, const std::string &)> onPhase;
};

struct CompileResult {
  std::string output;    // of the last phase: an object, or text
  std::string signature; // arguments of the kernel: "ptr<f32> i64 f32"; "" where it was given after "folded"
  double milliseconds = 0;
};

// Thread-safe. An error's message begins with line:column where the source is at fault; where there is a program, its
// last line has the command that repeats the failure.
llvm::Expected<CompileResult> compile(const CompileInput &input);

// Identifies the code that compiles: part of every kernel's key.
std::string compilerHash();

} // namespace mlir::kvq
