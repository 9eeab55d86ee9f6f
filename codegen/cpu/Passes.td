// SPDX-License-Identifier: Apache-2.0
//
// Passes of the CPU target.

#ifndef KVQ_CODEGEN_CPU_PASSES_TD
#define KVQ_CODEGEN_CPU_PASSES_TD

include "mlir/Pass/PassBase.td"

def LowerTilesPass : Pass<"kvq-cpu-lower-tiles", "::mlir::ModuleOp"> {
  let summary = "Lower tile programs to native vectors in rolled loops";
  let description = [{
    Replaces each kernel (a function with `kvq_tile.kernel`) by `kvq_entry`, which follows the kernel ABI
    (runtime/include/kvq/kernel_abi.h) and holds `vector`, `arith`, `scf` and `llvm` ops at the level's native width.
    Element-wise tiles are evaluated where they are used; tiles that must be kept live in scratch memory on the stack;
    `kvq_tile.dot` of packed codes becomes register tiles that cut codes out of words as they go.

      %m = kvq_tile.reduce max %v dim 0 : tensor<64xf32> -> f32
      ==>  scf.for ... { llvm.load : vector<16xf32>; arith.maxnumf }; vector.reduction <maxnumf>

    Refused with a diagnostic at the op: tiles of rank 0, without elements or of other elements than f32, f16, bf16,
    i64, i32, i8, i1 and index; arithmetic on f16 and bf16; packed codes where no op takes them packed; carried masks; a
    kernel that needs more than 1 MiB of scratch memory.

    Precondition: kvq-verify-tiles. Not this pass's job: choosing tile sizes (kvq-attach-schedule), folding scales
    (kvq-tile-fold-scales), conversion to the llvm dialect (kvq-cpu-to-llvm).
  }];
  let options = [Option<"level", "level", "std::string", "\"x86-64\"",
                        "CPU level to lower for: x86-64, x86-64-v3 or x86-64-v4">];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect",
                           "::mlir::LLVM::LLVMDialect", "::mlir::func::FuncDialect", "::mlir::math::MathDialect"];
}

#endif
