// RUN: kvq-opt %s -split-input-file | kvq-opt -split-input-file | FileCheck %s
//
// Forms of the ops that the worked examples do not show.

// CHECK-LABEL: func.func @per_token
// CHECK: kvq.quantize %{{.*}} side <bits = 2, axis = token, group = 16, map = asymmetric, scale = f16> : tensor<?x80xbf16> -> tensor<?x80xi32>, tensor<5x?xf16>
// CHECK: kvq.dequantize {{.*}} : tensor<?x80xi32>, tensor<5x?xf16> -> tensor<?x80xbf16>
func.func @per_token(%x: tensor<?x80xbf16>) -> tensor<?x80xbf16> {
  %codes, %scale, %min = kvq.quantize %x side <bits = 2, axis = token, group = 16, map = asymmetric, scale = f16>
      : tensor<?x80xbf16> -> tensor<?x80xi32>, tensor<5x?xf16>
  %y = kvq.dequantize %codes, %scale, %min side <bits = 2, axis = token, group = 16, map = asymmetric, scale = f16>
      : tensor<?x80xi32>, tensor<5x?xf16> -> tensor<?x80xbf16>
  return %y : tensor<?x80xbf16>
}

// -----

!k = !kvq.packed<?x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
!v = !kvq.packed<?x128, side = <bits = 2, axis = token, group = 64, map = asymmetric, scale = f16>, layout = <"[ch.0 ch.1 ch.2 ch.3] ch:8 tok:64">>

// K and V packed, of different head sizes; without bounds every query sees every key. A part stays f32.
// CHECK-LABEL: func.func @packed
// CHECK: kvq.attention %{{.*}}, %{{.*}}, %{{.*}} scale %{{.*}} : tensor<?x4x64xbf16>, !kvq.packed<?x64, {{.*}}>, !kvq.packed<?x128, {{.*}}> -> tensor<?x4x128xf32>, tensor<?x4xf32>
func.func @packed(%q: tensor<?x4x64xbf16>, %k: !k, %v: !v, %scale: f32) -> tensor<?x4x128xf32> {
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x4x64xbf16>, !k, !v -> tensor<?x4x128xf32>, tensor<?x4xf32>
  return %o : tensor<?x4x128xf32>
}

// -----

// Bounds that are not expanded today are still a legal program; ALiBi as a score region.
// CHECK-LABEL: func.func @window
// CHECK: captures(%{{.*}}, %{{.*}} : f32, i64) bounds <causal = false, left = 512, right = 128>
// CHECK: kvq.yield
func.func @window(%q: tensor<?x4x64xf32>, %k: tensor<?x64xf32>, %v: tensor<?x64xf32>, %scale: f32, %slope: f32,
                  %unused: i64) -> tensor<?x4xf32> {
  %o, %lse = kvq.attention %q, %k, %v scale %scale captures(%slope, %unused : f32, i64)
      bounds <causal = false, left = 512, right = 128>
      : tensor<?x4x64xf32>, tensor<?x64xf32>, tensor<?x64xf32> -> tensor<?x4x64xf32>, tensor<?x4xf32> score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index, %m: f32, %u: i64):
    %d = arith.subi %key, %query : index
    %di = arith.index_cast %d : index to i32
    %df = arith.sitofp %di : i32 to f32
    %bias = arith.mulf %df, %m : f32
    %r = arith.addf %s, %bias : f32
    kvq.yield %r : f32
  }
  return %lse : tensor<?x4xf32>
}

// -----

// A page of an accelerator's cache, in fragment order.
// CHECK: !cache_k8c32_v2t32 = !kvq.cache<{{.*}}, profile = mma>
// CHECK-LABEL: func.func @accelerator
// CHECK: kvq.commit %{{.*}} side k : !cache_k8c32_v2t32
func.func @accelerator(%cache: !kvq.cache<format = <k = <bits = 8, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 2, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f16, rows = 8, lag = false, accuracy = exact>, profile = mma>) {
  kvq.commit %cache side k : !kvq.cache<format = <k = <bits = 8, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 2, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f16, rows = 8, lag = false, accuracy = exact>, profile = mma>
  return
}

// -----

// `sliding` with bf16, in the layout for exchange.
// CHECK: !cache_k2c64_v2t32 = !kvq.cache<{{.*}} problem = <page_tokens = 128, dk = 128, dv = 64, ratio = 8, type = bf16, rows = 8, lag = true, accuracy = exact>, profile = kivi>
// CHECK-LABEL: func.func @commit
// CHECK: kvq.commit %{{.*}} side v : !cache_k2c64_v2t32
func.func @commit(%cache: !kvq.cache<format = <k = <bits = 2, axis = channel, group = 64, map = asymmetric, scale = f16>, v = <bits = 2, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 128, dk = 128, dv = 64, ratio = 8, type = bf16, rows = 8, lag = true, accuracy = exact>, profile = kivi>) {
  kvq.commit %cache side v : !kvq.cache<format = <k = <bits = 2, axis = channel, group = 64, map = asymmetric, scale = f16>, v = <bits = 2, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 128, dk = 128, dv = 64, ratio = 8, type = bf16, rows = 8, lag = true, accuracy = exact>, profile = kivi>
  return
}
