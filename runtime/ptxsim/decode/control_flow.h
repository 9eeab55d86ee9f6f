// SPDX-License-Identifier: Apache-2.0
//
// Basic blocks, and where the lanes of a divergent branch meet again: the immediate post-dominator of the branch.
#pragma once

#include "runtime/ptxsim/decode/program.h"

namespace kvq::ptxsim {

struct ControlFlowGraph {
  std::vector<uint32_t> begins;             // first operation of each block; the last block is the empty one at the end
  std::vector<std::vector<int>> successors; // blocks
  std::vector<std::vector<int>> predecessors;
};
ControlFlowGraph controlFlow(const std::vector<Op> &operations);

// Sets Op::reconverge of every branch. Branches from which no path leads to the end (endless loops) reconverge at
// operations.size(), that is never.
void findReconvergence(std::vector<Op> &operations);

} // namespace kvq::ptxsim
