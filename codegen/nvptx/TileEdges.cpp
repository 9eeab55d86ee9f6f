// SPDX-License-Identifier: Apache-2.0
//
// The rules of layout propagation, op by op.

#include "codegen/nvptx/TileEdges.h"

#include "codegen/nvptx/Fragment.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::LaneLayout;
using tile::TileBit;

bool mlir::kvq::nvptx::isSpreadTile(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && !tile::getLayout(type);
}

static RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }

// Whether the op works element by element on tiles of f16 and of another type, which arith wants to be of one encoding.
static bool mixesHalves(Operation *op) {
  if (!op || !OpTrait::hasElementwiseMappableTraits(op))
    return false;
  auto isHalf = [](Type type) { return getElementTypeOrSelf(type).isF16(); };
  return !llvm::all_of(op->getOperandTypes(), isHalf) || !llvm::all_of(op->getResultTypes(), isHalf);
}

LaneLayout mlir::kvq::nvptx::fitPair(LaneLayout layout, Value tile) {
  if (!getElementTypeOrSelf(tile.getType()).isF16() || mixesHalves(tile.getDefiningOp()) ||
      llvm::any_of(tile.getUsers(), mixesHalves))
    layout.pair = TileBit();
  return layout;
}

LaneLayout mlir::kvq::nvptx::defaultLayout(RankedTensorType type) {
  LaneLayout layout;
  int last = static_cast<int>(type.getRank()) - 1, lane = 0;
  unsigned width = type.getElementType().isIndex() ? 64 : std::max(8u, type.getElementTypeBitWidth());
  int vector = std::min<int>(llvm::Log2_32(128 / width), tile::bitsOf(type.getShape().back()));
  // A short row leaves lanes idle sooner than it fills vectors.
  while (vector > 0 && type.getNumElements() >> vector < 32)
    --vector;
  for (int dim = last; dim >= 0; --dim)
    for (int bit = dim == last ? vector : 0; bit < tile::bitsOf(type.getDimSize(dim)) && lane < 5; ++bit)
      layout.lane[lane++] = {dim, bit};
  return layout;
}

static LaneLayout same(const LaneLayout &layout) { return layout; }

// Layout of the source of a broadcast: source dimension i stands for dimension dims[i] of the result, and each of its
// elements for as many neighbours as the result is longer.
static LaneLayout projected(const LaneLayout &result, RankedTensorType source, ArrayRef<int64_t> shape,
                            ArrayRef<int64_t> dims) {
  auto project = [&](TileBit bit) -> TileBit {
    for (auto [i, dim] : llvm::enumerate(dims)) {
      if (bit.isNone() || bit.dim != dim)
        continue;
      int64_t factor = shape[dim] / source.getDimSize(i);
      int shift = tile::bitsOf(factor);
      if (bit.bit < shift || !llvm::isPowerOf2_64(factor))
        return TileBit();
      return bit.bit - shift < tile::bitsOf(source.getDimSize(i)) ? TileBit{static_cast<int>(i), bit.bit - shift}
                                                                  : TileBit();
    }
    return TileBit();
  };
  LaneLayout layout;
  for (auto [to, from] : llvm::zip(layout.lane, result.lane))
    to = project(from);
  layout.pair = project(result.pair);
  return layout;
}

// A layout of the result that the source's comes from; lanes that the source does not use select new elements.
static LaneLayout lifted(const LaneLayout &source, RankedTensorType sourceType, RankedTensorType result,
                         ArrayRef<int64_t> dims) {
  LaneLayout layout;
  auto lift = [&](TileBit bit) -> TileBit {
    if (bit.isNone())
      return bit;
    int64_t dim = dims[bit.dim], factor = result.getDimSize(dim) / sourceType.getDimSize(bit.dim);
    if (!llvm::isPowerOf2_64(factor))
      return TileBit();
    return TileBit{static_cast<int>(dim), bit.bit + tile::bitsOf(factor)};
  };
  for (auto [to, from] : llvm::zip(layout.lane, source.lane))
    to = lift(from);
  LaneLayout usual = defaultLayout(result);
  for (TileBit &to : layout.lane)
    for (TileBit bit : usual.lane)
      if (to.isNone() && !bit.isNone() && layout.laneOf(bit) < 0)
        to = bit;
  return layout;
}

static void elementwiseEdges(Operation *op, function_ref<void(TileEdge)> visit) {
  for (Value result : op->getResults())
    for (Value operand : op->getOperands())
      if (isSpreadTile(operand) && isSpreadTile(result)) {
        visit({TileEdge::Result, operand, result, same});
        visit({TileEdge::Operand, result, operand, same});
      }
}

static void accessEdges(Value value, Value offset, Value mask, TileEdge::Kind kind,
                        function_ref<void(TileEdge)> visit) {
  if (!isSpreadTile(offset) || !isSpreadTile(value))
    return;
  int last = static_cast<int>(typeOf(value).getRank()) - 1;
  bool runs = typeOf(offset).getRank() == last;
  auto drop = [=](const LaneLayout &layout) { return runs ? tile::dropDim(layout, last) : layout; };
  for (Value operand : {offset, mask})
    if (operand)
      visit({kind, value, operand, drop});
  visit({TileEdge::Choice, offset, value,
         [=, type = typeOf(value)](const LaneLayout &layout) { return runs ? defaultLayout(type) : layout; }});
}

static void tie(Value a, Value b, function_ref<void(TileEdge)> visit) {
  if (!isSpreadTile(a))
    return;
  visit({TileEdge::Tie, a, b, same});
  visit({TileEdge::Tie, b, a, same});
}

static void loopEdges(scf::ForOp op, function_ref<void(TileEdge)> visit) {
  for (auto [init, arg, yielded, result] :
       llvm::zip(op.getInitArgs(), op.getRegionIterArgs(), op.getYieldedValues(), op.getResults())) {
    tie(init, result, visit);
    tie(arg, result, visit);
    tie(yielded, result, visit);
  }
}

static void branchEdges(scf::IfOp op, function_ref<void(TileEdge)> visit) {
  for (Region *region : {&op.getThenRegion(), &op.getElseRegion()})
    if (!region->empty())
      for (auto [yielded, result] : llvm::zip(region->front().getTerminator()->getOperands(), op.getResults()))
        tie(yielded, result, visit);
}

static void productEdges(tile::DotOp op, function_ref<void(TileEdge)> visit) {
  tie(op.getAcc(), op.getResult(), visit);
  if (op.getScale())
    visit({TileEdge::Operand, op.getResult(), op.getScale(),
           [](const LaneLayout &layout) { return tile::insertDim(tile::dropDim(layout, 0), 0); }});
  if (usesTensorCores(op))
    return;
  // A sum of a few products: each lane has what its own results are made of.
  int kept = 1 - static_cast<int>(op.getContract()), rows = static_cast<int>(typeOf(op.getCoeff()).getRank()) - 2;
  auto along = [](int from, int to) {
    return [from, to](const LaneLayout &layout) {
      LaneLayout mapped;
      for (auto [target, bit] : llvm::zip(mapped.lane, layout.lane))
        target = bit.dim == from ? TileBit{to, bit.bit} : TileBit();
      return mapped;
    };
  };
  visit({TileEdge::Operand, op.getResult(), op.getX(), along(1, kept)});
  visit({TileEdge::Operand, op.getResult(), op.getCoeff(), along(0, rows)});
}

void mlir::kvq::nvptx::forEachEdge(Operation *op, function_ref<void(TileEdge)> visit) {
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return loopEdges(loop, visit);
  if (auto branch = dyn_cast<scf::IfOp>(op))
    return branchEdges(branch, visit);
  if (auto load = dyn_cast<tile::LoadOp>(op))
    return accessEdges(load.getResult(), load.getOffset(), load.getMask(), TileEdge::Operand, visit);
  if (auto store = dyn_cast<tile::StoreOp>(op))
    return accessEdges(store.getValue(), store.getOffset(), store.getMask(), TileEdge::Tie, visit);
  if (auto dot = dyn_cast<tile::DotOp>(op))
    return productEdges(dot, visit);
  if (auto reduce = dyn_cast<tile::ReduceOp>(op)) {
    if (!isSpreadTile(reduce.getResult()))
      return;
    int dim = static_cast<int>(reduce.getDim());
    visit({TileEdge::Result, reduce.getSource(), reduce.getResult(),
           [dim](const LaneLayout &layout) { return tile::dropDim(layout, dim); }});
    visit({TileEdge::Choice, reduce.getResult(), reduce.getSource(),
           [dim](const LaneLayout &layout) { return tile::insertDim(layout, dim); }});
    return;
  }
  if (auto broadcast = dyn_cast<tile::BroadcastOp>(op)) {
    auto source = typeOf(broadcast.getSource()), result = typeOf(broadcast.getResult());
    SmallVector<int64_t> dims(broadcast.getDims());
    visit({TileEdge::Operand, broadcast.getResult(), broadcast.getSource(),
           [=](const LaneLayout &layout) { return projected(layout, source, result.getShape(), dims); }});
    visit({TileEdge::Choice, broadcast.getSource(), broadcast.getResult(),
           [=](const LaneLayout &layout) { return lifted(layout, source, result, dims); }});
    return;
  }
  if (auto coeff = dyn_cast<tile::CoeffOp>(op)) {
    visit({TileEdge::Operand, coeff.getResult(), coeff.getValues(),
           [](const LaneLayout &layout) { return tile::dropDim(layout, 0); }});
    if (coeff.getScale())
      visit({TileEdge::Operand, coeff.getResult(), coeff.getScale(),
             [](const LaneLayout &layout) { return tile::dropDim(layout, 1); }});
    return;
  }
  if (auto dequantize = dyn_cast<tile::DequantizeOp>(op)) {
    // Scales are [groups, n], n along the other dimension: where that is the first, they stand transposed.
    auto result = typeOf(dequantize.getResult()), scale = typeOf(dequantize.getScale());
    bool perChannel = dequantize.getAxis() == "channel";
    auto project = [=](const LaneLayout &layout) {
      LaneLayout turned = layout;
      for (TileBit &bit : turned.lane)
        if (!bit.isNone() && !perChannel)
          bit.dim = 1 - bit.dim;
      turned.pair = TileBit();
      SmallVector<int64_t> shape{result.getDimSize(perChannel ? 0 : 1), result.getDimSize(perChannel ? 1 : 0)};
      return projected(turned, scale, shape, {0, 1});
    };
    for (Value params : {dequantize.getScale(), dequantize.getMin()})
      visit({TileEdge::Operand, dequantize.getResult(), params, project});
    return;
  }
  if (OpTrait::hasElementwiseMappableTraits(op))
    elementwiseEdges(op, visit);
}
