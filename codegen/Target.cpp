// SPDX-License-Identifier: Apache-2.0
//
// The targets there are: the one place that knows all of them.

#include "codegen/Target.h"

#include "codegen/cpu/Target.h"
#include "codegen/nvptx/NvptxTarget.h"

using namespace mlir::kvq;

llvm::SmallVector<const Target *> mlir::kvq::allTargets() {
  llvm::SmallVector<const Target *> targets;
  for (const cpu::CpuLevel &level : cpu::allLevels())
    targets.push_back(cpu::targetOf(level));
  for (const nvptx::Processor &processor : nvptx::allProcessors())
    targets.push_back(nvptx::targetOf(processor));
  return targets;
}

llvm::Expected<const Target *> mlir::kvq::findTarget(llvm::StringRef name) {
  if (const cpu::CpuLevel *level = cpu::findLevel(name))
    return cpu::targetOf(*level);
  if (const Target *target = nvptx::findTarget(name))
    return target;
  std::string names;
  for (const Target *target : allTargets())
    names += (names.empty() ? "" : ", ") + target->name();
  return llvm::createStringError("unknown target \"" + name + "\"; use one of " + names);
}
