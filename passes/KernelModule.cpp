// SPDX-License-Identifier: Apache-2.0
//
// Builds the plain program of each built-in kernel, and kvq-kernel, the pass that does so for text drivers.

#include "passes/KernelModule.h"

#include "passes/Passes.h"

#include "mlir/IR/Builders.h"

namespace mlir::kvq {
#define GEN_PASS_DEF_KVQKERNEL
#include "passes/Passes.h.inc"
} // namespace mlir::kvq

using namespace mlir;
using namespace mlir::kvq;

namespace {

constexpr int64_t kAny = ShapedType::kDynamic;

// The types that the programs of one request are made of.
struct Types {
  Types(MLIRContext *context, const ::kvq::KernelRequest &request)
      : cache(CacheType::get(context, request)), problem(cache.getProblem()), f32(Float32Type::get(context)) {}

  RankedTensorType tensor(ArrayRef<int64_t> shape, Type element) const { return RankedTensorType::get(shape, element); }
  RankedTensorType rows(int headDim, Type element) const { return tensor({kAny, kAny, headDim}, element); }
  RankedTensorType lse() const { return tensor({kAny, kAny}, f32); }

  CacheType cache;
  ProblemAttr problem;
  Type f32;
};

// A function of these types with an empty body, the builder's insertion point in it.
func::FuncOp makeFunction(OpBuilder &builder, const ::kvq::KernelRequest &request, TypeRange inputs,
                          TypeRange results) {
  auto func = func::FuncOp::create(builder, builder.getUnknownLoc(), StringRef(::kvq::toText(request.op)),
                                   builder.getFunctionType(inputs, results));
  func->setAttr(kKernelAttr, builder.getStringAttr(::kvq::toText(request)));
  builder.setInsertionPointToStart(func.addEntryBlock());
  return func;
}

void buildAppend(OpBuilder &builder, const ::kvq::KernelRequest &request, const Types &types) {
  Type bad = types.tensor({kAny}, builder.getI32Type());
  auto func = makeFunction(
      builder, request,
      {types.rows(request.dk, types.problem.getType()), types.rows(request.dv, types.problem.getType()), types.cache},
      bad);
  auto append =
      AppendOp::create(builder, func.getLoc(), bad, func.getArgument(0), func.getArgument(1), func.getArgument(2));
  func::ReturnOp::create(builder, func.getLoc(), append.getBad());
}

void buildQuantize(OpBuilder &builder, const ::kvq::KernelRequest &request, const Types &types, KvSide side) {
  auto func = makeFunction(builder, request, types.cache, {});
  CommitOp::create(builder, func.getLoc(), func.getArgument(0), side);
  func::ReturnOp::create(builder, func.getLoc());
}

// A program of the kernel sees a range of the keys; its results are parts for merge, which are f32. Window and score
// cap are arguments where the request has them.
void buildAttend(OpBuilder &builder, const ::kvq::KernelRequest &request, const Types &types) {
  SmallVector<Type> results{types.rows(request.dv, types.f32), types.lse()};
  SmallVector<Type> inputs{types.rows(request.dk, types.problem.getType()), types.cache, types.f32};
  if (request.window)
    inputs.push_back(builder.getI64Type());
  if (request.scoreCap)
    inputs.push_back(types.f32);
  auto func = makeFunction(builder, request, inputs, results);
  Value window = request.window ? func.getArgument(3) : Value();
  Value scoreCap = request.scoreCap ? func.getArguments().back() : Value();
  auto read = ReadOp::create(builder, func.getLoc(), func.getArgument(1));
  auto bounds = BoundsAttr::get(builder.getContext(), /*causal=*/true, std::nullopt, std::nullopt, 0);
  auto attention = AttentionOp::create(builder, func.getLoc(), results[0], results[1], func.getArgument(0), read.getK(),
                                       read.getV(), func.getArgument(2), window, scoreCap, ValueRange(), bounds);
  func::ReturnOp::create(builder, func.getLoc(), attention.getResults());
}

void buildMerge(OpBuilder &builder, const ::kvq::KernelRequest &request, const Types &types) {
  SmallVector<Type> results{types.rows(request.dv, types.problem.getType()), types.lse()};
  auto func = makeFunction(builder, request,
                           {types.tensor({kAny, kAny, kAny, request.dv}, types.f32),
                            types.tensor({kAny, kAny, kAny}, types.f32), types.tensor({kAny}, types.f32)},
                           results);
  auto merge = MergeOp::create(builder, func.getLoc(), results, func.getArguments());
  func::ReturnOp::create(builder, func.getLoc(), merge.getResults());
}

void buildDequantize(OpBuilder &builder, const ::kvq::KernelRequest &request, const Types &types, KvSide side) {
  PackedType page = types.cache.getPageType(side);
  Type values = types.tensor({page.getTokens(), page.getChannels()}, types.problem.getType());
  auto func = makeFunction(builder, request, page, values);
  auto dequantize =
      DequantizeOp::create(builder, func.getLoc(), values, func.getArgument(0), Value(), Value(), SideAttr());
  func::ReturnOp::create(builder, func.getLoc(), dequantize.getValues());
}

void buildConvert(OpBuilder &builder, const ::kvq::KernelRequest &request) {
  ConvertedPages pages = getConvertedPages(builder.getContext(), request);
  auto func = makeFunction(builder, request, pages.from, pages.to);
  auto convert = ConvertOp::create(builder, func.getLoc(), pages.to, func.getArgument(0));
  func::ReturnOp::create(builder, func.getLoc(), convert.getResult());
}

} // namespace

void mlir::kvq::buildKernel(ModuleOp module, const ::kvq::KernelRequest &request) {
  OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
  Types types(module.getContext(), request);
  switch (request.op) {
  case ::kvq::KernelOp::Append:
    return buildAppend(builder, request, types);
  case ::kvq::KernelOp::QuantizeK:
    return buildQuantize(builder, request, types, KvSide::K);
  case ::kvq::KernelOp::QuantizeV:
    return buildQuantize(builder, request, types, KvSide::V);
  case ::kvq::KernelOp::Attend:
    return buildAttend(builder, request, types);
  case ::kvq::KernelOp::Merge:
    return buildMerge(builder, request, types);
  case ::kvq::KernelOp::DequantizeK:
    return buildDequantize(builder, request, types, KvSide::K);
  case ::kvq::KernelOp::DequantizeV:
    return buildDequantize(builder, request, types, KvSide::V);
  case ::kvq::KernelOp::ConvertK:
  case ::kvq::KernelOp::ConvertV:
    return buildConvert(builder, request);
  }
}

OwningOpRef<ModuleOp> mlir::kvq::buildKernelModule(MLIRContext *context, const ::kvq::KernelRequest &request) {
  context->loadDialect<KvqDialect, func::FuncDialect>();
  OpBuilder builder(context);
  OwningOpRef<ModuleOp> module = ModuleOp::create(builder, builder.getUnknownLoc());
  buildKernel(*module, request);
  return module;
}

namespace {

struct KernelPass : mlir::kvq::impl::KvqKernelBase<KernelPass> {
  using KvqKernelBase::KvqKernelBase;
  void runOnOperation() override {
    auto parsed = ::kvq::parseKernelRequest(request.getValue());
    if (!parsed.isOk()) {
      getOperation().emitError() << parsed.status().message();
      return signalPassFailure();
    }
    if (StringRef name = ::kvq::toText(parsed.value().op); getOperation().lookupSymbol(name)) {
      getOperation().emitError() << "the module has a function '" << name << "' already; rename it";
      return signalPassFailure();
    }
    buildKernel(getOperation(), parsed.value());
  }
};

} // namespace
