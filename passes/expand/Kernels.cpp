// SPDX-License-Identifier: Apache-2.0
//
// Signatures and the choice of a builder.

#include "passes/expand/Kernels.h"

#include "passes/TileBuilder.h"
#include <kvq/kernel_abi.h>

using namespace mlir;
using namespace mlir::kvq;
using ::kvq::KernelOp;

namespace {

// The types a kernel's arguments are made of, by one letter each: `b` bytes or items, `x` elements of K, V, q and out,
// `f` ptr<f32>, `i` ptr<i32>, `l` ptr<i64>, `n` i64, `s` f32.
SmallVector<Type> decode(StringRef letters, MLIRContext *context, ::kvq::ElementType data) {
  Builder b(context);
  auto ptr = [&](Type element) { return Type(tile::PtrType::get(context, element)); };
  SmallVector<Type> types;
  for (char letter : letters) {
    switch (letter) {
    case 'b':
      types.push_back(ptr(b.getI8Type()));
      break;
    case 'x':
      types.push_back(ptr(tile::toType(context, data)));
      break;
    case 'f':
      types.push_back(ptr(b.getF32Type()));
      break;
    case 'i':
      types.push_back(ptr(b.getI32Type()));
      break;
    case 'l':
      types.push_back(ptr(b.getI64Type()));
      break;
    case 'n':
      types.push_back(b.getI64Type());
      break;
    case 's':
      types.push_back(b.getF32Type());
      break;
    }
  }
  return types;
}

// Position by position the enums of kernel_abi.h.
constexpr StringLiteral kAppend = "bxnxnxxnnni", kQuantize = "bbnnxnnn", kAttend = "bxlnbnnixxnnniiisnsffn",
                        kMerge = "ffnnixlnffn", kDequantize = "bbnnxn", kConvert = "bbnnbnn";
static_assert(kAppend.size() == KVQ_APPEND_ARGS && kQuantize.size() == KVQ_QUANTIZE_ARGS &&
              kAttend.size() == KVQ_ATTEND_ARGS && kMerge.size() == KVQ_MERGE_ARGS &&
              kDequantize.size() == KVQ_DEQUANTIZE_ARGS && kConvert.size() == KVQ_CONVERT_ARGS);

} // namespace

SmallVector<Type> mlir::kvq::getKernelArgumentTypes(MLIRContext *context, const ::kvq::KernelRequest &request) {
  switch (request.op) {
  case KernelOp::Append:
    return decode(kAppend, context, request.type);
  case KernelOp::QuantizeK:
  case KernelOp::QuantizeV:
    return decode(kQuantize, context, request.type);
  case KernelOp::Attend:
    return decode(kAttend, context, request.type);
  case KernelOp::Merge:
    return decode(kMerge, context, request.type);
  case KernelOp::DequantizeK:
  case KernelOp::DequantizeV:
    return decode(kDequantize, context, request.type);
  case KernelOp::ConvertK:
  case KernelOp::ConvertV:
    return decode(kConvert, context, request.type);
  }
  llvm_unreachable("all operations are handled");
}

int64_t mlir::kvq::getArgumentMultiple(KernelOp op, unsigned argument) {
  static constexpr int64_t kLine = 64;
  auto isOne = [argument](std::initializer_list<unsigned> of) { return llvm::is_contained(of, argument); };
  bool aligned = false;
  switch (op) {
  case KernelOp::Append:
    aligned = isOne({KVQ_APPEND_TAIL_K, KVQ_APPEND_TAIL_V});
    break;
  case KernelOp::QuantizeK:
  case KernelOp::QuantizeV:
    aligned = isOne({KVQ_QUANTIZE_PAGES, KVQ_QUANTIZE_BLOCK_STRIDE, KVQ_QUANTIZE_HEAD_STRIDE, KVQ_QUANTIZE_TAIL});
    break;
  case KernelOp::Attend:
    aligned = isOne(
        {KVQ_ATTEND_PAGES, KVQ_ATTEND_BLOCK_STRIDE, KVQ_ATTEND_HEAD_STRIDE, KVQ_ATTEND_TAIL_K, KVQ_ATTEND_TAIL_V});
    break;
  case KernelOp::Merge:
    break;
  case KernelOp::DequantizeK:
  case KernelOp::DequantizeV:
    aligned = isOne({KVQ_DEQUANTIZE_PAGES, KVQ_DEQUANTIZE_BLOCK_STRIDE, KVQ_DEQUANTIZE_HEAD_STRIDE});
    break;
  case KernelOp::ConvertK:
  case KernelOp::ConvertV:
    aligned = argument != KVQ_CONVERT_ITEMS;
    break;
  }
  return aligned ? kLine : 1;
}

tile::ScheduleAttr mlir::kvq::getDefaultSchedule(MLIRContext *context, const ::kvq::KernelRequest &request,
                                                 const TargetModel &target) {
  return toAttr(context, defaultSchedule(request, target));
}

tile::ScheduleAttr mlir::kvq::toAttr(MLIRContext *context, const ::kvq::Schedule &schedule) {
  return tile::ScheduleAttr::get(context, schedule.tileTokens, schedule.rows, schedule.vectors, schedule.prefetch,
                                 schedule.blocks, schedule.warps);
}

LogicalResult mlir::kvq::buildKernelBody(func::FuncOp kernel, const ::kvq::KernelRequest &request,
                                         tile::ScheduleAttr schedule, Region *score, const TargetModel &target) {
  switch (request.op) {
  case KernelOp::Append:
    buildAppend(kernel, request);
    break;
  case KernelOp::QuantizeK:
  case KernelOp::QuantizeV:
    buildQuantize(kernel, request, schedule);
    break;
  case KernelOp::Attend:
    if (failed(buildAttend(kernel, request, schedule, score, target)))
      return failure();
    break;
  case KernelOp::Merge:
    buildMerge(kernel, request);
    break;
  case KernelOp::DequantizeK:
  case KernelOp::DequantizeV:
    buildDequantize(kernel, request);
    break;
  case KernelOp::ConvertK:
  case KernelOp::ConvertV:
    buildConvert(kernel, request);
    break;
  }
  OpBuilder builder = OpBuilder::atBlockEnd(&kernel.getBody().front());
  func::ReturnOp::create(builder, kernel.getLoc());
  return success();
}
