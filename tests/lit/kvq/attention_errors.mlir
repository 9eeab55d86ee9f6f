// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// attention_c5
func.func @f(%q: tensor<?x9x64xf32>, %k: tensor<?x3x64xf32>, %v: tensor<?x3x64xf32>, %scale: f32) {
  // expected-error @+1 {{q of type 'tensor<?x9x64xf32>', o of type 'tensor<?x9x64xf32>' and lse of type 'tensor<?x3xf32>' do not agree; use [queries, heads, Dk], [queries, heads, Dv] and [queries, heads]}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x9x64xf32>, tensor<?x3x64xf32>, tensor<?x3x64xf32> -> tensor<?x9x64xf32>, tensor<?x3xf32>
  return
}

// -----

// attention_c5
func.func @f(%q: tensor<?x9x64xf32>, %k: tensor<?x3x64xf32>, %v: tensor<?x3x64xf32>, %scale: f32) {
  // expected-error @+1 {{o has elements of 'bf16'; use q's type, 'f32', or f32}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x9x64xf32>, tensor<?x3x64xf32>, tensor<?x3x64xf32> -> tensor<?x9x64xbf16>, tensor<?x9xf32>
  return
}

// -----

// attention_c6
func.func @f(%q: tensor<?x9x64xf32>, %k: tensor<?x3x64xf32>, %scale: f32) {
  // expected-error @+1 {{K and V must be two tensors or two packed matrices; only a cache stands without V}}
  %o, %lse = kvq.attention %q, %k scale %scale : tensor<?x9x64xf32>, tensor<?x3x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c6
!packed = !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
func.func @f(%q: tensor<?x9x64xf32>, %k: !packed, %v: tensor<64x64xf32>, %scale: f32) {
  // expected-error @+1 {{K and V must be two tensors or two packed matrices; only a cache stands without V}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x9x64xf32>, !packed, tensor<64x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c6
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %v: tensor<?x3x64xf32>, %scale: f32) {
  // expected-error @+1 {{has a cache and a V; a cache holds both, leave V out}}
  %o, %lse = kvq.attention %q, %cache, %v scale %scale : tensor<?x9x64xf32>, !kvq_k4v4, tensor<?x3x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c6
func.func @f(%q: tensor<?x9x64xf32>, %k: tensor<?x3x64xf32>, %v: tensor<?x64xf32>, %scale: f32) {
  // expected-error @+1 {{must have one rank of 2, 3 or 4: [queries, keys, KV heads, channels] or the end of it}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x9x64xf32>, tensor<?x3x64xf32>, tensor<?x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c6
func.func @f(%q: tensor<?x9x64xf32>, %k: tensor<*xf32>, %v: tensor<*xf32>, %scale: f32) {
  // expected-error @+1 {{must have one rank of 2, 3 or 4: [queries, keys, KV heads, channels] or the end of it}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x9x64xf32>, tensor<*xf32>, tensor<*xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c7
func.func @f(%q: tensor<?x9x64xf32>, %k: tensor<?x3x80xf32>, %v: tensor<?x3x64xf32>, %scale: f32) {
  // expected-error @+1 {{K of type 'tensor<?x3x80xf32>' and V of type 'tensor<?x3x64xf32>' do not fit; K has q's channels, 64, V has o's, 64, and both have as many tokens and heads}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x9x64xf32>, tensor<?x3x80xf32>, tensor<?x3x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c7
func.func @f(%q: tensor<?x9x64xf32>, %k: tensor<16x3x64xf32>, %v: tensor<17x3x64xf32>, %scale: f32) {
  // expected-error @+1 {{K of type 'tensor<16x3x64xf32>' and V of type 'tensor<17x3x64xf32>' do not fit}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x9x64xf32>, tensor<16x3x64xf32>, tensor<17x3x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c7
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x80xf32>, %cache: !kvq_k4v4, %scale: f32) {
  // expected-error @+1 {{q of type 'tensor<?x9x80xf32>' and o of type 'tensor<?x9x64xf32>' do not fit the cache; use head sizes 64 and 64}}
  %o, %lse = kvq.attention %q, %cache scale %scale : tensor<?x9x80xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c8
func.func @f(%q: tensor<?x9x64xf32>, %k: tensor<?x4x64xf32>, %v: tensor<?x4x64xf32>, %scale: f32) {
  // expected-error @+1 {{has 9 query heads for 4 KV heads; use a multiple of them}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale : tensor<?x9x64xf32>, tensor<?x4x64xf32>, tensor<?x4x64xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c8
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x8x64xf32>, %cache: !kvq_k4v4, %scale: f32) {
  // expected-error @+1 {{has 8 query heads at 3 for each KV head; use a multiple of the cache's ratio}}
  %o, %lse = kvq.attention %q, %cache scale %scale : tensor<?x8x64xf32>, !kvq_k4v4 -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return
}

// -----

// attention_c9
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %cap: f32, %scale: f32) {
  // expected-error @+1 {{has 1 captures and no score region to take them}}
  %o, %lse = kvq.attention %q, %cache scale %scale captures(%cap : f32) : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c9
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %scale: f32) {
  // expected-error @+1 {{score region takes ('f32', 'index'); it must take ('f32', 'index', 'index', 'index', 'index'): score, batch, head, query, key, captures}}
  %o, %lse = kvq.attention %q, %cache scale %scale : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32> score {
  ^bb0(%s: f32, %key: index):
    kvq.yield %s : f32
  }
  return
}

// -----

// attention_c9
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %scale: f32) {
  // expected-error @+1 {{score region must end in kvq.yield}}
  %o, %lse = kvq.attention %q, %cache scale %scale : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32> score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index):
    llvm.unreachable
  }
  return
}

// -----

// attention_c9
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %p: !kvq_tile.ptr<f32>, %scale: f32) {
  // expected-error @+1 {{score region has an op with side effects, 'kvq_tile.load'; use arith and math}}
  %o, %lse = kvq.attention %q, %cache scale %scale captures(%p : !kvq_tile.ptr<f32>) : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32> score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index, %ptr: !kvq_tile.ptr<f32>):
    %x = kvq_tile.load %ptr[%key] : !kvq_tile.ptr<f32>, index -> f32
    kvq.yield %x : f32
  }
  return
}

// -----

// attention_c10
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xbf16>, %cache: !kvq_k4v4, %scale: f32) {
  // expected-error @+1 {{has queries of 'bf16' for a cache of 'f32'; convert the queries or change the problem}}
  %o, %lse = kvq.attention %q, %cache scale %scale : tensor<?x9x64xbf16>, !kvq_k4v4 -> tensor<?x9x64xbf16>, tensor<?x9xf32>
  return
}

// -----

// attention_c13
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %scale: f32, %w: i64) {
  // expected-error @+1 {{has a window, but the problem of its cache has none; leave it out, or change the problem}}
  %o, %lse = kvq.attention %q, %cache scale %scale window %w : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// attention_c13
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, window = true, score_cap = true, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %scale: f32, %w: i64) {
  // expected-error @+1 {{has no cap, but the problem of its cache has one; add it, or change the problem}}
  %o, %lse = kvq.attention %q, %cache scale %scale window %w : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// yield_c1
func.func @f(%s: f32) {
  // expected-error @+1 {{'kvq.yield' op expects parent op 'kvq.attention'}}
  kvq.yield %s : f32
  return
}

// -----

// attention_c9: what the region needs comes as a capture.
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%q: tensor<?x9x64xf32>, %cache: !kvq_k4v4, %scale: f32) {
  // expected-note @+1 {{required by region isolation constraints}}
  %o, %lse = kvq.attention %q, %cache scale %scale : tensor<?x9x64xf32>, !kvq_k4v4 -> tensor<?x9x64xf32>, tensor<?x9xf32> score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index):
    // expected-error @+1 {{'arith.mulf' op using value defined outside the region}}
    %x = arith.mulf %s, %scale : f32
    kvq.yield %x : f32
  }
  return
}
