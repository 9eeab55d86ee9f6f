// SPDX-License-Identifier: Apache-2.0
//
// compile(): a kernel request or a tile program in, an object for a CPU level out. The phases are the way of a program;
// each can be stopped at, dumped and looked at.
#pragma once

#include "codegen/cpu/Target.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <functional>
#include <string>
#include <vector>

namespace mlir::kvq {

enum class Phase { Kernel, Fused, Tile, Folded, Vector, LLVM, LLVMIR, Assembly, Object };

struct PhaseInfo {
  Phase phase;
  llvm::StringLiteral name, help;
};
llvm::ArrayRef<PhaseInfo> allPhases();
// The phase of that name, or an error that lists them.
llvm::Expected<Phase> parsePhase(llvm::StringRef name);

struct CompileInput {
  std::string request; // canonical text of a KernelRequest, or empty:
  std::string source;  // then an IR module with one kernel, upper or tile level
  std::string sourceName = "<text>";
  const cpu::CpuLevel *level = nullptr;
  Phase stopAfter = Phase::Object;
  std::string bundleDir; // where a failed compile leaves its bundle; empty: the system's temporary folder
  bool writeBundle = true;
  // Called with the printed program after each phase but Object.
  std::function<void(const PhaseInfo &, const std::string &)> onPhase;
};

struct CompileResult {
  std::string output;    // of the last phase: an object, or text
  std::string signature; // arguments of the kernel: "ptr<f32> i64 f32"
  double milliseconds = 0;
};

// Name of the function in every object.
inline constexpr llvm::StringLiteral kEntryName = "kvq_entry";

// Thread-safe. An error's message begins with line:column where the source is at fault; where there is a program, its
// last line has the command that repeats the failure.
llvm::Expected<CompileResult> compile(const CompileInput &input);

// Identifies the code that compiles: part of every kernel's key.
std::string compilerHash();

} // namespace mlir::kvq
