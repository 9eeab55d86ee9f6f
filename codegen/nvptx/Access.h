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
  bool inPairs = false;               // a load brings the pairs of the file as they lie in memory
  Registers offsets = {}, masks = {}; // one for each register of the offset's tile
  std::optional<tile::RegisterFile> offsetFile = {};
  tile::RegisterFile file;     // of the tile; with pairs
  tile::RegisterFile elements; // without: one element a register

  // What a load fills.
  const tile::RegisterFile &filled() const { return inPairs ? file : elements; }
  Type filledType() const { return inPairs ? Type(VectorType::get({2}, element)) : element; }
  SmallVector<int64_t> filledBy(ArrayRef<int64_t> numbers) const { // by elements of neighbours
    SmallVector<int64_t> result;
    for (size_t i = 0; i < numbers.size(); i += inPairs ? 2 : 1)
      result.push_back(filled().find(elements.base(numbers[i])));
    return result;
  }
};

} // namespace mlir::kvq::nvptx
