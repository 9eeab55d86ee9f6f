// SPDX-License-Identifier: Apache-2.0
//
// kvq-tile-fold-scales: a product with dequantized codes becomes a product with the codes themselves. Coefficients that
// may be integers meet centred codes (format-spec accuracy_c1): the error of rounding is then multiplied by how far a
// code is from the middle of its group, not from its minimum. The error of an f16 coefficient is relative to itself and
// small enough, and a center would be one more operation for each code.

#include "passes/Passes.h"
#include "passes/TileBuilder.h"

#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::kvq {
#define GEN_PASS_DEF_KVQTILEFOLDSCALES
#include "passes/Passes.h.inc"
} // namespace mlir::kvq

using namespace mlir;
using namespace mlir::kvq;

namespace {

bool isZero(Value tile) {
  DenseElementsAttr constant;
  return matchPattern(tile, m_Constant(&constant)) && constant.isSplat() && constant.getElementType().isF32() &&
         constant.getSplatValue<APFloat>().isZero();
}

// Sums of `groups` equal runs of each row: [R, C] -> [R, groups].
Value sumGroups(TileBuilder &b, Value rows, int64_t groups) {
  auto type = cast<RankedTensorType>(rows.getType());
  int64_t count = type.getDimSize(0), extent = type.getDimSize(1);
  if (groups == 1)
    return b.broadcast(b.reduce(tile::ReduceKind::Add, rows, 1), {count, 1}, {0});
  Value group = b.div(b.iota(extent, b.getI32Type()), b.i32(static_cast<int32_t>(extent / groups)));
  Value member = b.compare(arith::CmpIPredicate::eq, b.broadcast(group, {groups, extent}, {1}),
                           b.broadcast(b.iota(groups, b.getI32Type()), {groups, extent}, {0}));
  Value selector = b.select(member, b.f32(1), b.f32(0));
  return b.dot(selector, rows, b.constantTile({count, groups}, 0), 1);
}

struct FoldScales : OpRewritePattern<tile::DotOp> {
  FoldScales(MLIRContext *context, Coefficients coefficients) : OpRewritePattern(context), coefficients(coefficients) {}

  LogicalResult matchAndRewrite(tile::DotOp op, PatternRewriter &rewriter) const override {
    auto dequantize = op.getX().getDefiningOp<tile::DequantizeOp>();
    if (!dequantize)
      return rewriter.notifyMatchFailure(op, "x is not dequantized here");
    auto coeffType = cast<RankedTensorType>(op.getCoeff().getType());
    if (coeffType.getRank() != 2 || op.getScale() || !op.getCenter().isZero())
      return rewriter.notifyMatchFailure(op, "the product already has scales or a center");
    TileBuilder b(op.getLoc(), rewriter);
    Value scale = dequantize.getScale();
    int64_t groups = cast<RankedTensorType>(scale.getType()).getDimSize(0);
    // Scales are [groups, n]; n runs along channels per channel, along tokens per token.
    bool alongContracted = (dequantize.getAxis() == "channel") == (op.getContract() == 1);
    if (alongContracted)
      foldIntoCoefficients(op, dequantize, groups, b, rewriter);
    else
      foldIntoResult(op, dequantize, groups, b, rewriter);
    return success();
  }

private:
  // What the coefficients of a product are rounded to; null: they are not.
  TypeAttr roundingOf(tile::DotOp op) const {
    if (op.getRound() && areHalves(coefficients))
      return TypeAttr::get(Float16Type::get(op.getContext()));
    return op.getRoundAttr();
  }

  // What the codes of a product are measured from: their middle where coefficients are rounded, else 0.
  float centerOf(tile::DotOp op, tile::DequantizeOp dequantize) const {
    unsigned bits = getElementTypeOrSelf(dequantize.getCodes().getType()).getIntOrFloatBitWidth();
    return roundingOf(op) ? static_cast<float>((1 << bits) - 1) / 2 : 0.0f;
  }
  // The value that stands for it: scale * center + min.
  static Value originOf(tile::DequantizeOp dequantize, float center, TileBuilder &b) {
    if (center == 0)
      return dequantize.getMin();
    return b.add(b.mul(dequantize.getScale(), b.f32(center)), dequantize.getMin());
  }
  // What the origin contributes to every result of a group of results: sum_c origin[g, c] * coeff[r, c]. In f16 minima
  // and scales are multiplied each for itself, as they lie in a page; their sum would be rounded.
  Value biasOf(tile::DotOp op, tile::DequantizeOp dequantize, float center, int64_t groups, TileBuilder &b) const {
    int64_t rows = cast<RankedTensorType>(op.getCoeff().getType()).getDimSize(0);
    auto times = [&](Value values) { return b.dot(values, op.getCoeff(), b.constantTile({rows, groups}, 0), 1); };
    if (center == 0 || !areHalves(coefficients))
      return times(originOf(dequantize, center, b));
    return b.add(times(dequantize.getMin()), b.mul(times(dequantize.getScale()), b.f32(center)));
  }

  // Scales differ along the contracted dimension: they belong to the coefficients, one set per group of results. The
  // origin contributes sum_c origin[g, c] * coeff[r, c] to every result of group g.
  void foldIntoCoefficients(tile::DotOp op, tile::DequantizeOp dequantize, int64_t groups, TileBuilder &b,
                            PatternRewriter &rewriter) const {
    float center = centerOf(op, dequantize);
    Value bias = biasOf(op, dequantize, center, groups, b);
    bias = b.broadcast(bias, cast<RankedTensorType>(op.getType()).getShape(), {0, 1});
    Value scaled = b.coeff(op.getCoeff(), dequantize.getScale(), roundingOf(op));
    Value acc = isZero(op.getAcc()) ? bias : b.add(op.getAcc(), bias);
    rewriter.replaceOp(op, b.dotScaled(dequantize.getCodes(), scaled, acc, op.getContract(), {}, center));
  }

  // Scales differ along the result: they multiply the sum over each group of contracted elements. The origin
  // contributes sum_g origin[g, n] * sum_{c in g} coeff[r, c]; the inner sums and the rounded coefficients stand beside
  // the coefficients, which may be outside a loop that this product is in.
  void foldIntoResult(tile::DotOp op, tile::DequantizeOp dequantize, int64_t groups, TileBuilder &b,
                      PatternRewriter &rewriter) const {
    Value sums, coeff = op.getCoeff();
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointAfterValue(op.getCoeff());
      sums = sumGroups(b, op.getCoeff(), groups);
      if (op.getRound())
        coeff = b.coeff(op.getCoeff(), {}, roundingOf(op));
    }
    // In f16 these coefficients are the values themselves, which a target need not round.
    float center = areHalves(coefficients) ? 0.0f : centerOf(op, dequantize);
    Value acc = b.dot(originOf(dequantize, center, b), sums, op.getAcc(), 0);
    rewriter.replaceOp(op,
                       b.dotScaled(dequantize.getCodes(), coeff, acc, op.getContract(), dequantize.getScale(), center));
  }

  const Coefficients coefficients;
};

struct FoldScalesPass : mlir::kvq::impl::KvqTileFoldScalesBase<FoldScalesPass> {
  using KvqTileFoldScalesBase::KvqTileFoldScalesBase;
  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    patterns.add<FoldScales>(&getContext(), coefficients);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};

} // namespace
