// SPDX-License-Identifier: Apache-2.0
//
// kvq-verify-tiles: the boundary below tile expansion. It changes nothing.

#include "passes/Passes.h"

#include "dialect/tile/Tile.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

namespace mlir::kvq {
#define GEN_PASS_DEF_KVQVERIFYTILES
#include "passes/Passes.h.inc"
} // namespace mlir::kvq

using namespace mlir;
using namespace mlir::kvq;

namespace {

constexpr StringLiteral kUpperDialect = "kvq";

bool isAllowed(Operation *op) {
  if (isa<ModuleOp, func::FuncOp, func::ReturnOp, tensor::SplatOp, scf::ForOp, scf::IfOp, scf::YieldOp>(op))
    return true;
  StringRef dialect = op->getName().getDialectNamespace();
  return dialect == tile::KvqTileDialect::getDialectNamespace() ||
         dialect == arith::ArithDialect::getDialectNamespace() || dialect == math::MathDialect::getDialectNamespace();
}

bool isUpper(Type type) { return type.getDialect().getNamespace() == kUpperDialect; }

LogicalResult checkOp(Operation *op) {
  if (op->getName().getDialectNamespace() == kUpperDialect) { // verify_tiles_c1
    InFlightDiagnostic error = op->emitOpError("is left after tile expansion");
    error.attachNote() << "likely cause: its function has no 'kvq.kernel', so that kvq-expand left it alone";
    return failure();
  }
  if (!isAllowed(op)) { // verify_tiles_c2
    InFlightDiagnostic error =
        op->emitOpError("cannot be in a tile program; use kvq_tile, arith, math, scf.for, scf.if "
                        "and tensor.splat");
    if (op->getName().getDialectNamespace() == "func")
      error.attachNote() << "a kernel calls nothing; inline the function";
    return failure();
  }
  auto func = dyn_cast<func::FuncOp>(op);
  bool upperArgument = func && llvm::any_of(func.getArgumentTypes(), isUpper);
  if (upperArgument || llvm::any_of(op->getResultTypes(), isUpper)) { // verify_tiles_c1
    InFlightDiagnostic error = op->emitOpError("has a value of a type of the kvq dialect after tile expansion");
    error.attachNote() << "likely cause: its function has no 'kvq.kernel', so that kvq-expand left it alone";
    return failure();
  }
  if (func && !func->hasAttr(tile::kKernelAttr)) // verify_tiles_c3
    return func.emitOpError("is no kernel; give it the attribute '")
           << tile::kKernelAttr << "', or inline it where it is called";
  return success();
}

struct VerifyTiles : mlir::kvq::impl::KvqVerifyTilesBase<VerifyTiles> {
  void runOnOperation() override {
    // Ops before the function that they are in: what is left inside says more than that it is no kernel.
    WalkResult result = getOperation()->walk(
        [](Operation *op) { return failed(checkOp(op)) ? WalkResult::interrupt() : WalkResult::advance(); });
    if (result.wasInterrupted())
      signalPassFailure();
    markAllAnalysesPreserved();
  }
};

} // namespace
