// SPDX-License-Identifier: Apache-2.0
//
// Passes from kvq ops to tile programs; what each does is in Passes.td.
#pragma once

#include "mlir/Pass/Pass.h"

namespace mlir::kvq {

// What a coefficient that may be rounded becomes (format-spec accuracy_c1): an integer with one scale for a row, the
// nearest f16, or the same where halves below 2^-14 count as zero.
enum class Coefficients { Integers, F16, NormalF16 };
inline bool areHalves(Coefficients coefficients) { return coefficients != Coefficients::Integers; }

#define GEN_PASS_DECL
#include "passes/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "passes/Passes.h.inc"

} // namespace mlir::kvq
