// SPDX-License-Identifier: Apache-2.0
//
// kvq-verify-llvm: the boundary between MLIR and LLVM.

#include "codegen/Passes.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

namespace mlir::kvq {
#define GEN_PASS_DEF_VERIFYLLVMPASS
#include "codegen/Passes.h.inc"
} // namespace mlir::kvq

using namespace mlir;

namespace {

struct VerifyLLVM : mlir::kvq::impl::VerifyLLVMPassBase<VerifyLLVM> {
  using VerifyLLVMPassBase::VerifyLLVMPassBase;

  void runOnOperation() override {
    Operation *left = nullptr;
    getOperation()->walk([&](Operation *op) {
      StringRef dialect = op->getName().getDialectNamespace();
      if (isa<ModuleOp>(op) || dialect == LLVM::LLVMDialect::getDialectNamespace() ||
          llvm::is_contained(also, dialect.str()))
        return WalkResult::advance();
      // Conversions leave casts between them and an op that none of them takes: the op is the news.
      bool isCast = isa<UnrealizedConversionCastOp>(op);
      left = left && isCast ? left : op;
      return isCast ? WalkResult::advance() : WalkResult::interrupt();
    });
    if (!left)
      return;
    auto diagnostic = left->emitError("'") << left->getName() << "' is left after conversion to the llvm dialect";
    diagnostic.attachNote() << "likely an op that tile programs may not use; see docs/generated/dialect.md";
    signalPassFailure();
  }
};

} // namespace
