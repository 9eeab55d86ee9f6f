// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-half-operands: what tensor cores multiply becomes f16 where that changes nothing, or where a program allows
// it. What stays f32 is multiplied as a sum of two halves.

#include "codegen/nvptx/Passes.h"
#include "dialect/tile/Tile.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_HALFOPERANDSPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;
using namespace mlir::kvq;

namespace {

Type halfType(Value tile) {
  auto type = cast<RankedTensorType>(tile.getType());
  return RankedTensorType::get(type.getShape(), Float16Type::get(tile.getContext()));
}

bool isExactHalf(APFloat value) {
  bool loses = false;
  value.convert(APFloat::IEEEhalf(), APFloat::rmNearestTiesToEven, &loses);
  return !loses;
}

// The values of a tile of f32 as f16, if each is one; else null.
Value exactHalf(Value tile, OpBuilder &b) {
  Location loc = tile.getLoc();
  DenseElementsAttr constant;
  if (matchPattern(tile, m_Constant(&constant)) && constant.isSplat()) {
    APFloat value = constant.getSplatValue<APFloat>();
    if (!isExactHalf(value))
      return {};
    bool loses;
    value.convert(APFloat::IEEEhalf(), APFloat::rmNearestTiesToEven, &loses);
    auto type = cast<ShapedType>(halfType(tile));
    return arith::ConstantOp::create(b, loc, DenseElementsAttr::get(type, value));
  }
  if (auto extend = tile.getDefiningOp<arith::ExtFOp>()) {
    if (getElementTypeOrSelf(extend.getIn()).isF16())
      return extend.getIn();
    // Of bf16 the range is checked where a token is appended; below f16's some bits of what is below 2^-14 go.
    return arith::TruncFOp::create(b, loc, halfType(tile), tile);
  }
  if (auto select = tile.getDefiningOp<arith::SelectOp>()) {
    Value yes = exactHalf(select.getTrueValue(), b), no = yes ? exactHalf(select.getFalseValue(), b) : Value();
    return no ? arith::SelectOp::create(b, loc, select.getCondition(), yes, no).getResult() : Value();
  }
  return {};
}

struct HalfOperands : mlir::kvq::nvptx::impl::HalfOperandsPassBase<HalfOperands> {
  void runOnOperation() override {
    SmallVector<tile::CoeffOp> coefficients;
    SmallVector<tile::DotOp> dots;
    getOperation().walk([&](Operation *op) {
      if (auto coeff = dyn_cast<tile::CoeffOp>(op))
        coefficients.push_back(coeff);
      else if (auto dot = dyn_cast<tile::DotOp>(op))
        dots.push_back(dot);
    });
    for (tile::CoeffOp coeff : coefficients)
      if (coeff.getRound())
        roundCoefficients(coeff);
    for (tile::DotOp dot : dots)
      for (OpOperand *operand : {&dot.getXMutable(), &dot.getCoeffMutable()})
        if (getElementTypeOrSelf(operand->get().getType()).isF32()) {
          OpBuilder b(dot);
          if (Value value = operand->get(); b.setInsertionPointAfterValue(value), true)
            if (Value half = exactHalf(value, b))
              operand->set(half);
        }
  }

  // Values are rounded, then their products with scales, which are halves in a page: twice 2^-12 of each. Without
  // scales nothing is gained by rounding what two halves hold.
  static void roundCoefficients(tile::CoeffOp op) {
    OpBuilder b(op);
    if (Value values = op.getValues(); !op.getScale()) {
      b.setInsertionPointAfterValue(values);
      Value exact = exactHalf(values, b);
      b.setInsertionPoint(op);
      values = exact ? exact : values;
      auto type = RankedTensorType::get(op.getType().getShape(), getElementTypeOrSelf(values.getType()));
      Value result = tile::CoeffOp::create(b, op.getLoc(), type, values, Value(), TypeAttr());
      op.replaceAllUsesWith(result);
      return op.erase();
    }
    auto half = [&](Value tile) {
      if (!tile)
        return tile;
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointAfterValue(tile);
      Value exact = exactHalf(tile, b);
      return exact ? exact : arith::TruncFOp::create(b, tile.getLoc(), halfType(tile), tile).getResult();
    };
    Value values = half(op.getValues()), scale = half(op.getScale());
    Value result = tile::CoeffOp::create(b, op.getLoc(), halfType(op.getResult()), values, scale, TypeAttr());
    op.replaceAllUsesWith(result);
    op.erase();
  }
};

} // namespace
