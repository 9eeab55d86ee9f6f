// SPDX-License-Identifier: Apache-2.0
//
// The register tile of a product (EmitDot.cpp, EmitIntegerDot.cpp): what the knobs rows and vectors of a schedule
// bound.
#pragma once

#include "codegen/cpu/Target.h"

#include <cstdint>
#include <utility>

namespace mlir::kvq::cpu {

// Rows and vectors of the best register tile of a result of so many rows, and of columns of one vector, within the
// limits and the level's registers. cuts: where rows take several tiles, operands are cut out of words once for all.
std::pair<int64_t, int64_t> chooseRegisterTile(const CpuLevel &level, int64_t rows, int64_t columns, bool cuts,
                                               int64_t rowLimit, int64_t vectorLimit);

} // namespace mlir::kvq::cpu
