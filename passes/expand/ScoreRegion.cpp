// SPDX-License-Identifier: Apache-2.0
//
// Score regions on tiles.

#include "passes/expand/ScoreRegion.h"

#include "mlir/IR/IRMapping.h"

using namespace mlir;
using namespace mlir::kvq;

// Arguments before the captures: score, batch, head, query, key.
static constexpr unsigned kFirstCapture = 5;

// expand_c6
LogicalResult mlir::kvq::verifyScoreRegion(Region &region) {
  Block &block = region.front();
  for (Operation &op : block.without_terminator())
    if (!isa<arith::ConstantOp>(op) && !OpTrait::hasElementwiseMappableTraits(&op))
      return op.emitOpError("cannot be in a score region; use elementwise ops of arith and math");
  return success();
}

Value mlir::kvq::inlineScoreRegion(TileBuilder &builder, Region &region, Value scores, const ScoreIndices &indices,
                                   ValueRange captures) {
  Block &block = region.front();
  ArrayRef<int64_t> shape = cast<RankedTensorType>(scores.getType()).getShape();
  IRMapping map;
  map.map(block.getArgument(0), scores);
  map.map(block.getArgument(1), indices.batch);
  map.map(block.getArgument(2), indices.head);
  map.map(block.getArgument(3), indices.query);
  map.map(block.getArgument(4), indices.key);
  for (auto [argument, capture] : llvm::zip(block.getArguments().drop_front(kFirstCapture), captures))
    map.map(argument, builder.splat(capture, shape));
  for (Operation &op : block.without_terminator()) {
    if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
      Value scalar = builder.clone(op)->getResult(0);
      map.map(constant.getResult(), builder.splat(scalar, shape));
      continue;
    }
    Operation *clone = builder.clone(op, map);
    for (OpResult result : clone->getResults())
      result.setType(RankedTensorType::get(shape, result.getType()));
    map.map(op.getResults(), clone->getResults());
  }
  Value result = block.getTerminator()->getOperand(0);
  Value mapped = map.lookupOrDefault(result);
  return isa<RankedTensorType>(mapped.getType()) ? mapped : builder.splat(mapped, shape);
}
