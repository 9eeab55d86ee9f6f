// SPDX-License-Identifier: Apache-2.0
//
// Passes from kvq ops to tile programs; what each does is in Passes.td.
#pragma once

#include "passes/TargetModel.h"

#include "mlir/Pass/Pass.h"

namespace mlir::kvq {

#define GEN_PASS_DECL
#include "passes/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "passes/Passes.h.inc"

} // namespace mlir::kvq
