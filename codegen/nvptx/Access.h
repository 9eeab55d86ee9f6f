// SPDX-License-Identifier: Apache-2.0
//
// A kvq_tile.load or kvq_tile.store, as LaneEmitter works on it. A scalar is a tile without dimensions.
#pragma once

#include "codegen/nvptx/LaneEmitter.h"

namespace mlir::kvq::nvptx {

struct LaneEmitter::Access {
  Value ptr; // lowered
  Type element;
  int64_t bytes = 0; // of an element
  bool runs = false; // offsets have one dimension less than the tile
  bool invariant = false;
  int64_t run = 1;                    // elements of one access
  Registers offsets = {}, masks = {}; // one for each register of the offset's tile
  std::optional<tile::RegisterFile> offsetFile = {};
  tile::RegisterFile file;     // of the tile; with pairs
  tile::RegisterFile elements; // without: one element a register
};

} // namespace mlir::kvq::nvptx
