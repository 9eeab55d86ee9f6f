// SPDX-License-Identifier: Apache-2.0
//
// The patterns of sums.

#include "codegen/nvptx/Accumulation.h"

#include "codegen/nvptx/Fragment.h"

#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;

static RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

Accumulation::Accumulation(func::FuncOp kernel) {
  kernel.walk([&](Operation *op) {
    if (auto loop = dyn_cast<scf::ForOp>(op))
      findSums(loop);
    for (Region &region : op->getRegions())
      for (Block &block : region)
        findPairs(block);
  });
}

// The source of a broadcast of rows to all columns; null for anything else.
static Value rowsOf(Value tile) {
  auto broadcast = tile.getDefiningOp<tile::BroadcastOp>();
  if (!broadcast || broadcast.getDims() != ArrayRef<int64_t>{0})
    return {};
  return typeOf(broadcast.getSource()).getDimSize(0) == typeOf(tile).getDimSize(0) ? broadcast.getSource() : Value();
}

void Accumulation::findSums(scf::ForOp loop) {
  for (auto [place, yielded] : llvm::enumerate(loop.getYieldedValues())) {
    auto dot = yielded.getDefiningOp<tile::DotOp>();
    if (!dot || dot->getBlock() != loop.getBody() || !yielded.hasOneUse() || !tile::getLayout(typeOf(dot.getX())) ||
        dot.getScale() || !usesTensorCores(dot))
      continue;
    Value scaled = dot.getAcc(), bias;
    SmallVector<Operation *> parts;
    if (auto sum = scaled.getDefiningOp<arith::AddFOp>(); sum && scaled.hasOneUse()) {
      auto spread = sum.getRhs().getDefiningOp<tile::BroadcastOp>();
      if (!spread || spread.getDims() != ArrayRef<int64_t>{0, 1})
        continue;
      bias = spread.getSource();
      if (!llvm::isPowerOf2_64(typeOf(sum).getDimSize(1) / typeOf(bias).getDimSize(1)))
        continue; // lanes would choose among columns
      scaled = sum.getLhs();
      parts.push_back(sum);
    }
    auto product = scaled.getDefiningOp<arith::MulFOp>();
    BlockArgument carried = loop.getRegionIterArg(place);
    if (!product || !scaled.hasOneUse() || product.getLhs() != carried || !carried.hasOneUse())
      continue;
    Value shrink = rowsOf(product.getRhs());
    bool centred = !dot.getCenter().isZero(); // what codes' centers take away is carried with the bias
    if (!shrink || typeOf(shrink).getRank() != 1 || (centred && !bias))
      continue;
    parts.push_back(product);
    absorbed.insert(parts.begin(), parts.end());
    sums[loop].push_back({static_cast<unsigned>(place), dot, shrink, bias});
  }
}

std::optional<double> mlir::kvq::nvptx::constantRow(tile::DotOp dot) {
  DenseElementsAttr constant;
  auto x = typeOf(dot.getX());
  if (!usesTensorCores(dot) || dot.getContract() != 1 || x.getDimSize(0) != 1 || dot.getScale() ||
      !dot.getCenter().isZero() || typeOf(dot.getCoeff()).getRank() != 2 ||
      !matchPattern(dot.getX(), m_Constant(&constant)) || !constant.isSplat())
    return std::nullopt;
  bool loses;
  APFloat value = constant.getSplatValue<APFloat>();
  value.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven, &loses);
  return value.convertToDouble();
}

void Accumulation::findPairs(Block &block) {
  // Rows that leave the upper half of m idle.
  auto isRow = [](tile::DotOp dot) {
    auto x = typeOf(dot.getX());
    return !tile::getLayout(x) && x.getElementType().isF16() && dot.getContract() == 1 &&
           llvm::isPowerOf2_64(x.getDimSize(0)) && x.getDimSize(0) <= 8 && !dot.getScale() &&
           dot.getCenter().isZero() && usesTensorCores(dot) && getElementTypeOrSelf(dot.getCoeff().getType()).isF16();
  };
  SmallVector<tile::DotOp> waiting;
  for (auto dot : block.getOps<tile::DotOp>()) {
    if (!isRow(dot) || constantRow(dot))
      continue;
    auto partner = llvm::find_if(waiting, [&](tile::DotOp first) {
      return first.getCoeff() == dot.getCoeff() && first.getX().getType() == dot.getX().getType() &&
             llvm::none_of(first->getUsers(), [&](Operation *user) {
               Operation *here = block.findAncestorOpInBlock(*user);
               return !here || here == dot || here->isBeforeInBlock(dot);
             });
    });
    if (partner == waiting.end()) {
      waiting.push_back(dot);
      continue;
    }
    pairs[dot] = *partner;
    absorbed.insert(*partner);
    waiting.erase(partner);
  }
}
