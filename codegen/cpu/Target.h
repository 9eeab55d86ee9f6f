// SPDX-License-Identifier: Apache-2.0
//
// CPU levels: what code may assume of the processor. A level is chosen by name, never taken from the build machine;
// hostLevels() says which of them this processor can run.
//
// `NAME@host` is the code of level NAME with its own instructions spelled out in plain IR, compiled for this machine:
// slow, and the same program step by step. With it every level's code is tested on any machine.
#pragma once

#include "mlir/Support/LLVM.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <string>

namespace mlir::kvq {
class Target;
} // namespace mlir::kvq

namespace mlir::kvq::cpu {

enum class Arch { X86, AArch64 };

// The best that a level has for sums of products of small integers. Each includes pairs of i16.
enum class IntegerDot {
  Pairs,    // i16 x i16, sums of two in i32: pmaddwd
  Halves,   // u8 x s8, sums of two in i16, saturating: pmaddubsw
  Bytes,    // u8 x s8, sums of four in i32: vpdpbusd
  SameSigns // s8 x s8 or u8 x u8, sums of four in i32: sdot, udot
};

struct CpuLevel {
  std::string name; // "x86-64-v4"
  Arch arch = Arch::X86;
  StringRef cpu;                  // LLVM's name of the processor
  StringRef features;             // beyond that processor's, as LLVM writes them: "+avx512vnni"
  StringRef required;             // host features that it needs, space-separated
  int64_t lanes = 4;              // f32 lanes of a native vector
  int64_t accumulators = 8;       // vector registers that a register tile may use for its results
  bool hasHalfConversion = false; // F16C
  bool hasRound = false;          // SSE4.1 roundps
  bool hasScale = false;          // AVX-512's vscalefps
  IntegerDot integers = IntegerDot::Pairs;
  bool spelledOut = false; // @host
};

// All levels, weakest first within an architecture, without the @host ones.
llvm::ArrayRef<CpuLevel> allLevels();
// Their names, for messages.
std::string levelNames();
// The level of that name, or null.
const CpuLevel *findLevel(llvm::StringRef name);
// Levels that this host can run, weakest first.
llvm::SmallVector<const CpuLevel *> hostLevels();
// A level, one of the table or an @host one, as a target of the compiler.
const Target *targetOf(const CpuLevel &level);

} // namespace mlir::kvq::cpu
