// SPDX-License-Identifier: Apache-2.0
//
// Types of the kvq dialect. Labels (packed_c1, ...) name constraints; the verifiers in KvqTypes.cpp and
// tests/lit/kvq/types_errors.mlir carry the same.

#ifndef KVQ_TYPES_TD
#define KVQ_TYPES_TD

include "dialect/kvq/KvqAttrs.td"

class Kvq_Type<string name, string typeMnemonic> : TypeDef<Kvq_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Kvq_PackedType : Kvq_Type<"Packed", "packed"> {
  let summary = "K or V of one head, packed";
  let description = [{
    A matrix of tokens x channels as pages hold it: packed codes, scales and minima. `layout` is the map of one page's
    codes; a matrix of several pages repeats it. The number of tokens may be unknown (`?`).

    - packed_c1: the layout covers all channels, and its tokens divide the matrix's.
    - packed_c2: the side's group divides the page: its tokens (per channel) or its channels (per token).
    - packed_c3: the layout's planes are those of the side's width (layout_c5).

    ```mlir
    !kvq.packed<?x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
    ```
  }];
  let parameters = (ins "int64_t":$tokens, "int64_t":$channels, "SideAttr":$side,
                        "::mlir::kvq::tile::LayoutAttr":$layout);
  let assemblyFormat = "`<` custom<Matrix>($tokens, $channels) `,` struct($side, $layout) `>`";
  let genVerifyDecl = 1;
}

def Kvq_CacheType : Kvq_Type<"Cache", "cache"> {
  let summary = "the cache of one layer: pages and tails";
  let description = [{
    K and V of all sequences and KV heads of one layer: committed tokens in pages, the rest in tails
    (docs/format-spec.md sections 4 to 6). A value of this type is a reference: `kvq.append` and `kvq.commit` change
    what it refers to. How many sequences, tokens and heads there are, and where the frontiers lie, is known at run time.

    - cache_c1: head sizes and page tokens are legal for the format (text_c2, page_c1).
    - cache_c2: the profile has the format's widths (layout_c6).

    ```mlir
    !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
    ```
  }];
  let parameters = (ins "FormatAttr":$format, "ProblemAttr":$problem, EnumParameter<Kvq_Profile>:$profile);
  let builders = [TypeBuilder<(ins "const ::kvq::KernelRequest &":$request)>];
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    // Everything but the operation.
    ::kvq::KernelRequest toRequest(::kvq::KernelOp op) const;
    // The layout of one section's codes.
    ::mlir::kvq::tile::LayoutAttr getLayout(KvSide side) const;
    // One page and KV head of one side.
    PackedType getPageType(KvSide side) const;
  }];
}

#endif
