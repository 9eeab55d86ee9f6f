// SPDX-License-Identifier: Apache-2.0
//
// NVIDIA GPUs as targets, "nvptx:sm_80": tile programs to PTX text. A target is a compute capability, which is chosen
// by name; a driver compiles its PTX for that processor or a later one. "nvptx:sm_80+magic" is the same for a GPU whose
// tensor cores take subnormal halves as zero.
#pragma once

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <string>

namespace mlir::kvq {
class Target;
} // namespace mlir::kvq

namespace mlir::kvq::nvptx {

struct Processor {
  int64_t sm; // 80: sm_80
  // Version of the PTX ISA, 78: 7.8. The lowest that knows the processor and movmatrix: drivers and libraries refuse a
  // version that is newer than they are.
  int64_t ptxVersion;
  // Attention fetches a page ahead into the second level where codes of K and V have at most so many bits together: the
  // memory wants more bytes on their way than the loads of eight warps then ask for (predicted, docs/nvidia.md). An
  // A100 does of 2 bits, H200 and B200 also of 4. It costs 2 to 3 % of the instructions.
  int64_t bitsAhead;
  std::string name() const { return "sm_" + std::to_string(sm); } // LLVM's and ptxas's name
};

// All processors, oldest first.
llvm::ArrayRef<Processor> allProcessors();
// The processor of that number, or null.
const Processor *findProcessor(int64_t sm);
// How codes become halves: as subnormal numbers, which a mask makes of them, or as the low bits of 1024 + code, of
// which 1024 is taken away.
enum class UnpackForm { Subnormal, Magic };

// A processor of the table as a target of the compiler.
const Target *targetOf(const Processor &processor, UnpackForm form = UnpackForm::Subnormal);
// By the target's name; null where there is none.
const Target *findTarget(llvm::StringRef name);

} // namespace mlir::kvq::nvptx
