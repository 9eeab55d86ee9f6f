// SPDX-License-Identifier: Apache-2.0
//
// Values that leave the registers of a lane while a loop runs. ptxas would spill them to local memory, and it loads
// early what only the code behind a loop needs.
#pragma once

#include <cstdint>

namespace llvm {
class Function;
}

namespace mlir::kvq::nvptx {

// An attribute of kernels whose products multiply halves and what rounding to them left.
inline constexpr char kTwoHalves[] = "kvq-two-halves";

// Parks values over each outermost loop of the function, in shared memory at an address of the lane's own, so without a
// barrier: those that pass through it, and of those that it only reads as many as its registers do not hold. A block
// has `x` * `y` threads, `y` parts of each program. Of a query of many halves that has no room there, values that all
// parts have lie there once: the first part stores them, and the others wait.
void parkValues(llvm::Function &function, int64_t x, int64_t y);

} // namespace mlir::kvq::nvptx
