// SPDX-License-Identifier: Apache-2.0
//
// The tile dialect: the language of kernels. Types and attributes; the ops are in TileOps.td.

#ifndef KVQ_TILE_DIALECT_TD
#define KVQ_TILE_DIALECT_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"
include "mlir/IR/DialectBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/TensorEncoding.td"

def KvqTile_Dialect : Dialect {
  let name = "kvq_tile";
  let cppNamespace = "::mlir::kvq::tile";
  let summary = "Kernels as tile programs";
  let description = [{
    A kernel is a `func.func` with the unit attribute `kvq_tile.kernel`. Its arguments are pointers
    (`!kvq_tile.ptr<f32>`), `i64`, `i32` and `f32`; it returns nothing. It describes one *program*: a grid of up to three
    dimensions runs it once per point (`kvq_tile.program_id`). A tile is a statically shaped `tensor`; `arith`, `math`
    and `scf` work on whole tiles, and the ops of this dialect add what those lack: memory, packed codes, reductions,
    broadcasts and `kvq_tile.dot`, the one dequantizing product.

    A packed tile is a tensor of `i2`, `i3`, `i4` or `i8` whose encoding says where the bits lie:
    `tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>`.

    Example, the largest value of each row of a matrix:

    ```mlir
    func.func @row_max(%x: !kvq_tile.ptr<f32>, %out: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
      %row = kvq_tile.program_id 0
      %c64 = arith.constant 64 : index
      %at = arith.muli %row, %c64 : index
      %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, index -> tensor<64xf32>
      %m = kvq_tile.reduce max %v dim 0 : tensor<64xf32> -> f32
      kvq_tile.store %m, %out[%row] : f32, !kvq_tile.ptr<f32>, index
      return
    }
    ```
  }];
  let useDefaultAttributePrinterParser = 1;
  let useDefaultTypePrinterParser = 1;
  let hasOperationAttrVerify = 1;
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::func::FuncDialect", "::mlir::tensor::TensorDialect"];
}

class KvqTile_Type<string name, string typeMnemonic> : TypeDef<KvqTile_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def KvqTile_PtrType : KvqTile_Type<"Ptr", "ptr"> {
  let summary = "pointer to elements in memory";
  let description = [{
    A pointer to elements of the given type (`f32`, `bf16`, `f16`, `i64`, `i32`, `i8`), aligned to them. Offsets in ops
    are counted in elements. `!kvq_tile.ptr<i8>` is what pages are made of.
  }];
  let parameters = (ins "::mlir::Type":$elementType);
  let assemblyFormat = "`<` $elementType `>`";
  let genVerifyDecl = 1;
}

class KvqTile_Attr<string name, string attrMnemonic, list<Trait> traits = []>
    : AttrDef<KvqTile_Dialect, name, traits> {
  let mnemonic = attrMnemonic;
}

def KvqTile_LayoutAttr : KvqTile_Attr<"Layout", "layout"> {
  let summary = "where each code of a page's section lives";
  let description = [{
    The map (token, channel) -> address in codes of docs/format-spec.md section 3, as text (layout_c4): one map for codes
    of 2, 4 and 8 bits, or planes with some bits of each code and a map each, as in
    `2:[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:4 tok:1 + 1:[..] tok:2 ch:4 tok:1` for 3 bits. It covers a
    whole page; a packed tile is a rectangle of it. A map that is not a bijection is refused (layout_c1).

    ```mlir
    #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
    ```
  }];
  let parameters = (ins StringRefParameter<"the map's text">:$map);
  let assemblyFormat = "`<` $map `>`";
  let genVerifyDecl = 1;
}

def KvqTile_LanesAttr
    : KvqTile_Attr<"Lanes", "lanes", [DeclareAttrInterfaceMethods<VerifiableTensorEncoding>]> {
  let summary = "which lane of a warp holds which element of a tile";
  let description = [{
    The encoding of a tile that is spread over the 32 lanes of a warp. For each of the five lane bits, lowest first, the
    index bit that it selects (`d0.2`: bit 2 of the index along dimension 0), or `-` where lanes that differ in it hold
    the same elements. All other elements of the tile lie in each lane's registers. `pair=` names the index bit whose two
    elements of 16 bits share a register.

    - lanes_c1: no index bit is named twice.
    - lanes_c2: the tile has the bits; along an extent of 96 there are five.

    ```mlir
    tensor<8x128xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2]">>
    ```
  }];
  let parameters = (ins StringRefParameter<"lane bits">:$text);
  let assemblyFormat = "`<` $text `>`";
  let genVerifyDecl = 1;
}

def KvqTile_ScheduleAttr : KvqTile_Attr<"Schedule", "schedule"> {
  let summary = "how a kernel runs";
  let description = [{
    Tunable choices of a kernel, attached to its function as `kvq_tile.schedule`. Changing one never changes an answer
    beyond the accuracy class.

    - `tile_tokens`: tokens of one step of the key loop; divides the page.
    - `rows`, `vectors`: register tile of `kvq_tile.dot`: rows of coefficients x vectors of results held in registers.
    - `prefetch`: pages fetched ahead of the one in work; 0 for none.
    - `blocks`: blocks for which a multiprocessor of a GPU has registers, at least; 0, or left out: the compiler chooses.
    - `warps`: parts of a program, which share its tiles (`kvq_tile.part_id`): 1, or left out; on a GPU 1, 2 or 4, each a
      warp.

    ```mlir
    #kvq_tile.schedule<tile_tokens = 64, rows = 4, vectors = 4, prefetch = 1>
    ```
  }];
  let parameters = (ins "int64_t":$tile_tokens, "int64_t":$rows, "int64_t":$vectors, "int64_t":$prefetch,
                        DefaultValuedParameter<"int64_t", "0">:$blocks,
                        DefaultValuedParameter<"int64_t", "1">:$warps);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

#endif
