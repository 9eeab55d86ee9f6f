// SPDX-License-Identifier: Apache-2.0
//
// Passes of the NVIDIA target.

#ifndef KVQ_CODEGEN_NVPTX_PASSES_TD
#define KVQ_CODEGEN_NVPTX_PASSES_TD

include "mlir/Pass/PassBase.td"

def HalfOperandsPass : Pass<"kvq-nvptx-half-operands", "::mlir::ModuleOp"> {
  let summary = "What tensor cores multiply becomes f16";
  let description = [{
    Coefficients that may be rounded (`kvq_tile.coeff .. as`) become f16: values are rounded, then their products with
    scales, which are f16 in a page. Operands of `kvq_tile.dot` whose values are halves, extended or constant, are taken
    as halves. Other operands stay f32, and are later multiplied as a sum of two halves.

    ```mlir
    %c = kvq_tile.coeff %q, %s as f16 : tensor<8x64xf32>, tensor<1x64xf32> -> tensor<1x8x64xf32>
    ==>
    %h = arith.truncf %q : tensor<8x64xf32> to tensor<8x64xf16>
    %c = kvq_tile.coeff %h, %s16 : tensor<8x64xf16>, tensor<1x64xf16> -> tensor<1x8x64xf16>
    ```

    Precondition: kvq-tile-fold-scales. Not this pass's job: which coefficients may be rounded (kvq-expand).
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::kvq::tile::KvqTileDialect"];
}

def SplitRangesPass : Pass<"kvq-nvptx-split-ranges", "::mlir::ModuleOp"> {
  let summary = "Find the largest of a tile's parameters among copies of its own";
  let description = [{
    Where a reduction and products take elements of the same loads, the reduction gets loads, and what is made of them
    element by element, of its own. These have a layout in which each lane has other elements, where lanes of products
    have the same ones; and products load theirs when they need them, where they would otherwise lie in registers until
    the reduction is done.

    ```mlir
    %s = kvq_tile.load %scales[%at] : .. -> tensor<1x256xf32>
    %m = kvq_tile.reduce max %s dim 1 : tensor<1x256xf32> -> tensor<1xf32>
    %c = kvq_tile.coeff %q, %s : tensor<8x256xf32>, tensor<1x256xf32> -> tensor<1x8x256xf32>
    ==>
    %s = kvq_tile.load %scales[%at] : .. -> tensor<1x256xf32>
    %t = kvq_tile.load %scales[%at] : .. -> tensor<1x256xf32>
    %m = kvq_tile.reduce max %t dim 1 : tensor<1x256xf32> -> tensor<1xf32>
    %c = kvq_tile.coeff %q, %s : tensor<8x256xf32>, tensor<1x256xf32> -> tensor<1x8x256xf32>
    ```

    Precondition: kvq-nvptx-half-operands. Not this pass's job: layouts (kvq-nvptx-assign-layouts).
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::kvq::tile::KvqTileDialect"];
}

def AssignLayoutsPass : Pass<"kvq-nvptx-assign-layouts", "::mlir::ModuleOp"> {
  let summary = "Say which lane holds which element of every tile";
  let description = [{
    Gives every tile but packed codes a `#kvq_tile.lanes` encoding. Products say theirs: operands and results of
    m16n8k16, with the index bits of packed codes on those of m and k that let words be operands as they lie. From there
    layouts spread through the program. A tile that is needed in two layouts is made twice where that needs no other
    lane, and converted by `kvq_tile.convert` otherwise.

    ```mlir
    %s = kvq_tile.dot %k, %c acc %z contract 1 : .. -> tensor<8x128xf32>
    %m = kvq_tile.reduce max %s dim 1 : tensor<8x128xf32> -> tensor<8xf32>
    ==>
    %s = kvq_tile.dot %k, %c acc %z contract 1 : .. -> tensor<8x128xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2]">>
    %m = kvq_tile.reduce max %s dim 1 : .. -> tensor<8xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 - - -]">>
    ```

    Refused with a diagnostic: packed codes that no fragment fits; products of packed codes with other than a multiple of
    8 rows or of 16 elements.

    Precondition: kvq-nvptx-half-operands. Not this pass's job: instructions (kvq-nvptx-lower-tiles).
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::kvq::tile::KvqTileDialect"];
}

def SinkConversionsPass : Pass<"kvq-nvptx-sink-conversions", "::mlir::ModuleOp"> {
  let summary = "Work element by element before tiles are spread over more registers, not afterwards";
  let description = [{
    Moves conversions of operands behind an op that works element by element, where lanes have fewer registers of the
    tile before the conversion: fewer operations, and fewer shuffles where several operands were converted. Splat
    constants follow.

    ```mlir
    // Of %a and %b a lane holds two elements; converted, eight.
    %c = kvq_tile.convert %a : tensor<8x4xf32, #before> -> tensor<8x4xf32, #after>
    %d = kvq_tile.convert %b : tensor<8x4xf32, #before> -> tensor<8x4xf32, #after>
    %e = arith.addf %c, %d : tensor<8x4xf32, #after>
    ==>
    %s = arith.addf %a, %b : tensor<8x4xf32, #before>
    %e = kvq_tile.convert %s : tensor<8x4xf32, #before> -> tensor<8x4xf32, #after>
    ```

    Precondition: kvq-nvptx-assign-layouts. Not this pass's job: which layouts there are.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::kvq::tile::KvqTileDialect"];
}

def PriceConversionsPass : Pass<"kvq-nvptx-price-conversions", "::mlir::ModuleOp"> {
  let summary = "Say what moving a tile to other lanes costs";
  let description = [{
    Gives every `kvq_tile.convert` what a warp executes for it: `movmatrix` for 8x8 blocks of pairs that are transposed,
    `shfl` for words that move otherwise, `prmt` for pairs that a lane makes of its own halves, or nothing. Whoever reads a tile program of
    the phase `layouts` sees where its layouts do not meet, and at which price.

    ```mlir
    %c = kvq_tile.convert %p : tensor<8x64xf16, #scores> -> tensor<8x64xf16, #weights>
    ==>
    %c = kvq_tile.convert %p {cost = "8 movmatrix"} : tensor<8x64xf16, #scores> -> tensor<8x64xf16, #weights>
    ```

    Precondition: kvq-nvptx-sink-conversions. Not this pass's job: the instructions (kvq-nvptx-lower-tiles), which read
    the same classes of conversions from codegen/nvptx/Fragment.h.
  }];
}

def LowerTilesPass : Pass<"kvq-nvptx-lower-tiles", "::mlir::ModuleOp"> {
  let summary = "Distribute tile programs over the lanes of a warp";
  let description = [{
    Replaces each kernel (a function with `kvq_tile.kernel`) by `kvq_entry`, in which every tile is the registers that
    one lane has of it.

    Precondition: kvq-verify-tiles. Not this pass's job: conversion to the llvm dialect (kvq-nvptx-to-llvm).
  }];
  let options = [Option<"sm", "sm", "int64_t", "80", "processor to lower for: 80, 86, 89, 90, 100 or 120">,
                 Option<"unpack", "unpack", "::mlir::kvq::nvptx::UnpackForm",
                        "::mlir::kvq::nvptx::UnpackForm::Subnormal", "how codes become halves",
                        [{::llvm::cl::values(
                          clEnumValN(::mlir::kvq::nvptx::UnpackForm::Subnormal, "subnormal", "as subnormal numbers"),
                          clEnumValN(::mlir::kvq::nvptx::UnpackForm::Magic, "magic", "as the low bits of 1024 + code"))}]>];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect",
                           "::mlir::LLVM::LLVMDialect", "::mlir::NVVM::NVVMDialect", "::mlir::func::FuncDialect",
                           "::mlir::math::MathDialect"];
}

def LowerMathPass : Pass<"kvq-nvptx-lower-math", "::mlir::ModuleOp"> {
  let summary = "Math functions as instructions of the GPU or polynomials";
  let description = [{
    `math.exp2` and `math.log2` of f32 become `ex2.approx.ftz` and `lg2.approx.ftz`; other functions that have no
    instruction become polynomials: PTX may not call a library. `kvq_tile.score_hook` becomes the one call that PTX may
    have, of a function that is linked, and inlined, later.

    Not this pass's job: functions that are one instruction after conversion to the llvm dialect (`math.sqrt`).
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::vector::VectorDialect", "::mlir::LLVM::LLVMDialect",
                           "::mlir::math::MathDialect"];
}

#endif
