// RUN: kvq-opt %s -split-input-file -verify-diagnostics -kvq-expand

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// expand_c1: another op than the kernel's.
func.func @quantize_k(%k: tensor<?x?x64xf32>, %cache: !cache) attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  // expected-error @+1 {{'kvq.append' op has no place in a kernel 'quantize_k', which is one kvq.commit}}
  %bad = kvq.append %k, %k to %cache : tensor<?x?x64xf32>, tensor<?x?x64xf32>, !cache -> tensor<?xi32>
  return
}

// -----

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// expand_c1: two of them.
func.func @quantize_k(%cache: !cache) attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  kvq.commit %cache side k : !cache
  // expected-error @+1 {{'kvq.commit' op has no place in a kernel 'quantize_k', which is one kvq.commit}}
  kvq.commit %cache side k : !cache
  return
}

// -----

// expand_c1: none.
// expected-error @+1 {{is a kernel without its op; write one kvq.merge}}
func.func @merge() attributes {kvq.kernel = "merge:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  return
}

// -----

// expand_c1: no body.
// expected-error @+1 {{is a kernel without a body of one block; write one kvq.merge and a return}}
func.func private @merge() attributes {kvq.kernel = "merge:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"}

// -----

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// expand_c1: what kvq-fuse-packed should have removed.
func.func @attend(%q: tensor<?x?x64xf32>, %cache: !cache, %scale: f32) -> tensor<?x?x64xf32> attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  // expected-error @+2 {{'kvq.read' op has no place in a kernel 'attend'}}
  // expected-note @+1 {{kvq.read is removed by kvq-fuse-packed, where its conditions hold; run it first}}
  %k, %v = kvq.read %cache : !cache -> tensor<?x?x?x64xf32>, tensor<?x?x?x64xf32>
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : tensor<?x?x64xf32>, tensor<?x?x?x64xf32>, tensor<?x?x?x64xf32> -> tensor<?x?x64xf32>, tensor<?x?xf32>
  return %o : tensor<?x?x64xf32>
}

// -----

// expand_c2
func.func @attend(%q: tensor<?x?x64xf32>, %k: tensor<?x?x64xf32>, %v: tensor<?x?x64xf32>, %scale: f32) -> tensor<?x?x64xf32> attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  // expected-error @+1 {{reads dense or single packed K and V, for which there is no kernel; attend to a cache, and run kvq-fuse-packed first}}
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : tensor<?x?x64xf32>, tensor<?x?x64xf32>, tensor<?x?x64xf32> -> tensor<?x?x64xf32>, tensor<?x?xf32>
  return %o : tensor<?x?x64xf32>
}

// -----

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// expand_c3
func.func @attend(%q: tensor<?x?x64xf32>, %cache: !cache, %scale: f32) -> tensor<?x?x64xf32> attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  // expected-error @+1 {{has bounds that are not lowered yet; use bounds <causal = true>, and a window or a score region for other masks}}
  %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true, left = 4096> : tensor<?x?x64xf32>, !cache -> tensor<?x?x64xf32>, tensor<?x?xf32>
  return %o : tensor<?x?x64xf32>
}

// -----

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// expand_c4: a type that no argument of a kernel has.
func.func @attend(%q: tensor<?x?x64xf32>, %cache: !cache, %scale: f32, %cap: f64) -> tensor<?x?x64xf32> attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  // expected-error @+1 {{captures a value of type 'f64'; a kernel takes f32, i32 and i64}}
  %o, %lse = kvq.attention %q, %cache scale %scale captures(%cap : f64) bounds <causal = true> : tensor<?x?x64xf32>, !cache -> tensor<?x?x64xf32>, tensor<?x?xf32> score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index, %c: f64):
    kvq.yield %s : f32
  }
  return %o : tensor<?x?x64xf32>
}

// -----

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// expand_c5
func.func @quantize_k(%cache: !cache) attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  // expected-error @+1 {{commits the other side than its kernel, 'quantize_k'}}
  kvq.commit %cache side v : !cache
  return
}

// -----

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// expand_c6: control flow.
func.func @attend(%q: tensor<?x?x64xf32>, %cache: !cache, %scale: f32) -> tensor<?x?x64xf32> attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true> : tensor<?x?x64xf32>, !cache -> tensor<?x?x64xf32>, tensor<?x?xf32> score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index):
    %zero = arith.constant 0.0 : f32
    %positive = arith.cmpf ogt, %s, %zero : f32
    // expected-error @+1 {{'scf.if' op cannot be in a score region; use elementwise ops of arith and math}}
    %t = scf.if %positive -> f32 {
      scf.yield %s : f32
    } else {
      scf.yield %zero : f32
    }
    kvq.yield %t : f32
  }
  return %o : tensor<?x?x64xf32>
}

// -----

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// expand_c7: 48 tokens do not make up a page of 64, nor lie in a group of 32.
func.func @attend(%q: tensor<?x?x64xf32>, %cache: !cache, %scale: f32) -> tensor<?x?x64xf32> attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact", kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 48, rows = 3, vectors = 4, prefetch = 0>} {
  // expected-error @+1 {{tile_tokens is 48, which does not divide a page of 64 tokens into whole groups; use 64}}
  %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true> : tensor<?x?x64xf32>, !cache -> tensor<?x?x64xf32>, tensor<?x?xf32>
  return %o : tensor<?x?x64xf32>
}

// -----

// expand_c8: the other way round.
func.func @convert_k(%page: !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2] tok:8 ch:64">>) -> !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">> attributes {kvq.kernel = "convert_k:k4c32-v4t32:vnni-kivi:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  // expected-error @+1 {{converts other pages than its kernel, which makes '!kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2] tok:8 ch:64">>' of '!kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>'; quantize anew where the format changes}}
  %r = kvq.convert %page : !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2] tok:8 ch:64">> -> !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
  return %r : !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
}

// -----

// expand_c8: another format.
func.func @convert_k(%page: !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>) -> !kvq.packed<64x64, side = <bits = 2, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2 tok.3] tok:4 ch:64">> attributes {kvq.kernel = "convert_k:k4c32-v4t32:vnni-kivi:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  // expected-error @+1 {{converts other pages than its kernel, which makes '!kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2] tok:8 ch:64">>' of '!kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>'; quantize anew where the format changes}}
  %r = kvq.convert %page : !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">> -> !kvq.packed<64x64, side = <bits = 2, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2 tok.3] tok:4 ch:64">>
  return %r : !kvq.packed<64x64, side = <bits = 2, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2 tok.3] tok:4 ch:64">>
}
