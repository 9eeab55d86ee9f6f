// SPDX-License-Identifier: Apache-2.0
//
// What a target's lowering begins with.
#pragma once

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"

namespace mlir::kvq {

// The kernel of a module that holds a tile program: one, of one block. Else fails with a diagnostic.
FailureOr<func::FuncOp> findTileKernel(ModuleOp module);

} // namespace mlir::kvq
