// SPDX-License-Identifier: Apache-2.0
//
// The kvq dialect: what a program on a quantized KV cache computes. Attributes, types and ops are in the files beside
// this one.

#ifndef KVQ_DIALECT_TD
#define KVQ_DIALECT_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/DialectBase.td"
include "mlir/IR/EnumAttr.td"

def Kvq_Dialect : Dialect {
  let name = "kvq";
  let cppNamespace = "::mlir::kvq";
  let summary = "Quantized KV caches: what is computed";
  let description = [{
    Ops on tensors, packed tensors and caches whose meaning is that of docs/format-spec.md. Nothing here says how a
    kernel runs: the passes of `passes/` rewrite these programs and expand them into tile programs (dialect `kvq_tile`).

    A kernel is a `func.func` whose attribute `kvq.kernel` holds the canonical text of a kernel request. Its body is
    written plainly; fusing it is the job of passes:

    ```mlir
    func.func @dequantize_v(%page: !kvq.packed<64x64, side = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8 ch:1">>) -> tensor<64x64xf32>
        attributes {kvq.kernel = "dequantize_v:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact"} {
      %v = kvq.dequantize %page : !kvq.packed<64x64, side = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8 ch:1">> -> tensor<64x64xf32>
      return %v : tensor<64x64xf32>
    }
    ```

    - kernel_c1: `kvq.kernel` stands on a func.func and is a legal kernel request.
    - kernel_c2: a cache among the function's arguments is the cache of that request.
    - target_c2: `kvq.target` is a `#kvq.target`.
  }];
  let useDefaultAttributePrinterParser = 1;
  let useDefaultTypePrinterParser = 1;
  let hasOperationAttrVerify = 1;
  let dependentDialects = ["::mlir::func::FuncDialect", "::mlir::kvq::tile::KvqTileDialect"];
  let extraClassDeclaration = [{
    void registerAttributes();
    void registerTypes();
  }];
}

#endif
