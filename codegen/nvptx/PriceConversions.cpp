// SPDX-License-Identifier: Apache-2.0
//
// kvq-nvptx-price-conversions: what moving tiles to other lanes costs, as text beside each conversion.

#include "codegen/nvptx/Fragment.h"
#include "codegen/nvptx/Passes.h"
#include "dialect/tile/Tile.h"

namespace mlir::kvq::nvptx {
#define GEN_PASS_DEF_PRICECONVERSIONSPASS
#include "codegen/nvptx/Passes.h.inc"
} // namespace mlir::kvq::nvptx

using namespace mlir;
using namespace mlir::kvq;
using namespace mlir::kvq::nvptx;
using tile::LaneLayout;

// Shuffles move words, and 64 bits are two of them. Elements in pairs are sent one by one.
static std::string costOf(tile::ConvertOp op) {
  auto type = cast<RankedTensorType>(op.getType());
  const LaneLayout source = *tile::getLanes(op.getSource().getType());
  LaneLayout target = *tile::getLanes(type);
  const Move move = moveOf(source, target, type.getElementType());
  const int64_t registers = tile::RegisterFile(type.getShape(), target).count();
  if (move == Move::Rename)
    return target.pair.isNone() || target.pair == source.pair ? "nothing" : std::to_string(registers) + " prmt";
  if (move == Move::Transpose)
    return std::to_string(registers) + " movmatrix";
  target.pair = {};
  const int64_t words = type.getElementType().isIndex() || type.getElementType().isInteger(64) ? 2 : 1;
  const int64_t sent = tile::RegisterFile(type.getShape(), target).count() << bitsThatChoose(source, target).size();
  return std::to_string(sent * words) + " shfl";
}

namespace {

struct PriceConversions : mlir::kvq::nvptx::impl::PriceConversionsPassBase<PriceConversions> {
  void runOnOperation() override {
    getOperation()->walk(
        [](tile::ConvertOp op) { op->setAttr("cost", StringAttr::get(op->getContext(), costOf(op))); });
  }
};

} // namespace
