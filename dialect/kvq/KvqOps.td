// SPDX-License-Identifier: Apache-2.0
//
// Ops of the kvq dialect. Labels (quantize_c3, ...) are those of docs/format-spec.md, or number on from them where a
// constraint is the IR's own; the verifiers in KvqOps.cpp and tests/lit/kvq/*_errors.mlir carry the same labels.

#ifndef KVQ_OPS_TD
#define KVQ_OPS_TD

include "dialect/kvq/KvqTypes.td"
include "dialect/tile/TileDialect.td"
include "mlir/IR/OpBase.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

class Kvq_Op<string mnemonic, list<Trait> traits = []> : Op<Kvq_Dialect, mnemonic, traits>;

def Kvq_Values : TensorOf<[F32, BF16, F16]>;
def Kvq_Codes : TensorOf<[I8, I32]>;
def Kvq_Stored : TensorOf<[F16]>;
def Kvq_Bytes : TensorOf<[I8]>;

def Kvq_QuantizeOp : Kvq_Op<"quantize", [Pure]> {
  let summary = "values to codes, scales and minima";
  let description = [{
    Quantizes each group of a matrix [tokens, channels] by the exact sequence of docs/format-spec.md (quantize_c2):

        mn = min(x), mx = max(x), s = f16((mx - mn) / Q), m = f16(mn)
        inv = s == 0 ? 0 : 1 / s,  q = clamp(rint((x - m) * inv), 0, Q)

    Scale and minimum lie as pages store them (page_c3): `[tokens / group, channels]` per channel,
    `[channels / group, tokens]` per token.

    - quantize_c3: the group divides the grouped axis.
    - quantize_c6: values are 2-d, and codes have their shape.
    - quantize_c7: scale and minimum have the shape of page_c3.

    ```mlir
    %codes, %scale, %min = kvq.quantize %x side <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
        : tensor<64x80xf32> -> tensor<64x80xi8>, tensor<2x80xf16>
    ```
  }];
  let arguments = (ins Kvq_Values:$values, Kvq_SideAttr:$side);
  let results = (outs Kvq_Codes:$codes, Kvq_Stored:$scale, Kvq_Stored:$min);
  let assemblyFormat = [{
    $values `side` $side attr-dict `:` type($values) `->` type($codes) `,` custom<SameType>(type($scale), type($min))
  }];
  let hasVerifier = 1;
}

def Kvq_DequantizeOp : Kvq_Op<"dequantize", [Pure, AttrSizedOperandSegments]> {
  let summary = "codes, scales and minima, or a packed matrix, to values";
  let description = [{
    `x = f32(f32(q) * f32(s)) + f32(m)`: a multiplication, then an addition, each rounded (dequantize_c1). A bf16 or f16
    result rounds that. Inverse of `kvq.quantize` but for the error of dequantize_c2.

    - dequantize_c3: a matrix of codes comes with scale, minimum and side; a packed matrix, which has them, comes alone.
    - dequantize_c4: values have the shape of the codes or the packed matrix.
    - dequantize_c5: the group divides the grouped axis; scale and minimum have the shape of page_c3.

    ```mlir
    %y = kvq.dequantize %codes, %scale, %min side <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
        : tensor<64x80xi8>, tensor<2x80xf16> -> tensor<64x80xf32>
    ```
  }];
  let arguments = (ins AnyTypeOf<[Kvq_Codes, Kvq_PackedType]>:$source, Optional<Kvq_Stored>:$scale,
                       Optional<Kvq_Stored>:$min, OptionalAttr<Kvq_SideAttr>:$side);
  let results = (outs Kvq_Values:$values);
  let assemblyFormat = [{
    $source (`,` $scale^ `,` $min)? (`side` $side^)? attr-dict `:` type($source)
    (`,` custom<SameType>(type($scale), type($min))^)? `->` type($values)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    // The packed matrix, or null where codes are given.
    ::mlir::kvq::PackedType getPackedType() { return ::mlir::dyn_cast<::mlir::kvq::PackedType>(getSource().getType()); }
  }];
}

def Kvq_PackOp : Kvq_Op<"pack", [Pure]> {
  let summary = "codes to bytes";
  let description = [{
    Puts code (t, c) of one page into bits `a * bits .. a * bits + bits - 1` of the section, a = layout(t, c), little
    endian (layout_c2). Codes must lie in 0 .. 2^bits - 1. `kvq.unpack` of the same layout gives them back (layout_c3).

    - pack_c1: codes have the layout's tokens and channels.
    - pack_c2: bits is 2, 3, 4 or 8, and the layout's planes are those of so many bits (layout_c5).
    - pack_c3: the result is 1-d and has tokens * channels * bits / 8 bytes.

    ```mlir
    %bytes = kvq.pack %codes bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
        : tensor<64x64xi8> -> tensor<2048xi8>
    ```
  }];
  let arguments = (ins Kvq_Codes:$codes, I64Attr:$bits, KvqTile_LayoutAttr:$layout);
  let results = (outs Kvq_Bytes:$bytes);
  let assemblyFormat = "$codes `bits` $bits `layout` $layout attr-dict `:` type($codes) `->` type($bytes)";
  let hasVerifier = 1;
  let hasFolder = 1;
}

def Kvq_UnpackOp : Kvq_Op<"unpack", [Pure]> {
  let summary = "bytes to codes";
  let description = [{
    `result[t, c]` is the code at address layout(t, c) of the section, 0 .. 2^bits - 1: the inverse of `kvq.pack`.

    - unpack_c1: codes have the layout's tokens and channels.
    - unpack_c2: bits is 2, 3, 4 or 8, and the layout's planes are those of so many bits (layout_c5).
    - unpack_c3: the source is 1-d and has tokens * channels * bits / 8 bytes.

    ```mlir
    %codes = kvq.unpack %bytes bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
        : tensor<2048xi8> -> tensor<64x64xi8>
    ```
  }];
  let arguments = (ins Kvq_Bytes:$bytes, I64Attr:$bits, KvqTile_LayoutAttr:$layout);
  let results = (outs Kvq_Codes:$codes);
  let assemblyFormat = "$bytes `bits` $bits `layout` $layout attr-dict `:` type($bytes) `->` type($codes)";
  let hasVerifier = 1;
  let hasFolder = 1;
}

def Kvq_AppendOp : Kvq_Op<"append"> {
  let summary = "tokens into the tail";
  let description = [{
    Puts K and V of new tokens, [tokens, KV heads, channels], into the tail of their sequences (tail_c1), as they came.
    Tokens that are kept for ever (commit_c7) have rows of their own there, the others share a ring. `bad` counts for each token the values that are bad (quantize_c1, step_c2): NaN,
    infinite or above 65504 in magnitude. Nothing is quantized yet.

    - append_c1: K and V are 3-d, with the cache's head sizes and type, and agree on tokens and heads.
    - append_c2: bad is 1-d, one i32 for each token.

    ```mlir
    %bad = kvq.append %k, %v to %cache : tensor<?x?x64xf32>, tensor<?x?x64xf32>, !kvq_k4v4 -> tensor<?xi32>
    ```
  }];
  let arguments = (ins Kvq_Values:$k, Kvq_Values:$v, Arg<Kvq_CacheType, "", [MemRead, MemWrite]>:$cache);
  let results = (outs TensorOf<[I32]>:$bad);
  let assemblyFormat = [{
    $k `,` $v `to` $cache attr-dict `:` type($k) `,` type($v) `,` type($cache) `->` type($bad)
  }];
  let hasVerifier = 1;
}

def Kvq_CommitOp : Kvq_Op<"commit"> {
  let summary = "quantize the tokens that left the window";
  let description = [{
    Moves the frontier of one side of every sequence to f(n), n its tokens (commit_c2, commit_c3, commit_c8): the tokens
    between the old frontier and f(n) are quantized from the tail into pages. This is the one moment of commit (commit_c4); a
    quantized value is never quantized again (commit_c5).

    ```mlir
    kvq.commit %cache side k : !kvq_k4v4
    ```
  }];
  let arguments = (ins Arg<Kvq_CacheType, "", [MemRead, MemWrite]>:$cache, Kvq_KvSideAttr:$side);
  let assemblyFormat = "$cache `side` `` $side attr-dict `:` type($cache)";
}

def Kvq_ReadOp : Kvq_Op<"read"> {
  let summary = "K and V as the queries of the step see them";
  let description = [{
    `k[i, j]` and `v[i, j]` are K and V of token j of the sequence of query i, in the state of that query's position t
    (attention_c1): dequantized below the frontiers of t, as they came above. The shape is [queries, tokens, KV heads,
    channels]: two queries of a step may see the same token differently (commit_c4). Values are f32, in which both
    kinds are exact. This op states meaning; `kvq-fuse-packed` removes it.

    read_c1: results are 4-d f32 with the cache's head sizes.

    ```mlir
    %k, %v = kvq.read %cache : !kvq_k4v4 -> tensor<?x?x?x64xf32>, tensor<?x?x?x64xf32>
    ```
  }];
  let arguments = (ins Arg<Kvq_CacheType, "", [MemRead]>:$cache);
  let results = (outs TensorOf<[F32]>:$k, TensorOf<[F32]>:$v);
  let assemblyFormat = "$cache attr-dict `:` type($cache) `->` type($k) `,` type($v)";
  let builders = [OpBuilder<(ins "::mlir::Value":$cache)>];
  let hasVerifier = 1;
}

def Kvq_AttentionOp : Kvq_Op<"attention", [AttrSizedOperandSegments, IsolatedFromAbove,
                                           DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "softmax(scale * q K^T) V with its log-sum-exp";
  let description = [{
    For the query i of head h, over the keys j that `bounds` lets it see (all of them where it is absent):

        s_j = score(cap(scale * sum_c q_c * K_{j,c}))        lse = ln sum_j exp(s_j)        o = sum_j exp(s_j - lse) * V_j

    `window w`, at least 1, narrows the bounds: the query at position t sees the key at position j only where j > t - w
    (window_c1). `cap c` is cap(s) = c * tanh(s / c) (attention_c11), the identity where it is absent.

    K and V come in one of three forms:

    - a cache: each query sees the keys of its sequence, up to its own position, in the state of that position.
    - packed matrices of one KV head.
    - dense: [keys, Dk] for one KV head, [keys, KV heads, Dk], or [queries, keys, KV heads, Dk] with keys of each
      query's own, as `kvq.read` gives them. With T queries over n keys that they share, query i is at position
      n - T + i; with keys of its own, the position is the cache's. Query head h reads KV head h / ratio.

    `score` is a scalar function of the score in natural units, batch (the query's sequence), query head, query
    position and key position, and of the `captures`, which follow as further arguments. It has no side effects. Over a
    cache positions are body indices, negative for kept tokens (commit_c7).
    The output is in the query's type, or f32 where it is a part that `kvq.merge` combines. A query that sees no key
    has lse = -inf and o = 0.

    - attention_c5: q is [queries, heads, Dk], o [queries, heads, Dv] in q's type or f32, lse [queries, heads].
    - attention_c6: K and V are both dense, of rank 2, 3 or 4; or both packed; or K is a cache and V is absent.
    - attention_c7: head sizes of q and K, of o and V agree, K and V have as many tokens and heads.
    - attention_c8: KV heads divide query heads.
    - attention_c9: the score region takes (f32, index, index, index, index, captures...), yields an f32 and has no side
      effects; captures need it.
    - attention_c10: queries of a cache are of its problem's type.
    - attention_c13: over a cache, window and cap are there where its problem has them, and only there.

    ```mlir
    %o, %lse = kvq.attention %q, %k, %v scale %scale window %w cap %cap bounds <causal = true>
        : tensor<?x9x64xf32>, tensor<?x3x64xf32>, tensor<?x3x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
    %p, %plse = kvq.attention %q, %cache scale %scale captures(%slope : f32) bounds <causal = true>
        : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32> score {
    ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index, %m: f32):
      %distance = arith.subi %key, %query : index
      %integer = arith.index_cast %distance : index to i32
      %float = arith.sitofp %integer : i32 to f32
      %bias = arith.mulf %float, %m : f32
      %biased = arith.addf %s, %bias : f32
      kvq.yield %biased : f32
    }
    ```
  }];
  let arguments = (ins Kvq_Values:$q, AnyTypeOf<[Kvq_Values, Kvq_PackedType, Kvq_CacheType]>:$key,
                       Optional<AnyTypeOf<[Kvq_Values, Kvq_PackedType]>>:$value, F32:$scale, Optional<I64>:$window,
                       Optional<F32>:$score_cap, Variadic<AnyType>:$captures, OptionalAttr<Kvq_BoundsAttr>:$bounds);
  let results = (outs Kvq_Values:$o, TensorOf<[F32]>:$lse);
  let regions = (region MaxSizedRegion<1>:$score);
  let assemblyFormat = [{
    $q `,` $key (`,` $value^)? `scale` $scale (`window` $window^)? (`cap` $score_cap^)?
    (`captures` `(` $captures^ `:` type($captures) `)`)? (`bounds` $bounds^)? attr-dict `:` type($q) `,` type($key) (`,` type($value)^)? `->` type($o) `,` type($lse)
    (`score` $score^)?
  }];
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
  let extraClassDeclaration = [{
    // The cache, or null where K and V are given.
    ::mlir::kvq::CacheType getCacheType() { return ::mlir::dyn_cast<::mlir::kvq::CacheType>(getKey().getType()); }
  }];
}

def Kvq_YieldOp : Kvq_Op<"yield", [Pure, Terminator, HasParent<"AttentionOp">]> {
  let summary = "the value of a score region";
  let description = [{
    Ends the score region of `kvq.attention`.

    yield_c1: it stands in `kvq.attention`.
  }];
  let arguments = (ins F32:$value);
  let assemblyFormat = "$value attr-dict `:` type($value)";
}

def Kvq_MergeOp : Kvq_Op<"merge", [Pure]> {
  let summary = "combine partial results of attention";
  let description = [{
    Parts over disjoint ranges of keys, [parts, queries, heads, Dv] with lse [parts, queries, heads], become one result
    (merge_c1):

        lse = ln (exp(sink) + sum_i exp(lse_i))        o = sum_i exp(lse_i - lse) * o_i

    A part that saw no key has lse = -inf and weighs nothing. `sinks` holds the sink logit of each head, one more logit
    that has no value (attention_c12); -inf where a head has none.

    - merge_c2: parts are 4-d f32, their lse 3-d; results are the same without the first dimension, lse f32.
    - merge_c3: sinks is 1-d, one for each head.

    ```mlir
    %o, %lse = kvq.merge %parts, %lses sinks %sinks
        : tensor<?x?x9x64xf32>, tensor<?x?x9xf32>, tensor<9xf32> -> tensor<?x9x64xbf16>, tensor<?x9xf32>
    ```
  }];
  let arguments = (ins TensorOf<[F32]>:$parts, TensorOf<[F32]>:$lses, TensorOf<[F32]>:$sinks);
  let results = (outs Kvq_Values:$o, TensorOf<[F32]>:$lse);
  let assemblyFormat = [{
    $parts `,` $lses `sinks` $sinks attr-dict `:` type($parts) `,` type($lses) `,` type($sinks) `->` type($o) `,`
    type($lse)
  }];
  let hasVerifier = 1;
}

def Kvq_ConvertOp : Kvq_Op<"convert", [Pure]> {
  let summary = "a packed matrix in another format or layout";
  let description = [{
    Where the side is the same, codes, scales and minima are moved unchanged to where the new layout wants them
    (format-spec layout_c9), which is what the kernels `convert_k` and `convert_v` do between two profiles.
    Otherwise `convert(p) = quantize(dequantize(p))`, in f32, for which there is no kernel. Converting to the same type
    folds away.

    convert_c1: both matrices have the same tokens and channels.

    ```mlir
    %exchange = kvq.convert %p
        : !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
       -> !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2] tok:8 ch:64">>
    ```
  }];
  let arguments = (ins Kvq_PackedType:$source);
  let results = (outs Kvq_PackedType:$result);
  let assemblyFormat = "$source attr-dict `:` qualified(type($source)) `->` qualified(type($result))";
  let hasVerifier = 1;
  let hasFolder = 1;
}

#endif
