// SPDX-License-Identifier: Apache-2.0
//
// Where the lanes of a divergent branch meet again: the immediate post-dominator of the branch.
#pragma once

#include "runtime/ptxsim/decode/program.h"

namespace kvq::ptxsim {

// Sets Op::reconverge of every branch. Branches from which no path leads to the end (endless loops) reconverge at
// operations.size(), that is never.
void findReconvergence(std::vector<Op> &operations);

} // namespace kvq::ptxsim
