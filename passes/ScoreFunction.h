// SPDX-License-Identifier: Apache-2.0
//
// A score function given by itself, beside the request for an attend kernel, becomes the kernel's score region.
#pragma once

#include "dialect/kvq/Kvq.h"

namespace mlir::kvq {

// `kernel` is the module of an attend request; `score` holds one function (f32, index, index, index, index,
// captures...) -> f32, of any name: score, batch, head, query, key. Its body moves into the kernel; captures become
// arguments of the kernel. Fails with a diagnostic in `score` where that is not so (score_function_c1 to c4).
LogicalResult addScoreFunction(ModuleOp kernel, ModuleOp score);

} // namespace mlir::kvq
