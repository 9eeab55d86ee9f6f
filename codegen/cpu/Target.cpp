// SPDX-License-Identifier: Apache-2.0
//
// The table of CPU levels.

#include "codegen/cpu/Target.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/TargetParser/Host.h"

using namespace mlir::kvq::cpu;

#define KVQ_V3 "avx2 fma f16c bmi2"
#define KVQ_V4 KVQ_V3 " avx512f avx512bw avx512vl avx512dq avx512cd"

// accumulators: half of the registers (with VNNI 20 of 32: 24 spill); the rest hold packed words, operands and
// broadcast coefficients.
static const CpuLevel kLevels[] = {
    {"x86-64", Arch::X86, "x86-64", "", "sse2", 4, 8, false, false, false, IntegerDot::Pairs},
    {"x86-64-v3", Arch::X86, "x86-64-v3", "", KVQ_V3, 8, 8, true, true, false, IntegerDot::Halves},
    {"x86-64-v3-vnni", Arch::X86, "x86-64-v3", "+avxvnni", KVQ_V3 " avxvnni", 8, 8, true, true, false,
     IntegerDot::Bytes},
    {"x86-64-v4", Arch::X86, "x86-64-v4", "", KVQ_V4, 16, 16, true, true, true, IntegerDot::Halves},
    {"x86-64-v4-vnni", Arch::X86, "x86-64-v4", "+avx512vnni", KVQ_V4 " avx512vnni", 16, 20, true, true, true,
     IntegerDot::Bytes},
    {"aarch64", Arch::AArch64, "generic", "", "neon", 4, 16, true, true, false, IntegerDot::Pairs},
    {"aarch64-dotprod", Arch::AArch64, "generic", "+dotprod", "neon dotprod", 4, 16, true, true, false,
     IntegerDot::SameSigns},
};

llvm::ArrayRef<CpuLevel> mlir::kvq::cpu::allLevels() { return kLevels; }

std::string mlir::kvq::cpu::levelNames() {
  std::string names;
  for (const CpuLevel &level : kLevels)
    names += (names.empty() ? "" : ", ") + level.name;
  return names;
}

static llvm::ArrayRef<CpuLevel> spelledOutLevels() {
  static const std::vector<CpuLevel> levels = [] {
    std::vector<CpuLevel> result(std::begin(kLevels), std::end(kLevels));
    for (CpuLevel &level : result) {
      level.name += "@host";
      level.spelledOut = true;
    }
    return result;
  }();
  return levels;
}

const CpuLevel *mlir::kvq::cpu::findLevel(llvm::StringRef name) {
  for (llvm::ArrayRef<CpuLevel> levels : {allLevels(), spelledOutLevels()})
    for (const CpuLevel &level : levels)
      if (level.name == name)
        return &level;
  return nullptr;
}

#if defined(__aarch64__)
static constexpr Arch kHostArch = Arch::AArch64;
#else
static constexpr Arch kHostArch = Arch::X86;
#endif

llvm::SmallVector<const CpuLevel *> mlir::kvq::cpu::hostLevels() {
  llvm::SmallVector<const CpuLevel *> result;
  llvm::StringMap<bool> features = llvm::sys::getHostCPUFeatures();
  for (const CpuLevel &level : kLevels) {
    llvm::SmallVector<llvm::StringRef> required;
    level.required.split(required, ' ');
    if (level.arch == kHostArch &&
        llvm::all_of(required, [&](llvm::StringRef feature) { return features.lookup(feature); }))
      result.push_back(&level);
  }
  return result;
}
