// SPDX-License-Identifier: Apache-2.0
//
// What TileEmitter takes, said before it emits anything: an error that stands at the op of the program, instead of one
// somewhere in the code made of it. Verifiers of ops have run; this checks what they allow and this target does not.

#include "codegen/cpu/TileEmitter.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::kvq;

static bool isHalf(Type type) { return getElementTypeOrSelf(type).isF16() || getElementTypeOrSelf(type).isBF16(); }

// Why a value of that type cannot be in a program; empty where it can.
static StringRef whyNotType(Value value) {
  auto tile = dyn_cast<RankedTensorType>(value.getType());
  Type element = tile ? tile.getElementType() : value.getType();
  if (tile && tile.getEncoding())
    return isa_and_present<tile::CodesOp>(value.getDefiningOp())
               ? ""
               : "only kvq_tile.codes makes a tile with an encoding; use kvq_tile.unpack or kvq_tile.dequantize";
  if (tile && (!tile.hasStaticShape() || tile.getRank() == 0 || tile.getNumElements() == 0))
    return "a tile has a static shape of one or more dimensions and at least one element";
  bool taken = element.isF32() || element.isF16() || element.isBF16() || element.isIndex() || element.isInteger(64) ||
               element.isInteger(32) || element.isInteger(8) || element.isInteger(1);
  if (!taken && !(isa<tile::PtrType>(element) && !tile))
    return "use f32, f16, bf16, i64, i32, i8, i1 or index";
  return "";
}

static LogicalResult checkOperands(Operation &op) {
  if (isa<tile::ScoreHookOp>(op))
    return op.emitOpError("calls a function in CUDA C++, which no CPU has; write the score function with ops of arith "
                          "and math");
  for (OpOperand &operand : op.getOpOperands()) {
    auto type = dyn_cast<RankedTensorType>(operand.get().getType());
    if (!type || !type.getEncoding())
      continue;
    auto dot = dyn_cast<tile::DotOp>(op);
    if (!isa<tile::UnpackOp, tile::DequantizeOp>(op) && !(dot && operand.getOperandNumber() == 0))
      return op.emitOpError("takes packed codes, which are only in memory; use kvq_tile.unpack or kvq_tile.dequantize");
  }
  if (auto dot = dyn_cast<tile::DotOp>(op)) {
    auto x = cast<RankedTensorType>(dot.getX().getType());
    if (!x.getElementType().isF32() && !x.getEncoding())
      return op.emitOpError("takes x of type ") << x << ", which is neither f32 nor made by kvq_tile.codes";
  }
  return success();
}

// Arithmetic is in f32; halves are loaded, stored, chosen and converted.
static LogicalResult checkHalves(Operation &op) {
  if (auto extend = dyn_cast<arith::ExtFOp>(op); extend && !isHalf(extend.getIn().getType()))
    return op.emitOpError("has no lowering to CPU code: it extends f16 and bf16 to f32 only");
  if (auto truncate = dyn_cast<arith::TruncFOp>(op)) {
    auto mode = truncate.getRoundingmode();
    if (mode && *mode != arith::RoundingMode::to_nearest_even)
      return op.emitOpError("has no lowering to CPU code: it rounds to nearest, ties to even, only");
    return success();
  }
  bool computes = OpTrait::hasElementwiseMappableTraits(&op) && !isa<arith::ExtFOp, arith::SelectOp>(op);
  bool halves = llvm::any_of(op.getOperandTypes(), isHalf) || llvm::any_of(op.getResultTypes(), isHalf);
  if (computes && halves)
    return op.emitOpError("has no lowering to CPU code: it computes with f16 or bf16; convert to f32 with arith.extf "
                          "before and with arith.truncf after");
  return success();
}

LogicalResult mlir::kvq::cpu::checkTiles(func::FuncOp kernel) {
  WalkResult result = kernel.getBody().walk<WalkOrder::PreOrder>([](Operation *op) {
    SmallVector<Value> made(op->getResults());
    for (Region &region : op->getRegions())
      for (Block &block : region)
        llvm::append_range(made, block.getArguments());
    for (Value value : made)
      if (StringRef why = whyNotType(value); !why.empty()) {
        op->emitOpError("makes a value of type ") << value.getType() << ", which has no place in a kernel: " << why;
        return WalkResult::interrupt();
      }
    if (auto constant = dyn_cast<arith::ConstantOp>(op);
        constant && isa<RankedTensorType>(constant.getType()) && !isa<DenseElementsAttr>(constant.getValue())) {
      op->emitOpError("has no lowering to CPU code: a constant tile is written with dense<...>");
      return WalkResult::interrupt();
    }
    return failed(checkOperands(*op)) || failed(checkHalves(*op)) ? WalkResult::interrupt() : WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}
