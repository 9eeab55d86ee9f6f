// SPDX-License-Identifier: Apache-2.0
//
// The passes of each phase from a kernel in kvq ops to a verified tile program. The phases themselves, with names and
// help, are those of codegen/Compile.h.
#pragma once

#include "passes/Passes.h"

#include "mlir/Pass/PassManager.h"

namespace mlir::kvq {

// kvq ops on packed data, with a schedule that suits the target.
void buildFusedPipeline(OpPassManager &manager, const TargetModel &target);
// The tile program: dequantizes, then multiplies. Its scaling suits the coefficients that the target has.
void buildTilePipeline(OpPassManager &manager, const TargetModel &target);
// The tile program that multiplies codes, by coefficients rounded as the target likes; verified. Tile programs of users
// enter before this.
void buildFoldedPipeline(OpPassManager &manager, const TargetModel &target);

} // namespace mlir::kvq
