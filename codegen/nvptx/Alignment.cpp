// SPDX-License-Identifier: Apache-2.0
//
// Powers of two that divide offsets, from constants and from what arguments promise (tile::kMultipleAttr).

#include "codegen/nvptx/Alignment.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/Matchers.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::kvq;

static constexpr int64_t kMost = 1 << 20; // of 0, which everything divides

static int64_t powerIn(const APInt &value) {
  return value.isZero() ? kMost : int64_t(1) << std::min(value.countr_zero(), 20u);
}

// What the kernel's caller promises of an argument.
static int64_t promised(BlockArgument argument) {
  auto kernel = dyn_cast<func::FuncOp>(argument.getOwner()->getParentOp());
  auto multiple =
      kernel ? kernel.getArgAttrOfType<IntegerAttr>(argument.getArgNumber(), tile::kMultipleAttr) : IntegerAttr();
  return multiple ? multiple.getInt() : 1;
}

static int64_t multipleOfArgument(BlockArgument argument) {
  if (auto loop = dyn_cast<scf::ForOp>(argument.getOwner()->getParentOp()))
    if (argument == loop.getInductionVar())
      return std::min(nvptx::multipleOf(loop.getLowerBound()), nvptx::multipleOf(loop.getStep()));
  return promised(argument);
}

int64_t mlir::kvq::nvptx::multipleOf(Value index) {
  if (auto argument = dyn_cast<BlockArgument>(index))
    return multipleOfArgument(argument);
  Operation *op = index.getDefiningOp();
  APInt scalar;
  DenseElementsAttr elements;
  if (matchPattern(index, m_ConstantInt(&scalar)))
    return powerIn(scalar);
  if (matchPattern(index, m_Constant(&elements)) && isa<IntegerType, IndexType>(elements.getElementType())) {
    int64_t power = kMost;
    for (const APInt &value : elements.getValues<APInt>())
      power = std::min(power, powerIn(value));
    return power;
  }
  auto operand = [&](unsigned i) { return multipleOf(op->getOperand(i)); };
  // x - x mod c
  if (auto sub = dyn_cast<arith::SubIOp>(op))
    if (auto rest = sub.getRhs().getDefiningOp<arith::RemUIOp>(); rest && rest.getLhs() == sub.getLhs())
      return multipleOf(rest.getRhs());
  if (isa<arith::AddIOp, arith::SubIOp, arith::RemUIOp>(op))
    return std::min(operand(0), operand(1));
  if (isa<arith::MulIOp>(op))
    return std::min(kMost, operand(0) * operand(1));
  if (isa<arith::SelectOp>(op))
    return std::min(operand(1), operand(2));
  if (isa<arith::MinSIOp, arith::MaxSIOp>(op))
    return std::min(operand(0), operand(1));
  if (isa<arith::IndexCastOp, arith::ExtSIOp, arith::ExtUIOp, tensor::SplatOp, tile::BroadcastOp, tile::ConvertOp>(op))
    return operand(0);
  return 1;
}

int64_t mlir::kvq::nvptx::alignmentOf(Value ptr) {
  Type type = cast<tile::PtrType>(ptr.getType()).getElementType();
  int64_t element = std::max(1u, type.getIntOrFloatBitWidth() / 8);
  if (auto argument = dyn_cast<BlockArgument>(ptr))
    return std::max(element, promised(argument));
  if (auto advance = ptr.getDefiningOp<tile::AdvanceOp>())
    return std::max(element, std::min(alignmentOf(advance.getBase()), multipleOf(advance.getBytes())));
  if (auto page = ptr.getDefiningOp<tile::PageOp>())
    return std::max(element, std::min(alignmentOf(page.getPool()), multipleOf(page.getStride())));
  return element;
}
