// SPDX-License-Identifier: Apache-2.0
//
// kvq-expand: every kernel of the upper level becomes the tile program of its request. What the programs are is in
// passes/expand; here is only the check that a function says what such a program computes.

#include "dialect/kvq/Kvq.h"
#include "passes/Passes.h"
#include "passes/expand/Kernels.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

namespace mlir::kvq {
#define GEN_PASS_DEF_KVQEXPAND
#include "passes/Passes.h.inc"
} // namespace mlir::kvq

using namespace mlir;
using namespace mlir::kvq;
using ::kvq::KernelOp;

namespace {

// The op that a kernel of this operation consists of.
StringRef expectedOp(KernelOp op) {
  switch (op) {
  case KernelOp::Append:
    return AppendOp::getOperationName();
  case KernelOp::QuantizeK:
  case KernelOp::QuantizeV:
    return CommitOp::getOperationName();
  case KernelOp::Attend:
    return AttentionOp::getOperationName();
  case KernelOp::Merge:
    return MergeOp::getOperationName();
  case KernelOp::DequantizeK:
  case KernelOp::DequantizeV:
    return DequantizeOp::getOperationName();
  case KernelOp::ConvertK:
  case KernelOp::ConvertV:
    return ConvertOp::getOperationName();
  }
  llvm_unreachable("all operations are handled");
}

LogicalResult checkAttention(AttentionOp op) {
  if (!op.getCacheType()) // expand_c2
    return op.emitOpError("reads dense or single packed K and V, for which there is no kernel; attend to a cache, and "
                          "run kvq-fuse-packed first");
  if (!op.getBoundsAttr() || !op.getBoundsAttr().isCausalOnly()) // expand_c3
    return op.emitOpError("has bounds that are not lowered yet; use bounds <causal = true>, and a window or a score "
                          "region for other masks");
  for (Value capture : op.getCaptures()) {
    Type type = capture.getType();
    if (!type.isF32() && !type.isInteger(32) && !type.isInteger(64)) // expand_c4
      return op.emitOpError("captures a value of type ") << type << "; a kernel takes f32, i32 and i64";
    if (!isa<BlockArgument>(capture)) // expand_c4
      return op.emitOpError("captures a value that is computed in the kernel; make it an argument of the function");
  }
  return success();
}

LogicalResult checkSide(Operation *op, const ::kvq::KernelRequest &request) {
  bool isK = request.op == KernelOp::QuantizeK;
  if (auto commit = dyn_cast<CommitOp>(op); commit && (commit.getSide() == KvSide::K) != isK) // expand_c5
    return op->emitOpError("commits the other side than its kernel, '") << StringRef(::kvq::toText(request.op)) << "'";
  return success();
}

LogicalResult checkConvert(ConvertOp op, const ::kvq::KernelRequest &request) {
  ConvertedPages pages = getConvertedPages(op.getContext(), request);
  if (op.getSource().getType() != pages.from || op.getType() != pages.to) // expand_c8
    return op.emitOpError("converts other pages than its kernel, which makes ")
           << pages.to << " of " << pages.from << "; quantize anew where the format changes";
  return success();
}

// The one upper op of a kernel, if the function is nothing but that op and its return.
FailureOr<Operation *> findKernelOp(func::FuncOp func, const ::kvq::KernelRequest &request) {
  StringRef expected = expectedOp(request.op);
  Operation *found = nullptr;
  if (func.isExternal() || !func.getBody().hasOneBlock())
    return func.emitOpError("is a kernel without a body of one block; write one ") << expected << " and a return";
  for (Operation &op : func.getBody().front().without_terminator()) {
    if (found || op.getName().getStringRef() != expected) { // expand_c1
      InFlightDiagnostic error = op.emitOpError("has no place in a kernel '")
                                 << StringRef(::kvq::toText(request.op)) << "', which is one " << expected;
      if (isa<ReadOp>(op))
        error.attachNote() << "kvq.read is removed by kvq-fuse-packed, where its conditions hold; run it first";
      return failure();
    }
    found = &op;
  }
  if (!found) // expand_c1
    return func.emitOpError("is a kernel without its op; write one ") << expected;
  if (auto attention = dyn_cast<AttentionOp>(found); attention && failed(checkAttention(attention)))
    return failure();
  if (auto convert = dyn_cast<ConvertOp>(found); convert && failed(checkConvert(convert, request)))
    return failure();
  if (failed(checkSide(found, request)))
    return failure();
  return found;
}

LogicalResult expand(func::FuncOp func, const ::kvq::KernelRequest &request, const TargetModel &target) {
  FailureOr<Operation *> op = findKernelOp(func, request);
  if (failed(op))
    return failure();
  MLIRContext *context = func.getContext();
  SmallVector<Type> types = getKernelArgumentTypes(context, request);
  Region *score = nullptr;
  if (auto attention = dyn_cast<AttentionOp>(*op)) {
    llvm::append_range(types, attention.getCaptures().getTypes());
    score = attention.getScore().empty() ? nullptr : &attention.getScore();
  }
  auto schedule = func->getAttrOfType<tile::ScheduleAttr>(tile::kScheduleAttr);
  if (!schedule)
    schedule = getDefaultSchedule(context, request, target);
  OpBuilder builder(func);
  auto kernel = func::FuncOp::create(builder, (*op)->getLoc(), func.getName(), builder.getFunctionType(types, {}));
  kernel->setAttr(tile::kKernelAttr, builder.getUnitAttr());
  kernel->setAttr(tile::kScheduleAttr, schedule);
  for (unsigned i = 0; i < types.size(); ++i)
    if (int64_t multiple = getArgumentMultiple(request.op, i); multiple > 1)
      kernel.setArgAttr(i, tile::kMultipleAttr, builder.getI64IntegerAttr(multiple));
  kernel.addEntryBlock();
  LogicalResult built = buildKernelBody(kernel, request, schedule, score, target);
  if (failed(built))
    kernel.erase();
  else
    func.erase();
  return built;
}

struct Expand : mlir::kvq::impl::KvqExpandBase<Expand> {
  using KvqExpandBase::KvqExpandBase;
  void runOnOperation() override {
    SmallVector<std::pair<func::FuncOp, ::kvq::KernelRequest>> kernels;
    getOperation()->walk([&](func::FuncOp func) {
      if (std::optional<::kvq::KernelRequest> request = getKernelRequest(func))
        kernels.push_back({func, *request});
    });
    TargetModel target;
    target.coefficients = coefficients;
    target.laneRegisters = laneRegisters;
    target.bitsAhead = bitsAhead;
    target.warps = warps;
    for (auto &[func, request] : kernels)
      if (failed(expand(func, request, target)))
        return signalPassFailure();
  }
};

} // namespace
