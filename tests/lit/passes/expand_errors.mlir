// RUN: kvq-opt %s -split-input-file -verify-diagnostics -kvq-expand

// expand_c1: the read is still there
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!q = tensor<?x9x64xf32>
!lse = tensor<?x9xf32>
!dense = tensor<?x?x?x64xf32>
func.func @attend(%q: !q, %cache: !cache, %scale: f32) -> !q attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  // expected-error @+2 {{'kvq.read' op has no place in a kernel 'attend', which is one kvq.attention}}
  // expected-note @+1 {{kvq.read is removed by kvq-fuse-packed, where its conditions hold; run it first}}
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o : !q
}

// -----

// expand_c1
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @quantize_k(%cache: !cache) attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  kvq.commit %cache side k : !cache
  // expected-error @+1 {{'kvq.commit' op has no place in a kernel 'quantize_k', which is one kvq.commit}}
  kvq.commit %cache side k : !cache
  return
}

// -----

// expand_c1
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
// expected-error @+1 {{is a kernel without its op; write one kvq.commit}}
func.func @quantize_k(%cache: !cache) attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  return
}

// -----

// expand_c1
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
// expected-error @+1 {{is a kernel without a body of one block; write one kvq.commit and a return}}
func.func private @quantize_k(!cache) attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"}

// -----

// expand_c2
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!q = tensor<?x9x64xf32>
!lse = tensor<?x9xf32>
!dense = tensor<?x?x?x64xf32>
func.func @attend(%q: !q, %k: !dense, %scale: f32) -> !q attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  // expected-error @+1 {{reads dense or single packed K and V, for which there is no kernel; attend to a cache, and run kvq-fuse-packed first}}
  %o, %lse = kvq.attention %q, %k, %k scale %scale bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o : !q
}

// -----

// expand_c3
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!q = tensor<?x9x64xf32>
!lse = tensor<?x9xf32>
!dense = tensor<?x?x?x64xf32>
func.func @attend(%q: !q, %cache: !cache, %scale: f32) -> !q attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  // expected-error @+1 {{has bounds that are not lowered yet; use bounds <causal = true>, and a score region for other masks}}
  %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true, left = 128> : !q, !cache -> !q, !lse
  return %o : !q
}

// -----

// expand_c3
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!q = tensor<?x9x64xf32>
!lse = tensor<?x9xf32>
!dense = tensor<?x?x?x64xf32>
func.func @attend(%q: !q, %cache: !cache, %scale: f32) -> !q attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  // expected-error @+1 {{has bounds that are not lowered yet}}
  %o, %lse = kvq.attention %q, %cache scale %scale : !q, !cache -> !q, !lse
  return %o : !q
}

// -----

// expand_c4
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!q = tensor<?x9x64xf32>
!lse = tensor<?x9xf32>
!dense = tensor<?x?x?x64xf32>
func.func @attend(%q: !q, %cache: !cache, %scale: f32, %cap: bf16) -> !q attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  // expected-error @+1 {{captures a value of type 'bf16'; a kernel takes f32, i32 and i64}}
  %o, %lse = kvq.attention %q, %cache scale %scale captures(%cap : bf16) bounds <causal = true> : !q, !cache -> !q, !lse score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index, %c: bf16):
    kvq.yield %s : f32
  }
  return %o : !q
}

// -----

// expand_c5
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @quantize_k(%cache: !cache) attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  // expected-error @+1 {{commits the other side than its kernel, 'quantize_k'}}
  kvq.commit %cache side v : !cache
  return
}

// -----

// expand_c6
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!q = tensor<?x9x64xf32>
!lse = tensor<?x9xf32>
!dense = tensor<?x?x?x64xf32>
func.func @attend(%q: !q, %cache: !cache, %scale: f32) -> !q attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  // expected-error @+1 {{has a score region that uses the batch index, which a kernel does not know; pass what depends on the sequence as a capture}}
  %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true> : !q, !cache -> !q, !lse score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index):
    %far = arith.cmpi ult, %batch, %key : index
    %r = arith.select %far, %s, %s : f32
    %x = arith.addf %r, %s : f32
    kvq.yield %x : f32
  }
  return %o : !q
}

// -----

// expand_c6
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!q = tensor<?x9x64xf32>
!lse = tensor<?x9xf32>
!dense = tensor<?x?x?x64xf32>
func.func @attend(%q: !q, %cache: !cache, %scale: f32) -> !q attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact"} {
  %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true> : !q, !cache -> !q, !lse score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index):
    // expected-error @+1 {{'kvq_tile.program_id' op cannot be in a score region; use elementwise ops of arith and math}}
    %p = kvq_tile.program_id 0
    kvq.yield %s : f32
  }
  return %o : !q
}

// -----

// expand_c7
!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!q = tensor<?x9x64xf32>
!lse = tensor<?x9xf32>
!dense = tensor<?x?x?x64xf32>
func.func @attend(%q: !q, %cache: !cache, %scale: f32) -> !q attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:exact",
    kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 48, rows = 3, vectors = 4, prefetch = 1>} {
  // expected-error @+1 {{tile_tokens is 48, which does not divide a page of 64 tokens into whole groups; use 32}}
  %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true> : !q, !cache -> !q, !lse
  return %o : !q
}
