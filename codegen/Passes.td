// SPDX-License-Identifier: Apache-2.0
//
// Passes that targets share.

#ifndef KVQ_CODEGEN_PASSES_TD
#define KVQ_CODEGEN_PASSES_TD

include "mlir/Pass/PassBase.td"

def VerifyLLVMPass : Pass<"kvq-verify-llvm", "::mlir::ModuleOp"> {
  let summary = "Check that only the llvm dialect is left";
  let description = [{
    The boundary below a target's pipeline: any op that is neither of the llvm dialect nor of one named in `also` is an
    error that names it and the likely cause.

    Not this pass's job: undefined symbols, which are checked on what is emitted.
  }];
  let options = [ListOption<"also", "also", "std::string", "further dialects that translate to LLVM IR: nvvm">];
}

#endif
