// SPDX-License-Identifier: Apache-2.0
//
// A score region in a tile program: the scalar function (score, batch, head, query, key, captures) -> score, applied to
// a whole tile. Its scalar ops are cloned onto tiles, which arith and math allow as they are elementwise.
#pragma once

#include "passes/TileBuilder.h"

namespace mlir::kvq {

// Tiles of the score's shape, element type index.
struct ScoreIndices {
  Value batch, head, query, key;
};

// Fails with a diagnostic where the region cannot be put on tiles: an op is not elementwise (expand_c6). That it has
// one argument per capture is the concern of kvq.attention's verifier.
LogicalResult verifyScoreRegion(Region &region);

// The region's result for a tile of scores. The region has passed verifyScoreRegion.
Value inlineScoreRegion(TileBuilder &builder, Region &region, Value scores, const ScoreIndices &indices,
                        ValueRange captures);

} // namespace mlir::kvq
