// SPDX-License-Identifier: Apache-2.0
//
// Passes from kvq ops to tile programs. Blocks marked mlir are run by tests/lit/passes/examples.test: the pass turns
// the text before `==>` into the text after it.

#ifndef KVQ_PASSES_TD
#define KVQ_PASSES_TD

include "mlir/Pass/PassBase.td"

def KvqKernel : Pass<"kvq-kernel", "::mlir::ModuleOp"> {
  let summary = "write the plain program of a kernel request";
  let description = [{
    Adds the function of a built-in kernel to the module: where compiling a kernel request begins. With
    `request=quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows1:lag0:win0:cap0:exact`:

    ```text
    module {
    }
    ==>
    func.func @quantize_k(%cache: !kvq.cache<...>) attributes {kvq.kernel = "quantize_k:..."} {
      kvq.commit %cache side k : !kvq.cache<...>
      return
    }
    ```

    Precondition: the request is legal, and the module has no function of that name.

    Not this pass's job: anything that makes the program fast.
  }];
  let options = [Option<"request", "request", "std::string", "", "text of the kernel request">];
  let dependentDialects = ["::mlir::kvq::KvqDialect"];
}

def KvqFusePacked : Pass<"kvq-fuse-packed"> {
  let summary = "attention reads packed data instead of dense K and V";
  let description = [{
    Attention on K and V that were only just made dense becomes attention on what they were made from, so that no dense
    K or V exists.

    ```mlir
    func.func @attend(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %scale: f32) -> tensor<?x9x64xf32> {
      %k, %v = kvq.read %cache : !kvq_k4v4 -> tensor<?x?x?x64xf32>, tensor<?x?x?x64xf32>
      %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true>
          : tensor<?x9x64xf32>, tensor<?x?x?x64xf32>, tensor<?x?x?x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
      return %o : tensor<?x9x64xf32>
    }
    ==>
    func.func @attend(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %scale: f32) -> tensor<?x9x64xf32> {
      %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true>
          : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32>
      return %o : tensor<?x9x64xf32>
    }
    ```

    Likewise `attention(q, dequantize(k), dequantize(v))` becomes `attention(q, k, v)` where k and v are `!kvq.packed`.

    Precondition: K and V are f32 (a 16-bit value was rounded, which attention on packed data does not do) and come from
    one `kvq.read`, or from two `kvq.dequantize` of packed matrices. Between the read and the attention, in one block,
    nothing writes memory. Queries of a cache are of its type, window and cap are there where its problem has them, and
    the bounds are causal: a read gives a query also the keys of its step that follow it.

    Not this pass's job: choosing tiles or how codes meet coefficients (`kvq-expand`, `kvq-tile-fold-scales`); removing
    pack and unpack (`kvq-fold-pack`).
  }];
  let dependentDialects = ["::mlir::kvq::KvqDialect"];
}

def KvqFoldPack : Pass<"kvq-fold-pack"> {
  let summary = "unpack after pack, and pack after unpack, fold away";
  let description = [{
    The two are inverses of each other (layout_c3).

    ```mlir
    func.func @f(%codes: tensor<64x64xi8>) -> tensor<64x64xi8> {
      %bytes = kvq.pack %codes bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
          : tensor<64x64xi8> -> tensor<2048xi8>
      %again = kvq.unpack %bytes bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
          : tensor<2048xi8> -> tensor<64x64xi8>
      return %again : tensor<64x64xi8>
    }
    ==>
    func.func @f(%codes: tensor<64x64xi8>) -> tensor<64x64xi8> {
      return %codes : tensor<64x64xi8>
    }
    ```

    Precondition: both have the same bits and layout, and the codes one type. The same folds are part of
    `canonicalize`; this pass does nothing else.

    Not this pass's job: two different layouts (`kvq.convert` says that), or codes of i8 met by codes of i32.
  }];
  let dependentDialects = ["::mlir::kvq::KvqDialect"];
}

def KvqAttachSchedule : Pass<"kvq-attach-schedule"> {
  let summary = "kernels get a schedule";
  let description = [{
    Puts a `#kvq_tile.schedule` on every function with `kvq.kernel` that has none. A schedule that stands there stays:
    it was chosen, by a person or by tuning.

    ```mlir
    func.func @quantize_k(%cache: !kvq_k4v4)
        attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
      kvq.commit %cache side k : !kvq_k4v4
      return
    }
    ==>
    func.func @quantize_k(%cache: !kvq_k4v4)
        attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact",
                    kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 64, rows = 8, vectors = 8, prefetch = 1>} {
      kvq.commit %cache side k : !kvq_k4v4
      return
    }
    ```

    The default: a tile is as much of a page as fits 128 tokens and whole groups; up to 8 rows by 8 vectors in registers,
    of which a target takes what it can hold; one page is fetched ahead.
    Where tiles lie in registers of lanes (`lane-registers`), the tile is shorter if they would be too few.

    Precondition: none.

    Not this pass's job: finding the best schedule, or which ones a target can have (codegen/ScheduleSpace.h).
  }];
  let options = [Option<"laneRegisters", "lane-registers", "int64_t", "0",
                        "registers of a lane in which the target has a program's tiles; 0: they lie in memory">,
                 Option<"bitsAhead", "bits-ahead", "int64_t", "0",
                        "in lanes, bits of codes of K and V up to which attention fetches a page ahead">,
                 Option<"warps", "warps", "int64_t", "1", "warps of a program where nobody chose">];
  let dependentDialects = ["::mlir::kvq::tile::KvqTileDialect"];
}

def KvqExpand : Pass<"kvq-expand"> {
  let summary = "kernels become tile programs";
  let description = [{
    Replaces each function with `kvq.kernel` by the tile program of that request, of the same name, with the arguments
    of `kernel_abi.h` and its schedule. Captures of a score region follow as further arguments, in their order.

    ```text
    func.func @dequantize_v(%page: !kvq.packed<..>) -> tensor<64x64xf32> attributes {kvq.kernel = ".."} {
      %v = kvq.dequantize %page : ..
      return %v : tensor<64x64xf32>
    }
    ==>
    func.func @dequantize_v(%items: !kvq_tile.ptr<i8>, %pages: !kvq_tile.ptr<i8>, %block_stride: i64,
                            %head_stride: i64, %out: !kvq_tile.ptr<f32>, %token_stride: i64) attributes {kvq_tile.kernel, ..} {
      %program = kvq_tile.program_id 0
      ..
      scf.for %step = %first to %end step %c16 {
        %codes = kvq_tile.codes %section[%step, %c0] : ..
        %x = kvq_tile.dequantize %codes, %scale, %min axis "token" : ..
        kvq_tile.store %x, %out[%offsets] mask %mask : ..
      }
      return
    }
    ```

    Preconditions, refused with a diagnostic where they do not hold:

    - expand_c1: the function is the one op of its kernel and a return: append, commit, attention, merge, dequantize,
      convert.
    - expand_c2: attention reads a cache (`kvq-fuse-packed` sees to that).
    - expand_c3: its bounds are causal and nothing else (a window is an operand).
    - expand_c4: captures are arguments of the function of type f32, i32 or i64.
    - expand_c5: commit is of the kernel's side.
    - expand_c6: a score region consists of elementwise ops of arith, math and `kvq_tile.score_hook`. Its batch index is
      the number of the sequence in the cache.
    - expand_c7: the schedule's tile_tokens divides the page into whole groups.
    - expand_c8: convert is between the two profiles of the request, and its format on both sides.

    With coefficients `f16` the program of attention brings rows of q into its range by a power of two, multiplies scores
    instead of q by the softmax's scale, and rounds weights before it adds them up. With `normal-f16`, and for f32 or
    class `full`, it brings scales and minima of each tile into its range as well.

    Not this pass's job: folding scales (`kvq-tile-fold-scales`); anything about instructions (`codegen`).
  }];
  let options = [Option<"coefficients", "coefficients", "::mlir::kvq::Coefficients",
                        "::mlir::kvq::Coefficients::Integers", "what the target multiplies codes by",
                        [{::llvm::cl::values(
                          clEnumValN(::mlir::kvq::Coefficients::Integers, "integers", "integers, one scale for a row"),
                          clEnumValN(::mlir::kvq::Coefficients::F16, "f16", "the nearest f16"),
                          clEnumValN(::mlir::kvq::Coefficients::NormalF16, "normal-f16",
                                     "the nearest f16, where halves below 2^-14 count as zero"))}]>,
                 Option<"laneRegisters", "lane-registers", "int64_t", "0",
                        "registers of a lane in which the target has a program's tiles; 0: they lie in memory">,
                 Option<"bitsAhead", "bits-ahead", "int64_t", "0",
                        "in lanes, bits of codes of K and V up to which attention fetches a page ahead">,
                 Option<"warps", "warps", "int64_t", "1", "warps of a program where nobody chose">];
  let dependentDialects = ["::mlir::kvq::tile::KvqTileDialect", "::mlir::arith::ArithDialect",
                           "::mlir::func::FuncDialect", "::mlir::math::MathDialect", "::mlir::scf::SCFDialect",
                           "::mlir::tensor::TensorDialect"];
}

def KvqTileFoldScales : Pass<"kvq-tile-fold-scales"> {
  let summary = "products multiply codes instead of dequantized values";
  let description = [{
    `dot(dequantize(codes, scale, min), coeff)` becomes a dot of the codes: no element of K or V is scaled. Where scales
    differ along the contracted dimension they go into the coefficients, one set per group of results; where they differ
    along the result they multiply the sum over each group. The minimum becomes a correction term in the accumulator.

    A product that may be rounded (`round`) makes coefficients that may be, and codes that are measured from the middle of
    their group, Q/2: rounding a coefficient then moves the result by how far codes are from the middle (format-spec
    accuracy_c1). What stands for the middle, min + scale * Q/2, takes the minimum's place in the correction. With
    `coefficients=f16`, for targets that multiply in f16, every rounding becomes `f16`, and where coefficients
    are multiplied by scales minimum and scale meet them each for itself, as halves; without scales nothing is centred.

    ```mlir
    func.func @scores(%codes: !kvq_codes, %scale: tensor<1x64xf32>, %min: tensor<1x64xf32>, %q: tensor<3x64xf32>,
                      %acc: tensor<3x32xf32>) -> tensor<3x32xf32> {
      %k = kvq_tile.dequantize %codes, %scale, %min axis "channel"
          : !kvq_codes, tensor<1x64xf32> -> tensor<32x64xf32>
      %s = kvq_tile.dot %k, %q acc %acc contract 1 : tensor<32x64xf32>, tensor<3x64xf32> -> tensor<3x32xf32>
      return %s : tensor<3x32xf32>
    }
    ==>
    func.func @scores(%codes: !kvq_codes, %scale: tensor<1x64xf32>, %min: tensor<1x64xf32>, %q: tensor<3x64xf32>,
                      %acc: tensor<3x32xf32>) -> tensor<3x32xf32> {
      %zero = arith.constant dense<0.000000e+00> : tensor<3x1xf32>
      %row = kvq_tile.dot %min, %q acc %zero contract 1 : tensor<1x64xf32>, tensor<3x64xf32> -> tensor<3x1xf32>
      %bias = kvq_tile.broadcast %row dims [0, 1] : tensor<3x1xf32> -> tensor<3x32xf32>
      %coeff = kvq_tile.coeff %q, %scale : tensor<3x64xf32>, tensor<1x64xf32> -> tensor<1x3x64xf32>
      %start = arith.addf %acc, %bias : tensor<3x32xf32>
      %s = kvq_tile.dot %codes, %coeff acc %start contract 1 : !kvq_codes, tensor<1x3x64xf32> -> tensor<3x32xf32>
      return %s : tensor<3x32xf32>
    }
    ```

    ```mlir
    func.func @rounded(%codes: !kvq_codes, %scale: tensor<1x64xf32>, %min: tensor<1x64xf32>, %q: tensor<3x64xf32>,
                       %acc: tensor<3x32xf32>) -> tensor<3x32xf32> {
      %k = kvq_tile.dequantize %codes, %scale, %min axis "channel"
          : !kvq_codes, tensor<1x64xf32> -> tensor<32x64xf32>
      %s = kvq_tile.dot %k, %q acc %acc contract 1 round si8
          : tensor<32x64xf32>, tensor<3x64xf32> -> tensor<3x32xf32>
      return %s : tensor<3x32xf32>
    }
    ==>
    func.func @rounded(%codes: !kvq_codes, %scale: tensor<1x64xf32>, %min: tensor<1x64xf32>, %q: tensor<3x64xf32>,
                       %acc: tensor<3x32xf32>) -> tensor<3x32xf32> {
      %zero = arith.constant dense<0.000000e+00> : tensor<3x1xf32>
      %half = arith.constant dense<7.500000e+00> : tensor<1x64xf32>
      %above = arith.mulf %scale, %half : tensor<1x64xf32>
      %middle = arith.addf %above, %min : tensor<1x64xf32>
      %row = kvq_tile.dot %middle, %q acc %zero contract 1 : tensor<1x64xf32>, tensor<3x64xf32> -> tensor<3x1xf32>
      %bias = kvq_tile.broadcast %row dims [0, 1] : tensor<3x1xf32> -> tensor<3x32xf32>
      %coeff = kvq_tile.coeff %q, %scale as si8 : tensor<3x64xf32>, tensor<1x64xf32> -> tensor<1x3x64xf32>
      %start = arith.addf %acc, %bias : tensor<3x32xf32>
      %s = kvq_tile.dot %codes, %coeff acc %start contract 1 center 7.500000e+00
          : !kvq_codes, tensor<1x3x64xf32> -> tensor<3x32xf32>
      return %s : tensor<3x32xf32>
    }
    ```

    The result equals the one before up to the rounding of f32.

    Precondition: coefficients are 2-d and the product has neither scale nor center yet. Any other product with
    dequantized values is left as it is, which is right but slow.

    Not this pass's job: how many bits coefficients have (`kvq-expand` chooses by accuracy class), or rounding them.
  }];
  let options = [Option<"coefficients", "coefficients", "::mlir::kvq::Coefficients",
                        "::mlir::kvq::Coefficients::Integers", "what a coefficient that may be rounded becomes",
                        [{llvm::cl::values(
                          clEnumValN(::mlir::kvq::Coefficients::Integers, "integers", "integers, one scale for a row"),
                          clEnumValN(::mlir::kvq::Coefficients::F16, "f16", "the nearest f16"),
                          clEnumValN(::mlir::kvq::Coefficients::NormalF16, "normal-f16",
                                     "the nearest f16, where halves below 2^-14 count as zero"))}]>];
  let dependentDialects = ["::mlir::kvq::tile::KvqTileDialect", "::mlir::arith::ArithDialect",
                           "::mlir::tensor::TensorDialect"];
}

def KvqVerifyTiles : Pass<"kvq-verify-tiles"> {
  let summary = "only tile programs are left";
  let description = [{
    Fails where a module is not made of tile programs alone. Changes nothing.

    - verify_tiles_c1: no op and no type of the dialect `kvq` is left.
    - verify_tiles_c2: ops are those of `kvq_tile`, `arith` and `math`, `scf.for`, `scf.if` and `tensor.splat`; a kernel
      calls nothing.
    - verify_tiles_c3: every function is a kernel.

    Not this pass's job: whether a target can lower each op; its own pipeline says so.
  }];
}

#endif
