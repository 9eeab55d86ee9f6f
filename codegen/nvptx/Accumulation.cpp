// SPDX-License-Identifier: Apache-2.0
//
// The patterns of sums.

#include "codegen/nvptx/Accumulation.h"

#include "codegen/nvptx/Fragment.h"

#include "mlir/Dialect/Math/IR/Math.h"
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
        findPairs(block), findUnscaled(block);
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
      if (spread->hasOneUse())
        parts.push_back(spread);
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
    Type taken = bias ? bias.getType() : Type();
    // Spread over more lanes once, behind the loop; but what is added to it is known where it is taken.
    auto convert = bias ? bias.getDefiningOp<tile::ConvertOp>() : tile::ConvertOp();
    if (convert && convert->hasOneUse() && (*convert->getUsers().begin())->hasOneUse() &&
        convert->getBlock() == loop.getBody() &&
        dot.getCenter().convertToDouble() == middleOfCodes(typeOf(dot.getX()).getElementTypeBitWidth())) {
      bias = convert.getSource();
      parts.push_back(convert);
    }
    absorbed.insert(parts.begin(), parts.end());
    sums[loop].push_back({static_cast<unsigned>(place), dot, shrink, bias, taken});
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

// The constant by which all elements are multiplied, and what is multiplied.
static std::pair<Value, std::optional<double>> multipleOf(Value value) {
  auto product = value.getDefiningOp<arith::MulFOp>();
  DenseElementsAttr factor;
  if (!product || !matchPattern(product.getRhs(), m_Constant(&factor)) || !factor.isSplat())
    return {value, std::nullopt};
  return {product.getLhs(), factor.getSplatValue<APFloat>().convertToFloat()};
}

// The sum is emitted with the products: each of its terms is for it alone, and products begin at zero.
ProductPair Accumulation::pairOf(tile::DotOp own, tile::DotOp first) {
  ProductPair pair{first, {}, 1, 1};
  auto isAlone = [](tile::DotOp dot) { return dot->hasOneUse() && matchPattern(dot.getAcc(), m_AnyZeroFloat()); };
  if (!isAlone(own) || !isAlone(first))
    return pair;
  Operation *user = *own->getUsers().begin();
  auto sum = isa<arith::MulFOp>(user) && user->hasOneUse() ? dyn_cast<arith::AddFOp>(*user->getUsers().begin())
                                                           : dyn_cast<arith::AddFOp>(user);
  if (!sum || sum->getBlock() != own->getBlock())
    return pair;
  auto [left, ofLeft] = multipleOf(sum.getLhs());
  auto [right, ofRight] = multipleOf(sum.getRhs());
  bool isSwapped = left == first.getResult() && right == own.getResult();
  if (!isSwapped && !(left == own.getResult() && right == first.getResult()))
    return pair;
  SmallVector<Operation *> parts = {sum};
  for (Value term : {sum.getLhs(), sum.getRhs()})
    if (auto product = term.getDefiningOp<arith::MulFOp>())
      parts.push_back(product);
  if (!llvm::all_of(llvm::drop_begin(parts), [](Operation *product) { return product->hasOneUse(); }))
    return pair;
  absorbed.insert(parts.begin(), parts.end());
  pair.sum = sum;
  pair.ofOwn = (isSwapped ? ofRight : ofLeft).value_or(1);
  pair.ofFirst = (isSwapped ? ofLeft : ofRight).value_or(1);
  return pair;
}

void Accumulation::findUnscaled(Block &block) {
  for (auto dot : block.getOps<tile::DotOp>()) {
    auto takesIt = [&](Operation *user) {
      if (auto reduce = dyn_cast<tile::ReduceOp>(user))
        return reduce.getKind() == tile::ReduceKind::Max;
      auto fma = dyn_cast<math::FmaOp>(user);
      return fma && fma.getA() == dot && fma.getB() != dot && fma.getC() != dot;
    };
    if (tile::getLayout(typeOf(dot.getX())) && !dot.getScale() && usesTensorCores(dot) &&
        llvm::all_of(dot->getUsers(), takesIt))
      unscaled.insert(dot);
  }
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
    pairs[dot] = pairOf(dot, *partner);
    absorbed.insert(*partner);
    waiting.erase(partner);
  }
}
