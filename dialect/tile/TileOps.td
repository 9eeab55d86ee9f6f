// SPDX-License-Identifier: Apache-2.0
//
// Ops of the tile dialect. Labels (load_c1, ...) name constraints; the verifiers in TileOps.cpp and the tests in
// tests/lit/tile/*_errors.mlir carry the same labels.

#ifndef KVQ_TILE_OPS_TD
#define KVQ_TILE_OPS_TD

include "dialect/tile/TileDialect.td"
include "mlir/IR/OpBase.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

class KvqTile_Op<string mnemonic, list<Trait> traits = []> : Op<KvqTile_Dialect, mnemonic, traits>;

def KvqTile_Offset : AnyTypeOf<[Index, 1DTensorOf<[Index]>], "index or 1-d tensor of index">;
def KvqTile_Mask : AnyTypeOf<[I1, 1DTensorOf<[I1]>], "i1 or 1-d tensor of i1">;
def KvqTile_Scalar : AnyTypeOf<[F32, F16, BF16, I64, I32, I8], "f32, f16, bf16, i64, i32 or i8">;
def KvqTile_ScalarOrTile
    : AnyTypeOf<[F32, F16, BF16, I64, I32, I8, StaticShapeTensorOf<[F32, F16, BF16, I64, I32, I8]>],
                "scalar or statically shaped tile">;
def KvqTile_FloatTile : StaticShapeTensorOf<[F32]>;
def KvqTile_Coefficients : StaticShapeTensorOf<[F32, F16]>;
def KvqTile_Number : AnyTypeOf<[I32, StaticShapeTensorOf<[I32]>], "i32 or statically shaped tile of i32">;
def KvqTile_Packed : StaticShapeTensorOf<[I<2>, I<3>, I<4>, I<8>]>;

def KvqTile_ProgramIdOp : KvqTile_Op<"program_id", [Pure]> {
  let summary = "this program's place in the grid";
  let description = [{
    The index of the program along dimension 0, 1 or 2 of the grid.

    program_id_c1: the dimension is 0, 1 or 2.

    ```mlir
    %item = kvq_tile.program_id 0
    ```
  }];
  let arguments = (ins I64Attr:$dimension);
  let results = (outs Index:$result);
  let assemblyFormat = "$dimension attr-dict";
  let hasVerifier = 1;
}

def KvqTile_PartIdOp : KvqTile_Op<"part_id", [Pure]> {
  let summary = "which part of its program this is";
  let description = [{
    A program may run as several parts at once, as many as the function's `kvq_tile.schedule` has `warps` (1 where there
    is none): on a GPU each is a warp. All run the same ops, each with values of its own, and `kvq_tile.reduce_parts` is
    the only way from one to another. The result is the part's number, from 0.

    ```mlir
    %part = kvq_tile.part_id
    ```
  }];
  let results = (outs Index:$result);
  let assemblyFormat = "attr-dict";
}

def KvqTile_AdvanceOp : KvqTile_Op<"advance", [Pure]> {
  let summary = "move a pointer by bytes and retype it";
  let description = [{
    `result = (char *)base + bytes`, as a pointer to the result's element type.

    ```mlir
    %scales = kvq_tile.advance %page, %c2048 : !kvq_tile.ptr<i8> -> !kvq_tile.ptr<f16>
    ```
  }];
  let arguments = (ins KvqTile_PtrType:$base, Index:$bytes);
  let results = (outs KvqTile_PtrType:$result);
  let assemblyFormat = "$base `,` $bytes attr-dict `:` qualified(type($base)) `->` qualified(type($result))";
}

def KvqTile_PageOp : KvqTile_Op<"page", [MemoryEffects<[MemRead]>, AllTypesMatch<["pool", "result"]>]> {
  let summary = "address of a page through a page table";
  let description = [{
    `result = pool + table[entry] * stride`: the block whose number stands in entry `entry` of the table. `stride` is in
    bytes. The entry and the block's number are not negative, and the entry is below 2^31.

    ```mlir
    %block = kvq_tile.page %pool, %table[%entry], %stride : !kvq_tile.ptr<i8>, !kvq_tile.ptr<i32>
    ```
  }];
  let arguments = (ins KvqTile_PtrType:$pool, KvqTile_PtrType:$table, Index:$entry, Index:$stride);
  let results = (outs KvqTile_PtrType:$result);
  let assemblyFormat = "$pool `,` $table `[` $entry `]` `,` $stride attr-dict `:` qualified(type($pool)) `,` qualified(type($table))";
  let hasVerifier = 1;
}

def KvqTile_LoadOp : KvqTile_Op<"load", [MemoryEffects<[MemRead]>]> {
  let summary = "read elements from memory";
  let description = [{
    The result's rank is that of `offset` or one more. Same rank: each offset names one element (a scalar, or a gather).
    One more: each offset begins a run of consecutive elements, the result's last dimension.

        index         -> scalar      ptr[offset]
        index         -> [N]         ptr[offset + i]
        tensor<R>     -> [R]         ptr[offset[r]]
        tensor<R>     -> [R, N]      ptr[offset[r] + i]

    Where `mask` is false nothing is read and the result is zero.

    - load_c1: the result's elements are the pointer's.
    - load_c2: the result's shape is the offset's, or the offset's and one more dimension.
    - load_c3: the mask has the offset's shape.

    ```mlir
    %rows = kvq_tile.load %q[%offsets] mask %valid
        : !kvq_tile.ptr<f32>, tensor<3xindex>, tensor<3xi1> -> tensor<3x64xf32>
    ```
  }];
  let arguments = (ins KvqTile_PtrType:$ptr, KvqTile_Offset:$offset, Optional<KvqTile_Mask>:$mask);
  let results = (outs KvqTile_ScalarOrTile:$result);
  let assemblyFormat = [{
    $ptr `[` $offset `]` (`mask` $mask^)? attr-dict `:` qualified(type($ptr)) `,` type($offset) (`,` type($mask)^)? `->`
    type($result)
  }];
  let hasVerifier = 1;
}

def KvqTile_StoreOp : KvqTile_Op<"store", [MemoryEffects<[MemWrite]>]> {
  let summary = "write elements to memory";
  let description = [{
    The counterpart of `kvq_tile.load`; where `mask` is false nothing is written.

    - store_c1: the value's elements are the pointer's.
    - store_c2: the value's shape is the offset's, or the offset's and one more dimension.
    - store_c3: the mask has the offset's shape.

    ```mlir
    kvq_tile.store %o, %out[%offsets] mask %valid : tensor<3x64xf32>, !kvq_tile.ptr<f32>, tensor<3xindex>, tensor<3xi1>
    ```
  }];
  let arguments = (ins KvqTile_ScalarOrTile:$value, KvqTile_PtrType:$ptr, KvqTile_Offset:$offset,
                       Optional<KvqTile_Mask>:$mask);
  let assemblyFormat = [{
    $value `,` $ptr `[` $offset `]` (`mask` $mask^)? attr-dict `:` type($value) `,` qualified(type($ptr)) `,` type($offset)
    (`,` type($mask)^)?
  }];
  let hasVerifier = 1;
}

def KvqTile_CodesOp : KvqTile_Op<"codes", [MemoryEffects<[MemRead]>]> {
  let summary = "a rectangle of packed codes in a page";
  let description = [{
    The codes of tokens `token ..` and channels `channel ..` of the section that begins at `base`. The result's encoding
    is the layout of the whole section. The codes stay packed in memory and are read where they, or what is made of
    them by `kvq_tile.dequantize`, are used; a program that overwrites them before that may read either.

    - codes_c1: the result is 2-d [tokens, channels] with a `#kvq_tile.layout` encoding.
    - codes_c2: the rectangle fits the layout: its extents divide the layout's.
    - codes_c3: the layout's planes are those of the result's elements (layout_c5).
    - `token` and `channel` are multiples of the result's extents (not checked at run time).

    ```mlir
    %k = kvq_tile.codes %page[%token, %c0] : !kvq_tile.ptr<i8>
        -> tensor<32x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
    ```
  }];
  let arguments = (ins KvqTile_PtrType:$base, Index:$token, Index:$channel);
  let results = (outs KvqTile_Packed:$result);
  let assemblyFormat = "$base `[` $token `,` $channel `]` attr-dict `:` qualified(type($base)) `->` type($result)";
  let hasVerifier = 1;
}

def KvqTile_StoreCodesOp : KvqTile_Op<"store_codes", [MemoryEffects<[MemWrite]>]> {
  let summary = "pack codes into a page";
  let description = [{
    Packs rows `[begin, end)` of `codes` into the section at `base`, tokens `token ..` and channels `channel ..` (0 where
    it is left out), by `layout`. Bits of other tokens stay as they are, also in words that rows share. Values must lie
    in 0 .. 2^bits - 1.

    - store_codes_c1: `codes` is 2-d and the layout's channels are a multiple of its channels, all of them where
      `channel` is left out.
    - store_codes_c2: `bits` is 2, 3, 4 or 8, and the layout's planes are those of so many bits (layout_c5).
    - store_codes_c3: the layout is a multiple of `codes`' tokens.
    - `token` and `channel` are multiples of the codes' extents (not checked at run time).

    ```mlir
    kvq_tile.store_codes %q, %page[%token] rows %c0, %n {bits = 4, layout = #layout}
        : tensor<32x64xi32>, !kvq_tile.ptr<i8>
    ```
  }];
  let arguments = (ins StaticShapeTensorOf<[I32]>:$codes, KvqTile_PtrType:$base, Index:$token, Index:$begin, Index:$end,
                       Optional<Index>:$channel, I64Attr:$bits, KvqTile_LayoutAttr:$layout);
  let assemblyFormat = [{
    $codes `,` $base `[` $token (`,` $channel^)? `]` `rows` $begin `,` $end attr-dict `:` type($codes) `,` qualified(type($base))
  }];
  let hasVerifier = 1;
}

def KvqTile_UnpackOp : KvqTile_Op<"unpack", [Pure]> {
  let summary = "packed codes as integers";
  let description = [{
    Each code as an i32 in 0 .. 2^bits - 1.

    unpack_c1: the result has the codes' shape.

    ```mlir
    %i = kvq_tile.unpack %codes : tensor<32x64xi4, #layout> -> tensor<32x64xi32>
    ```
  }];
  let arguments = (ins KvqTile_Packed:$codes);
  let results = (outs StaticShapeTensorOf<[I32]>:$result);
  let assemblyFormat = "$codes attr-dict `:` type($codes) `->` type($result)";
  let hasVerifier = 1;
}

def KvqTile_DequantizeOp : KvqTile_Op<"dequantize", [Pure, AllTypesMatch<["scale", "min"]>]> {
  let summary = "packed codes as values";
  let description = [{
    `result[t, c] = f32(f32(code[t, c]) * scale[g]) + min[g]` (format-spec dequantize_c1), where g is the group of
    (t, c). `scale` and `min` have the same 2-d shape, as pages store them: `[groups along tokens, channels]` with
    `axis = "channel"` (per channel), `[groups along channels, tokens]` with `axis = "token"` (per token).

    - dequantize_c2: scale and min have the shape that the axis and the codes ask for.
    - dequantize_c3: the axis is "channel" or "token".

    `kvq-tile-fold-scales` turns `kvq_tile.dot` of this into a dot of raw codes.

    ```mlir
    %k = kvq_tile.dequantize %codes, %scale, %min axis "channel"
        : tensor<32x64xi4, #layout>, tensor<1x64xf32> -> tensor<32x64xf32>
    ```
  }];
  let arguments = (ins KvqTile_Packed:$codes, KvqTile_FloatTile:$scale, KvqTile_FloatTile:$min, StrAttr:$axis);
  let results = (outs KvqTile_FloatTile:$result);
  let assemblyFormat = [{
    $codes `,` $scale `,` $min `axis` $axis attr-dict `:` type($codes) `,` type($scale) `->` type($result)
  }];
  let hasVerifier = 1;
}

def KvqTile_CoeffOp : KvqTile_Op<"coeff", [Pure]> {
  let summary = "coefficients of a dot: values times scales, perhaps rounded";
  let description = [{
    Multiplies the rows of `values` [R, C] by `scale` [S, C]: `result[s, r, c] = values[r, c] * scale[s, c]`; without
    scale S is 1 and the values are taken as they are. All are of one element type; in f16 the product is rounded to it.

    `as` lets a target keep the coefficients of each set and row as integers of that many bits or more and one factor,
    rounded to nearest (format-spec accuracy_c1): `si8`, `si16` for coefficients of any sign, `ui8`, `ui16` where none is
    negative. A target may use fewer than 16 bits of `si16`, but not fewer than 15. `f16`: each coefficient may be kept as
    the nearest f16. A target may ignore all of them.

    - coeff_c1: values [R, C], scale [S, C] and result [S, R, C] agree, in shape and element type.
    - coeff_c2: the rounding is si8, si16, ui8, ui16 or f16.

    ```mlir
    %c = kvq_tile.coeff %q, %scale as si16 : tensor<3x64xf32>, tensor<1x64xf32> -> tensor<1x3x64xf32>
    %d = kvq_tile.coeff %q as si8 : tensor<3x64xf32> -> tensor<1x3x64xf32>
    %h = kvq_tile.coeff %q as f16 : tensor<3x64xf32> -> tensor<1x3x64xf32>
    ```
  }];
  let arguments = (ins KvqTile_Coefficients:$values, Optional<KvqTile_Coefficients>:$scale,
                       OptionalAttr<TypeAttr>:$round);
  let results = (outs KvqTile_Coefficients:$result);
  let assemblyFormat = [{
    $values (`,` $scale^)? (`as` $round^)? attr-dict `:` type($values) (`,` type($scale)^)? `->` type($result)
  }];
  let hasVerifier = 1;
}

def KvqTile_DotOp : KvqTile_Op<"dot", [Pure, AllTypesMatch<["acc", "result"]>]> {
  let summary = "the product: codes or values times coefficients";
  let description = [{
    `x` is a tile [X0, X1] of packed codes or of f32, contracted over dimension `contract`; N is the other one's
    extent, C the contracted one's. With coefficients `coeff` [S, R, C] or [R, C] (S = 1) and `acc` [R, N]:

        result[r, n] = acc[r, n] + sum_c (x[c, n] - center) * coeff[n * S / N][r, c]                  without scale
        result[r, n] = acc[r, n] + sum_g scale[g, n] * sum_{c in group g} (x - center) * coeff[..]    with scale [G, n]

    where group g is the g-th of G equal runs of C. `center` is subtracted from every code; nothing else touches an
    element of x. Accumulation of f32 coefficients, and of those that `kvq_tile.coeff` has rounded to f16, is in f32, in
    any order; of coefficients that it has rounded to integers it is in integers, and center meets the rounded ones.

    `round` says how coefficients may be rounded when `kvq-tile-fold-scales` makes them of a product with dequantized
    codes; it is theirs afterwards.

    - dot_c1: x and coeff agree on C; acc and result are [R, N].
    - dot_c2: contract is 0 or 1.
    - dot_c3: S divides N, G divides C, and scale is [G, N].
    - dot_c4: the rounding is si8, si16, ui8, ui16 or f16.

    ```mlir
    %s = kvq_tile.dot %k, %c acc %bias contract 1 : tensor<32x64xi4, #layout>, tensor<1x3x64xf32> -> tensor<3x32xf32>
    ```
  }];
  let arguments = (ins AnyTypeOf<[KvqTile_Packed, KvqTile_Coefficients]>:$x, KvqTile_Coefficients:$coeff,
                       KvqTile_FloatTile:$acc, Optional<KvqTile_FloatTile>:$scale, I64Attr:$contract,
                       DefaultValuedAttr<F32Attr, "0.0">:$center, OptionalAttr<TypeAttr>:$round);
  let results = (outs KvqTile_FloatTile:$result);
  let assemblyFormat = [{
    $x `,` $coeff `acc` $acc (`scale` $scale^)? `contract` $contract (`center` $center^)? (`round` $round^)? attr-dict `:`
    type($x) `,` type($coeff) (`,` type($scale)^)? `->` type($result)
  }];
  let hasVerifier = 1;
}

def KvqTile_IotaOp : KvqTile_Op<"iota", [Pure]> {
  let summary = "0, 1, 2, ...";
  let description = [{
    iota_c1: the result is 1-d.

    ```mlir
    %i = kvq_tile.iota : tensor<32xindex>
    ```
  }];
  let results = (outs 1DTensorOf<[Index, I32, I64]>:$result);
  let assemblyFormat = "attr-dict `:` type($result)";
}

def KvqTile_ScoreHookOp : KvqTile_Op<"score_hook", !listconcat([Pure, AllTypesMatch<["score", "result"]>,
                                                                 AllTypesMatch<["batch", "head", "query", "key"]>],
                                                                ElementwiseMappable.traits)> {
  let summary = "a score function that is linked later";
  let description = [{
    `result = kvq_score_mod(score, batch, head, query, key)`, element by element: a function without side effects that
    the module does not have. Code for an NVIDIA GPU calls it, and whoever asked for the code puts a user's CUDA C++
    there; a CPU has none.

    ```mlir
    %s = kvq_tile.score_hook %score, %batch, %head, %query, %key : tensor<8x64xf32>, tensor<8x64xi32>
    ```
  }];
  let arguments = (ins AnyTypeOf<[F32, KvqTile_FloatTile]>:$score, KvqTile_Number:$batch, KvqTile_Number:$head,
                       KvqTile_Number:$query, KvqTile_Number:$key);
  let results = (outs AnyTypeOf<[F32, KvqTile_FloatTile]>:$result);
  let assemblyFormat = [{
    $score `,` $batch `,` $head `,` $query `,` $key attr-dict `:` type($score) `,` type($batch)
  }];
}

def KvqTile_BroadcastOp : KvqTile_Op<"broadcast", [Pure]> {
  let summary = "repeat a tile along dimensions";
  let description = [{
    Source dimension i is result dimension `dims[i]`. Where the source is shorter by a factor f, each of its elements
    stands for f consecutive ones: `result[.., j, ..] = source[.., j / f, ..]`.

    - broadcast_c1: one entry of dims per source dimension, ascending, inside the result's rank.
    - broadcast_c2: each source extent divides the result's.

    ```mlir
    %b = kvq_tile.broadcast %m dims [0] : tensor<3xf32> -> tensor<3x32xf32>
    ```
  }];
  let arguments = (ins AnyStaticShapeTensor:$source, DenseI64ArrayAttr:$dims);
  let results = (outs AnyStaticShapeTensor:$result);
  let assemblyFormat = "$source `dims` $dims attr-dict `:` type($source) `->` type($result)";
  let hasVerifier = 1;
}

def KvqTile_Kind : I32EnumAttr<"ReduceKind", "kind of reduction", [
    I32EnumAttrCase<"Max", 0, "max">, I32EnumAttrCase<"Min", 1, "min">, I32EnumAttrCase<"Add", 2, "add">]> {
  let cppNamespace = "::mlir::kvq::tile";
  let genSpecializedAttr = 0;
}
def KvqTile_KindAttr : EnumAttr<KvqTile_Dialect, KvqTile_Kind, "kind">;

def KvqTile_ReduceOp : KvqTile_Op<"reduce", [Pure]> {
  let summary = "maximum, minimum or sum along a dimension";
  let description = [{
    Reduces `source` along dimension `dim`; a 1-d source gives a scalar. A float sum is taken in any order; integers are
    signed. NaN among the values of a maximum or minimum gives any result.

    - reduce_c1: the result is the source without that dimension.
    - reduce_c2: the dimension exists.

    ```mlir
    %m = kvq_tile.reduce max %s dim 1 : tensor<3x32xf32> -> tensor<3xf32>
    ```
  }];
  let arguments = (ins KvqTile_KindAttr:$kind, StaticShapeTensorOf<[F32, I32]>:$source, I64Attr:$dim);
  let results = (outs AnyTypeOf<[F32, I32, StaticShapeTensorOf<[F32, I32]>]>:$result);
  let assemblyFormat = "`` $kind $source `dim` $dim attr-dict `:` type($source) `->` type($result)";
  let hasVerifier = 1;
}

def KvqTile_ReducePartsOp
    : KvqTile_Op<"reduce_parts", !listconcat([Pure, AllTypesMatch<["source", "result"]>], ElementwiseMappable.traits)> {
  let summary = "maximum, minimum or sum over the parts of a program, element by element";
  let description = [{
    Every part gets the same result: the elements that all parts (`kvq_tile.part_id`) have at a place, combined in the
    order of the parts. Every part must come by the op, once. With one part it is the source.

    - reduce_parts_c1: it stands in no loop and no branch.

    ```mlir
    %m = kvq_tile.reduce_parts max %s : tensor<8xf32>
    ```
  }];
  let arguments = (ins KvqTile_KindAttr:$kind, StaticShapeTensorOf<[F32, I32]>:$source);
  let results = (outs StaticShapeTensorOf<[F32, I32]>:$result);
  let assemblyFormat = "`` $kind $source attr-dict `:` type($source)";
  let hasVerifier = 1;
}

def KvqTile_ConvertOp : KvqTile_Op<"convert", [Pure]> {
  let summary = "the same tile spread over lanes in another way";
  let description = [{
    Moves elements between the lanes of a warp. What it costs follows from the two layouts: nothing where no lane bit
    changes, one `movmatrix` a register where an 8x8 block of pairs is transposed, shuffles otherwise.

    convert_c1: source and result differ in their `#kvq_tile.lanes` alone, and both have one.

    ```mlir
    %b = kvq_tile.convert %p : tensor<8x64xf16, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2] pair=d0.0">>
        -> tensor<8x64xf16, #kvq_tile.lanes<"lane=[d1.1 d1.2 d0.0 d0.1 d0.2] pair=d1.0">>
    ```
  }];
  let arguments = (ins AnyStaticShapeTensor:$source);
  let results = (outs AnyStaticShapeTensor:$result);
  let assemblyFormat = "$source attr-dict `:` type($source) `->` type($result)";
  let hasVerifier = 1;
}

def KvqTile_PrefetchOp : KvqTile_Op<"prefetch", [MemoryEffects<[MemWrite]>]> {
  let summary = "ask for memory that will be read soon";
  let description = [{
    A hint to bring `bytes` bytes from `base` into the cache. The address need not be valid. A target may carry it out a
    little at a time with the dots and the `store_codes` that follow in the block.

    prefetch_c1: bytes is positive.

    ```mlir
    kvq_tile.prefetch %next, 4608 : !kvq_tile.ptr<i8>
    ```
  }];
  let arguments = (ins KvqTile_PtrType:$base, I64Attr:$bytes);
  let assemblyFormat = "$base `,` $bytes attr-dict `:` qualified(type($base))";
  let hasVerifier = 1;
}

#endif
