// SPDX-License-Identifier: Apache-2.0
//
// What is known of addresses and offsets of a tile program when it is compiled.
#pragma once

#include "dialect/tile/Tile.h"

namespace mlir::kvq::nvptx {

// A power of two that divides every element of an index value or tile.
int64_t multipleOf(Value index);
// The alignment of a pointer in bytes: at least that of its element.
int64_t alignmentOf(Value ptr);

} // namespace mlir::kvq::nvptx
