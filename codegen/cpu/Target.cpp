// SPDX-License-Identifier: Apache-2.0
//
// The table of CPU levels.

#include "codegen/cpu/Target.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/TargetParser/Host.h"

using namespace mlir::kvq::cpu;

// accumulators: half of the registers; the rest hold packed words, unpacked codes and broadcast coefficients.
static constexpr CpuLevel kLevels[] = {
    {"x86-64", "x86-64", "sse2", 4, 8, false, false},
    {"x86-64-v3", "x86-64-v3", "avx2 fma f16c bmi2", 8, 8, true, true},
    {"x86-64-v4", "x86-64-v4", "avx2 fma f16c bmi2 avx512f avx512bw avx512vl avx512dq avx512cd", 16, 16, true, true},
};

llvm::ArrayRef<CpuLevel> mlir::kvq::cpu::allLevels() { return kLevels; }

const CpuLevel *mlir::kvq::cpu::findLevel(llvm::StringRef name) {
  for (const CpuLevel &level : kLevels)
    if (level.name == name)
      return &level;
  return nullptr;
}

llvm::SmallVector<const CpuLevel *> mlir::kvq::cpu::hostLevels() {
  llvm::SmallVector<const CpuLevel *> result;
  llvm::StringMap<bool> features = llvm::sys::getHostCPUFeatures();
  for (const CpuLevel &level : kLevels) {
    llvm::SmallVector<llvm::StringRef> required;
    llvm::StringRef(level.required).split(required, ' ');
    if (llvm::all_of(required, [&](llvm::StringRef feature) { return features.lookup(feature); }))
      result.push_back(&level);
  }
  return result;
}
