// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-sink-conversions: element by element before tiles are spread, not afterwards.

#include "codegen/nvptx/Passes.h"
#include "dialect/tile/Tile.h"

#include "mlir/IR/Matchers.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_SINKCONVERSIONSPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;
using namespace mlir::kvq;
using tile::LaneLayout;

static RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

static int64_t registersIn(RankedTensorType type, const LaneLayout &lanes) {
  return tile::RegisterFile(type.getShape(), lanes).count();
}

// A splat constant in another layout; null for what is none.
static Value constantIn(OpBuilder &b, Value value, const LaneLayout &lanes) {
  DenseElementsAttr elements;
  if (!matchPattern(value, m_Constant(&elements)) || !elements.isSplat())
    return {};
  return arith::ConstantOp::create(b, value.getLoc(), elements.reshape(tile::withLanes(typeOf(value), lanes)));
}

// The layout that all converted operands come from, where lanes have fewer registers there; the others are splats.
static std::optional<LaneLayout> layoutBefore(Operation *op) {
  std::optional<LaneLayout> before;
  for (Value operand : op->getOperands()) {
    auto convert = operand.getDefiningOp<tile::ConvertOp>();
    if (!convert) {
      DenseElementsAttr elements;
      if (!matchPattern(operand, m_Constant(&elements)) || !elements.isSplat())
        return std::nullopt;
      continue;
    }
    LaneLayout lanes = *tile::getLanes(convert.getSource().getType());
    if (!convert->hasOneUse() || !lanes.pair.isNone() || (before && lanes != *before))
      return std::nullopt;
    before = lanes;
  }
  if (!before)
    return std::nullopt;
  auto type = typeOf(op->getResult(0));
  return registersIn(type, *before) < registersIn(type, *tile::getLanes(type)) ? before : std::nullopt;
}

static void sink(Operation *op, const LaneLayout &before) {
  OpBuilder b(op);
  for (OpOperand &operand : op->getOpOperands()) {
    if (auto convert = operand.get().getDefiningOp<tile::ConvertOp>()) {
      operand.set(convert.getSource());
      convert.erase();
    } else {
      operand.set(constantIn(b, operand.get(), before));
    }
  }
  Value result = op->getResult(0);
  RankedTensorType wanted = typeOf(result);
  result.setType(tile::withLanes(wanted, before));
  b.setInsertionPointAfter(op);
  auto converted = tile::ConvertOp::create(b, op->getLoc(), wanted, result);
  result.replaceAllUsesExcept(converted, converted);
}

namespace {

struct SinkConversions : mlir::kvq::nvptx::impl::SinkConversionsPassBase<SinkConversions> {
  void runOnOperation() override {
    getOperation()->walk([](Operation *op) {
      if (!OpTrait::hasElementwiseMappableTraits(op) || op->getNumResults() != 1 ||
          !isa<RankedTensorType>(op->getResult(0).getType()))
        return;
      if (std::optional<LaneLayout> before = layoutBefore(op))
        sink(op, *before);
    });
  }
};

} // namespace
