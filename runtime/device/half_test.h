// SPDX-License-Identifier: Apache-2.0
//
// What an accelerator's matrix instructions make of subnormal halves, asked of it: kernels use codes of a cache as such
// numbers, and the PTX ISA does not promise that they count.
#pragma once

#include "runtime/device/accelerator.h"

namespace kvq {

enum class SubnormalHalves { Kept, Flushed };

// Runs a kernel of one warp that multiplies subnormal halves by ones, and ones by them, and waits for it. An Internal
// says what came out where it is neither their sum nor zero.
Result<SubnormalHalves> testHalves(Accelerator &accelerator);

} // namespace kvq
