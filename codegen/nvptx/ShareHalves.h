// SPDX-License-Identifier: Apache-2.0
//
// Pairs of halves that a later loop makes of elements which an earlier one has in other pairs.
#pragma once

namespace llvm {
class Function;
}

namespace mlir::kvq::nvptx {

// Products of packed codes and of rows of the tail pair the same elements of a query in different ways. Where both
// pairs are made before their loops, the later ones become permutations (one instruction, as a conversion is) of the
// earlier ones, at their uses. So what waits while the first loop runs is one word for two elements, which the loop
// reads anyway, and not two more for the elements themselves.
void shareHalves(llvm::Function &function);

} // namespace mlir::kvq::nvptx
