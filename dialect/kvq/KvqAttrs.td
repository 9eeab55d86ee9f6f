// SPDX-License-Identifier: Apache-2.0
//
// Attributes of the kvq dialect: the words format, problem and target as data, and what ops say in keywords. Labels
// (side_c1, ...) name constraints; the verifiers in KvqAttrs.cpp and tests/lit/kvq/attrs_errors.mlir carry the same.

#ifndef KVQ_ATTRS_TD
#define KVQ_ATTRS_TD

include "dialect/kvq/KvqDialect.td"

class Kvq_Enum<string name, string description, list<I32EnumAttrCase> cases> : I32EnumAttr<name, description, cases> {
  let cppNamespace = "::mlir::kvq";
  let genSpecializedAttr = 0;
}

def Kvq_Axis : Kvq_Enum<"Axis", "which values share a scale", [
    I32EnumAttrCase<"Channel", 0, "channel">, I32EnumAttrCase<"Token", 1, "token">]>;
def Kvq_CodeMap : Kvq_Enum<"CodeMap", "what a code means", [I32EnumAttrCase<"Asymmetric", 0, "asymmetric">]>;
def Kvq_ScaleType : Kvq_Enum<"ScaleType", "how scale and minimum are stored", [I32EnumAttrCase<"F16", 0, "f16">]>;
def Kvq_Accuracy : Kvq_Enum<"Accuracy", "accuracy class", [
    I32EnumAttrCase<"Full", 0, "full">, I32EnumAttrCase<"Exact", 1, "exact">, I32EnumAttrCase<"Normal", 2, "normal">,
    I32EnumAttrCase<"Fast", 3, "fast">]>;
def Kvq_Profile : Kvq_Enum<"Profile", "layout profile", [
    I32EnumAttrCase<"Vnni", 0, "vnni">, I32EnumAttrCase<"Kivi", 1, "kivi">, I32EnumAttrCase<"Mma", 2, "mma">]>;
def Kvq_KvSide : Kvq_Enum<"KvSide", "K or V", [I32EnumAttrCase<"K", 0, "k">, I32EnumAttrCase<"V", 1, "v">]>;
def Kvq_KvSideAttr : EnumAttr<Kvq_Dialect, Kvq_KvSide, "kv_side">;

class Kvq_Attr<string name, string attrMnemonic> : AttrDef<Kvq_Dialect, name> {
  let mnemonic = attrMnemonic;
}

def Kvq_SideAttr : Kvq_Attr<"Side", "side"> {
  let summary = "format of one of K and V";
  let description = [{
    What the bits of one side mean: codes of `bits` bits; a scale and a minimum for `group` consecutive tokens of one
    channel (`axis = channel`, per channel) or `group` consecutive channels of one token (`axis = token`, per token);
    value = code * scale + minimum (`map = asymmetric`), both stored as `scale`. Its text is `4c32` (docs/format-spec.md
    section 1); map and scale have one legal case each, which the text leaves out.

    side_c1: bits, axis and group form a legal text (text_c1, text_c2), and the group is a number (text_c9).

    ```mlir
    #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
    ```
  }];
  let parameters = (ins "int":$bits, EnumParameter<Kvq_Axis>:$axis, "int":$group, EnumParameter<Kvq_CodeMap>:$map,
                        EnumParameter<Kvq_ScaleType>:$scale);
  let builders = [AttrBuilder<(ins "const ::kvq::SideFormat &":$side), [{
    return $_get($_ctxt, side.bits, side.perChannel() ? Axis::Channel : Axis::Token, side.group, CodeMap::Asymmetric,
                 ScaleType::F16);
  }]>];
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    bool isPerChannel() const { return getAxis() == Axis::Channel; }
    ::kvq::SideFormat toFormat() const;
    std::string toText() const { return ::kvq::toText(toFormat()); }
  }];
}

def Kvq_FormatAttr : Kvq_Attr<"Format", "format"> {
  let summary = "format of K and V";
  let description = [{
    The two sides of a cache, chosen independently. Its text is `k4c32-v4t32`.

    ```mlir
    #kvq.format<k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 2, axis = token, group = 64, map = asymmetric, scale = f16>>
    ```
  }];
  let parameters = (ins "SideAttr":$k, "SideAttr":$v);
  let builders = [AttrBuilder<(ins "const ::kvq::PairFormat &":$pair), [{
    return $_get($_ctxt, SideAttr::get($_ctxt, pair.k), SideAttr::get($_ctxt, pair.v));
  }]>];
  let assemblyFormat = "`<` struct(params) `>`";
  let extraClassDeclaration = [{
    SideAttr get(KvSide side) const { return side == KvSide::K ? getK() : getV(); }
    ::kvq::PairFormat toFormat() const { return {getK().toFormat(), getV().toFormat()}; }
    std::string toText() const { return ::kvq::toText(toFormat()); }
  }];
}

def Kvq_ProblemAttr : Kvq_Attr<"Problem", "problem"> {
  let summary = "shape class of a kernel, and what it promises";
  let description = [{
    What is fixed when a kernel is compiled. Lengths, batch size, windows and heads are arguments at run time.

    - `page_tokens`: tokens of a page. `dk`, `dv`: head sizes of K and V.
    - `ratio`: query heads of one KV head. `rows`: query rows (query, head of the group) of one program.
    - `type`: of K, V, queries and output: f32, bf16 or f16.
    - `lag`: V's frontier may lie below K's, as under the rule `sliding`.
    - `window`: a query sees a window of keys, as long as an argument says (window_c1); false where it is left out.
    - `score_cap`: scores are capped, by an argument (attention_c11); false where it is left out.
    - `accuracy`: the accuracy class.

    - problem_c1: `page_tokens` is a multiple of 32, at most 256 (a format may ask for more: cache_c1).
    - problem_c2: `dk` and `dv` are multiples of 16 from 16 to 256.
    - problem_c3: `ratio` and `rows` are 1 to 64.
    - problem_c4: `type` is f32, bf16 or f16.

    ```mlir
    #kvq.problem<page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>
    ```
  }];
  let parameters = (ins "int":$page_tokens, "int":$dk, "int":$dv, "int":$ratio, "::mlir::Type":$type, "int":$rows,
                        "bool":$lag, DefaultValuedParameter<"bool", "false">:$window,
                        DefaultValuedParameter<"bool", "false">:$score_cap, EnumParameter<Kvq_Accuracy>:$accuracy);
  let builders = [AttrBuilder<(ins "const ::kvq::KernelRequest &":$request)>];
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    int getHeadDim(KvSide side) const { return side == KvSide::K ? getDk() : getDv(); }
  }];
}

def Kvq_TargetAttr : Kvq_Attr<"Target", "target"> {
  let summary = "what machine a module is compiled for";
  let description = [{
    A target of the compiler by name, a CPU level or a GPU (`nvptx:sm_80`), as the module attribute `kvq.target`. Which
    there are is the code generator's business.

    target_c1: the name is made of letters, digits, `-`, `_`, `.`, `:` and `@`, and is not empty.

    ```mlir
    #kvq.target<"x86-64-v4">
    ```
  }];
  let parameters = (ins StringRefParameter<"name of the target">:$level);
  let assemblyFormat = "`<` $level `>`";
  let genVerifyDecl = 1;
}

def Kvq_BoundsAttr : Kvq_Attr<"Bounds", "bounds"> {
  let summary = "which keys a query may see";
  let description = [{
    For a query at position t and a key at position j, all of what is given must hold; positions are those of the
    sequence.

    - `causal`: j <= t.
    - `left`: j >= t - left. `right`: j <= t + right.
    - `keep_first`: keys j < keep_first are seen whatever `left` says.

    Whole tiles are skipped by these bounds; masks that are not of this form belong in a score region, and a window
    whose length is known at run time only is an operand of `kvq.attention`. Only `causal` alone is expanded today.

    - bounds_c1: no number is negative.
    - bounds_c2: `right` does not stand beside `causal`, which already is right = 0.
    - bounds_c3: `keep_first` needs `left`.

    ```mlir
    #kvq.bounds<causal = true, left = 4096, keep_first = 4>
    ```
  }];
  let parameters = (ins "bool":$causal, OptionalParameter<"std::optional<int64_t>">:$left,
                        OptionalParameter<"std::optional<int64_t>">:$right,
                        DefaultValuedParameter<"int64_t", "0">:$keep_first);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    bool isCausalOnly() const { return getCausal() && !getLeft() && !getRight() && getKeepFirst() == 0; }
  }];
}

#endif
