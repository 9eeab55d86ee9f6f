// RUN: kvq-opt %s | kvq-opt | FileCheck %s
//
// The worked examples of dialect/kvq/*.td, read, printed, read and printed again. scripts/check_examples.py compares
// them with the .td files.

!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// The cache is printed under the name of its format.
// CHECK: !cache_k4c32_v4t32 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// CHECK: module attributes {kvq.target = #kvq.target<"x86-64-v4">}
module attributes {kvq.target = #kvq.target<"x86-64-v4">} {

// CHECK-LABEL: func.func @dequantize_v
// CHECK-SAME: kvq.kernel = "dequantize_v:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact"
// CHECK: kvq.dequantize %{{.*}} : !kvq.packed<64x64, side = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8 ch:1">> -> tensor<64x64xf32>
func.func @dequantize_v(%page: !kvq.packed<64x64, side = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8 ch:1">>) -> tensor<64x64xf32>
    attributes {kvq.kernel = "dequantize_v:k4c32-v4t32:vnni:p64:dk64:dv64:g1:f32:rows1:lag0:win0:cap0:exact"} {
  %v = kvq.dequantize %page : !kvq.packed<64x64, side = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8 ch:1">> -> tensor<64x64xf32>
  return %v : tensor<64x64xf32>
}

// CHECK-LABEL: func.func @attributes
// CHECK-SAME: bounds = #kvq.bounds<causal = true, left = 4096, keep_first = 4>
// CHECK-SAME: format = #kvq.format<k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 2, axis = token, group = 64, map = asymmetric, scale = f16>>
// CHECK-SAME: problem = #kvq.problem<page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>
// CHECK-SAME: side = #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
func.func @attributes() attributes {test.attributes = {
    side =
#kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
    , format =
#kvq.format<k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 2, axis = token, group = 64, map = asymmetric, scale = f16>>
    , problem =
#kvq.problem<page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>
    , bounds =
#kvq.bounds<causal = true, left = 4096, keep_first = 4>
    }} {
  return
}

// CHECK-LABEL: func.func private @types
// CHECK-SAME: !kvq.packed<?x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
func.func private @types(
    !kvq.packed<?x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>)

// CHECK-LABEL: func.func @quantize
// CHECK: %[[CODES:.*]], %[[SCALE:.*]], %[[MIN:.*]] = kvq.quantize %{{.*}} side <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16> : tensor<64x80xf32> -> tensor<64x80xi8>, tensor<2x80xf16>
// CHECK: kvq.dequantize %[[CODES]], %[[SCALE]], %[[MIN]] side <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16> : tensor<64x80xi8>, tensor<2x80xf16> -> tensor<64x80xf32>
func.func @quantize(%x: tensor<64x80xf32>) -> tensor<64x80xf32> {
  %codes, %scale, %min = kvq.quantize %x side <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
      : tensor<64x80xf32> -> tensor<64x80xi8>, tensor<2x80xf16>
  %y = kvq.dequantize %codes, %scale, %min side <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
      : tensor<64x80xi8>, tensor<2x80xf16> -> tensor<64x80xf32>
  return %y : tensor<64x80xf32>
}

// CHECK-LABEL: func.func @pack
// CHECK: kvq.pack %{{.*}} bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1"> : tensor<64x64xi8> -> tensor<2048xi8>
func.func @pack(%codes: tensor<64x64xi8>) -> tensor<2048xi8> {
  %bytes = kvq.pack %codes bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
      : tensor<64x64xi8> -> tensor<2048xi8>
  return %bytes : tensor<2048xi8>
}

// CHECK-LABEL: func.func @unpack
// CHECK: kvq.unpack %{{.*}} bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1"> : tensor<2048xi8> -> tensor<64x64xi8>
func.func @unpack(%bytes: tensor<2048xi8>) -> tensor<64x64xi8> {
  %codes = kvq.unpack %bytes bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
      : tensor<2048xi8> -> tensor<64x64xi8>
  return %codes : tensor<64x64xi8>
}

// CHECK-LABEL: func.func @cache
// CHECK: kvq.append %{{.*}}, %{{.*}} to %{{.*}} : tensor<?x?x64xf32>, tensor<?x?x64xf32>, !cache_k4c32_v4t32 -> tensor<?xi32>
// CHECK: kvq.commit %{{.*}} side k : !cache_k4c32_v4t32
// CHECK: kvq.read %{{.*}} : !cache_k4c32_v4t32 -> tensor<?x?x?x64xf32>, tensor<?x?x?x64xf32>
func.func @cache(%k: tensor<?x?x64xf32>, %v: tensor<?x?x64xf32>, %cache: !kvq_k4v4) -> tensor<?xi32> {
  %bad = kvq.append %k, %v to %cache : tensor<?x?x64xf32>, tensor<?x?x64xf32>, !kvq_k4v4 -> tensor<?xi32>
  kvq.commit %cache side k : !kvq_k4v4
  return %bad : tensor<?xi32>
}
func.func @read(%cache: !kvq_k4v4) -> tensor<?x?x?x64xf32> {
  %k, %v = kvq.read %cache : !kvq_k4v4 -> tensor<?x?x?x64xf32>, tensor<?x?x?x64xf32>
  return %k : tensor<?x?x?x64xf32>
}

// CHECK-LABEL: func.func @attention
// CHECK: kvq.attention %{{.*}}, %{{.*}}, %{{.*}} scale %{{.*}} window %{{.*}} cap %{{.*}} bounds <causal = true> : tensor<?x9x64xf32>, tensor<?x3x64xf32>, tensor<?x3x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
// CHECK: kvq.attention %{{.*}}, %{{.*}} scale %{{.*}} captures(%{{.*}} : f32) bounds <causal = true> : tensor<?x9x64xf32>, !cache_k4c32_v4t32 -> tensor<?x9x64xf32>, tensor<?x9xf32> score {
// CHECK-NEXT: ^bb0(%[[S:.*]]: f32, %{{.*}}: index, %{{.*}}: index, %[[QUERY:.*]]: index, %[[KEY:.*]]: index, %[[M:.*]]: f32):
// CHECK-NEXT: arith.subi %[[KEY]], %[[QUERY]] : index
// CHECK: %[[R:.*]] = arith.addf %[[S]], %{{.*}} : f32
// CHECK: kvq.yield %[[R]] : f32
func.func @attention(%q: tensor<?x9x64xf32>, %k: tensor<?x3x64xf32>, %v: tensor<?x3x64xf32>, %cache: !kvq_k4v4,
                     %scale: f32, %w: i64, %cap: f32, %slope: f32) -> (tensor<?x9x64xf32>, tensor<?x9x64xf32>) {
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
  return %o, %p : tensor<?x9x64xf32>, tensor<?x9x64xf32>
}

// CHECK-LABEL: func.func @merge
// CHECK: kvq.merge %{{.*}}, %{{.*}} sinks %{{.*}} : tensor<?x?x9x64xf32>, tensor<?x?x9xf32>, tensor<9xf32> -> tensor<?x9x64xbf16>, tensor<?x9xf32>
func.func @merge(%parts: tensor<?x?x9x64xf32>, %lses: tensor<?x?x9xf32>, %sinks: tensor<9xf32>) -> tensor<?x9x64xbf16> {
  %o, %lse = kvq.merge %parts, %lses sinks %sinks
      : tensor<?x?x9x64xf32>, tensor<?x?x9xf32>, tensor<9xf32> -> tensor<?x9x64xbf16>, tensor<?x9xf32>
  return %o : tensor<?x9x64xbf16>
}

// CHECK-LABEL: func.func @convert
// CHECK: kvq.convert %{{.*}} : !kvq.packed<64x64, {{.*}} -> !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2] tok:8 ch:64">>
func.func @convert(%p: !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>) {
  %exchange = kvq.convert %p
      : !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
     -> !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2] tok:8 ch:64">>
  return
}

}
