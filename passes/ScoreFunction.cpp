// SPDX-License-Identifier: Apache-2.0
//
// From a function to a region: the body is the same, and ends in kvq.yield.

#include "passes/ScoreFunction.h"

using namespace mlir;
using namespace mlir::kvq;

static constexpr StringLiteral kForm =
    "(f32, index, index, index, index) -> f32: score, batch, head, query, key, and captures behind them";

// The one function of the module.
static FailureOr<func::FuncOp> findFunction(ModuleOp module) {
  func::FuncOp found;
  for (Operation &op : *module.getBody()) {
    auto func = dyn_cast<func::FuncOp>(op);
    if (!func || found) // score_function_c1
      return op.emitOpError("has no place beside a score function; write one func.func and nothing else");
    found = func;
  }
  if (!found) // score_function_c1
    return module.emitError("the text holds no score function; write one func.func ") << kForm;
  return found;
}

static LogicalResult checkFunction(func::FuncOp func) {
  ArrayRef<Type> inputs = func.getArgumentTypes(), results = func.getResultTypes();
  bool fits = inputs.size() >= 5 && inputs[0].isF32() && results.size() == 1 && results[0].isF32();
  if (!fits || !llvm::all_of(inputs.slice(1, 4), llvm::IsaPred<IndexType>)) // score_function_c2
    return func.emitOpError("is of type ") << func.getFunctionType() << "; a score function is " << kForm;
  if (func.isExternal() || !func.getBody().hasOneBlock()) // score_function_c3
    return func.emitOpError("is a score function without a body of one block; choose with arith.select");
  return success();
}

LogicalResult mlir::kvq::addScoreFunction(ModuleOp kernel, ModuleOp score) {
  FailureOr<func::FuncOp> function = findFunction(score);
  if (failed(function) || failed(checkFunction(*function)))
    return failure();
  AttentionOp attention;
  kernel.walk([&](AttentionOp op) { attention = op; });
  if (!attention) // score_function_c4
    return function->emitOpError("is a score function for a kernel that does not attend; ask for an attend kernel");
  auto owner = attention->getParentOfType<func::FuncOp>();
  Block &body = function->getBody().front();
  for (BlockArgument capture : llvm::drop_begin(body.getArguments(), 5)) {
    if (failed(owner.insertArgument(owner.getNumArguments(), capture.getType(), {}, capture.getLoc())))
      return failure();
    attention.getCapturesMutable().append(owner.getArguments().back());
  }
  Operation *end = body.getTerminator();
  OpBuilder builder(end);
  YieldOp::create(builder, end->getLoc(), end->getOperand(0));
  end->erase();
  attention.getScore().takeBody(function->getBody());
  return success();
}
