// SPDX-License-Identifier: Apache-2.0
//
// CPU levels: what code may assume of the processor. A level is chosen by name, never taken from the build machine;
// hostLevels() says which of them this processor can run.
#pragma once

#include "mlir/Support/LLVM.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

namespace mlir::kvq::cpu {

struct CpuLevel {
  llvm::StringLiteral name;     // "x86-64-v4"
  llvm::StringLiteral cpu;      // LLVM's name of the processor
  llvm::StringLiteral required; // host features that it needs, space-separated
  int64_t lanes;                // f32 lanes of a native vector
  int64_t accumulators;         // vector registers that a register tile may use for its results
  bool hasHalfConversion;       // F16C
  bool hasRound;                // SSE4.1 roundps
};

// All levels, weakest first.
llvm::ArrayRef<CpuLevel> allLevels();
// The level of that name, or null.
const CpuLevel *findLevel(llvm::StringRef name);
// Levels that this host can run, weakest first.
llvm::SmallVector<const CpuLevel *> hostLevels();

} // namespace mlir::kvq::cpu
