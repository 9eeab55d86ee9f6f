// SPDX-License-Identifier: Apache-2.0
//
// What passes know of a target: enough to choose among the programs of a request, nothing of instructions.
#pragma once

#include <cstdint>

namespace mlir::kvq {

// What a coefficient that may be rounded becomes (format-spec accuracy_c1): an integer with one scale for a row, the
// nearest f16, or the same where halves below 2^-14 count as zero.
enum class Coefficients { Integers, F16, NormalF16 };
inline bool areHalves(Coefficients coefficients) { return coefficients != Coefficients::Integers; }

struct TargetModel {
  // How products round their coefficients where a request allows it.
  Coefficients coefficients = Coefficients::Integers;
  // Registers of 32 bits of a lane, where a program's tiles lie in those; 0: tiles lie in memory.
  int64_t laneRegisters = 0;
  // Where nobody chose, a kernel fetches a page ahead: of lanes' programs attention alone, of codes of K and V that
  // have at most so many bits together.
  int64_t bitsAhead = 0;
  // Warps that share a program where nobody chose.
  int64_t warps = 1;
};

} // namespace mlir::kvq
