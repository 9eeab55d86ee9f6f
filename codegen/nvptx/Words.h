// SPDX-License-Identifier: Apache-2.0
//
// Packed codes as words of 32 bits: which words of a section a lane reads or writes for a tile, and where each code
// lies in them.
#pragma once

#include "dialect/tile/Tile.h"

namespace mlir::kvq::nvptx {

// The map of one plane, over a tile [tokens, channels] that begins at a multiple of its extents. Addresses are linear
// in the tile's index bits, which is checked when the map is made.
class WordMap {
public:
  // Fails with a diagnostic at `op` where the layout is not one plane, or addresses in a tile depend on where it
  // begins.
  static FailureOr<WordMap> get(Operation *op, tile::LayoutAttr layout, int64_t bits, ArrayRef<int64_t> tile);

  // A lane layout under which lanes access neighbouring words: fields of a word and then 16 bytes of words in a lane.
  tile::LaneLayout lanes() const;
  int64_t codesPerWord() const { return 32 / bits; }
  // The word and the field in it of an element of the tile, for a tile that begins at 0.
  int64_t word(ArrayRef<int64_t> index) const { return map.address(index[0], index[1]) / codesPerWord(); }
  int64_t field(ArrayRef<int64_t> index) const { return map.address(index[0], index[1]) % codesPerWord(); }
  // Whether every tile begins at a multiple of so many words, a power of two.
  bool beginsAtMultipleOf(int64_t words) const;
  // Words before a tile that begins at token or channel `at`, a multiple of its extent: an index value.
  Value wordsBefore(OpBuilder &b, Location loc, ::kvq::Dim dim, Value at) const;
  // The field of its word that a tile begins in, as far as token or channel `at` decides it: an i32; null where every
  // tile begins with a word.
  Value fieldsBefore(OpBuilder &b, Location loc, ::kvq::Dim dim, Value at) const;

  int64_t bits;

private:
  int64_t addressOf(::kvq::Dim dim, int64_t index) const {
    return dim == ::kvq::Dim::Token ? map.address(index, 0) : map.address(0, index);
  }

  ::kvq::Layout map;
  SmallVector<int64_t> tile;
};

} // namespace mlir::kvq::nvptx
