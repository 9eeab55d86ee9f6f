// SPDX-License-Identifier: Apache-2.0
//
// How the lane layouts of a program's tiles depend on each other: for each op, which layout one of its tiles must have
// when another one's is known.
#pragma once

#include "dialect/tile/Tile.h"

#include <functional>

namespace mlir::kvq::nvptx {

// What is known of a layout says what another tile's must be.
struct TileEdge {
  // Result: from what an op reads to what it makes. Operand: the reverse. Choice: leaves something open, which is then
  // chosen without need; taken when nothing else is left.
  enum Kind { Result, Operand, Tie, Choice };
  Kind kind;
  Value from, to;
  std::function<tile::LaneLayout(const tile::LaneLayout &)> map;
};

// The edges of one op; none for an op whose tiles do not depend on each other. Products are not among them but for
// their accumulator and scales: a fragment says the rest.
void forEachEdge(Operation *op, function_ref<void(TileEdge)> visit);

// Whether a value is a tile that lanes share: any tensor but packed codes.
bool isSpreadTile(Value value);

// The layout for a tile where nothing says another: neighbours along the last dimension in a register's vector, then on
// lanes, then lanes for further dimensions.
tile::LaneLayout defaultLayout(RankedTensorType type);

// The layout without a pair where the tile has none: elements that are not f16, and halves that an elementwise op mixes
// with other types, which must be of one encoding with them.
tile::LaneLayout fitPair(tile::LaneLayout layout, Value tile);

} // namespace mlir::kvq::nvptx
