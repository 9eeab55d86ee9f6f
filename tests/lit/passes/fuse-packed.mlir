// RUN: kvq-opt %s -kvq-fuse-packed | FileCheck %s

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
!k = !kvq.packed<?x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
!v = !kvq.packed<?x64, side = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8 ch:1">>
!q = tensor<?x9x64xf32>
!dense = tensor<?x?x?x64xf32>
!lse = tensor<?x9xf32>

// CHECK-LABEL: func.func @read
// CHECK-SAME: (%[[Q:.*]]: tensor<?x9x64xf32>, %[[CACHE:.*]]: !cache{{.*}}, %[[SCALE:.*]]: f32)
// CHECK-NEXT: %[[O:.*]], %{{.*}} = kvq.attention %[[Q]], %[[CACHE]] scale %[[SCALE]] bounds <causal = true>
// CHECK-NEXT: return %[[O]]
func.func @read(%q: !q, %cache: !cache, %scale: f32) -> !q {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o : !q
}

// Captures, bounds and the score region stay.
// CHECK-LABEL: func.func @score
// CHECK-NOT: kvq.read
// CHECK: kvq.attention %{{.*}}, %{{.*}} scale %{{.*}} captures(%{{.*}} : f32) bounds <causal = true, left = 64> {{.*}} score {
// CHECK: arith.mulf
func.func @score(%q: !q, %cache: !cache, %scale: f32, %cap: f32) -> !q {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %o, %lse = kvq.attention %q, %k, %v scale %scale captures(%cap : f32) bounds <causal = true, left = 64>
      : !q, !dense, !dense -> !q, !lse score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index, %c: f32):
    %r = arith.mulf %s, %c : f32
    kvq.yield %r : f32
  }
  return %o : !q
}

// CHECK-LABEL: func.func @dequantize
// CHECK-SAME: %[[K:[^:]*]]: !kvq.packed<{{[^,]*}}, side = <bits = 4, axis = channel
// CHECK-NOT: kvq.dequantize
// CHECK: kvq.attention %{{[^,]*}}, %[[K]], %{{[^,]*}} scale %
// CHECK-SAME: !kvq.packed<{{.*}}>, !kvq.packed<{{.*}}>
func.func @dequantize(%q: !q, %pk: !k, %pv: !v, %scale: f32) -> !q {
  %k = kvq.dequantize %pk : !k -> tensor<?x64xf32>
  %v = kvq.dequantize %pv : !v -> tensor<?x64xf32>
  %o, %lse = kvq.attention %q, %k, %v scale %scale : !q, tensor<?x64xf32>, tensor<?x64xf32> -> !q, !lse
  return %o : !q
}

// A window and a cap stay where the cache's problem has them; where it has others there is no kernel of that kind.
!capped = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, window = true, score_cap = true, accuracy = exact>, profile = vnni>
// CHECK-LABEL: func.func @window
// CHECK-NOT: kvq.read
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}} scale %{{.*}} window %{{.*}} cap %{{.*}} bounds <causal = true>
func.func @window(%q: !q, %cache: !capped, %scale: f32, %w: i64, %cap: f32) -> !q {
  %k, %v = kvq.read %cache : !capped -> !dense, !dense
  %o, %lse = kvq.attention %q, %k, %v scale %scale window %w cap %cap bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o : !q
}

// CHECK-LABEL: func.func @kept_window
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}} scale
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}} scale
func.func @kept_window(%q: !q, %cache: !cache, %capped: !capped, %scale: f32, %w: i64) -> (!q, !q) {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %o, %lse = kvq.attention %q, %k, %v scale %scale window %w bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  %ck, %cv = kvq.read %capped : !capped -> !dense, !dense
  %p, %plse = kvq.attention %q, %ck, %cv scale %scale window %w bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o, %p : !q, !q
}

// A read that someone else uses stays for him.
// CHECK-LABEL: func.func @shared
// CHECK: %[[K:.*]], %{{.*}} = kvq.read
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}} scale
// CHECK: return %{{.*}}, %[[K]]
func.func @shared(%q: !q, %cache: !cache, %scale: f32) -> (!q, !dense) {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o, %k : !q, !dense
}

// The commit makes the cache another one than was read.
// CHECK-LABEL: func.func @kept_commit
// CHECK: kvq.read
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}} scale
func.func @kept_commit(%q: !q, %cache: !cache, %scale: f32) -> !q {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  kvq.commit %cache side k : !cache
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o : !q
}

// Nobody says what the callee does.
// CHECK-LABEL: func.func @kept_call
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}} scale
func.func private @unknown()
func.func @kept_call(%q: !q, %cache: !cache, %scale: f32) -> !q {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  call @unknown() : () -> ()
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o : !q
}

// Reading a page does not change the cache.
// CHECK-LABEL: func.func @reads_between
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}} scale
func.func @reads_between(%q: !q, %cache: !cache, %scale: f32, %p: !kvq_tile.ptr<f32>, %i: index) -> (!q, f32) {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %x = kvq_tile.load %p[%i] : !kvq_tile.ptr<f32>, index -> f32
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o, %x : !q, f32
}

// Without causal a query also sees the keys of its step that follow it, which attention on a cache never does.
// CHECK-LABEL: func.func @kept_not_causal
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}} scale
func.func @kept_not_causal(%q: !q, %cache: !cache, %scale: f32) -> !q {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %o, %lse = kvq.attention %q, %k, %v scale %scale : !q, !dense, !dense -> !q, !lse
  return %o : !q
}

// K as V: not what a cache attends to.
// CHECK-LABEL: func.func @kept_swapped
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}} scale
func.func @kept_swapped(%q: !q, %cache: !cache, %scale: f32) -> !q {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %o, %lse = kvq.attention %q, %v, %k scale %scale bounds <causal = true> : !q, !dense, !dense -> !q, !lse
  return %o : !q
}

// bf16 queries on a cache of f32, and heads that are no multiple of the ratio.
// CHECK-LABEL: func.func @kept_type
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}} scale
// CHECK: kvq.attention %{{[^,]*}}, %{{[^,]*}}, %{{[^,]*}} scale
func.func @kept_type(%q: tensor<?x9x64xbf16>, %q8: tensor<?x8x64xf32>, %cache: !cache, %scale: f32) -> (!q, tensor<?x8x64xf32>) {
  %k, %v = kvq.read %cache : !cache -> !dense, !dense
  %o, %lse = kvq.attention %q, %k, %v scale %scale bounds <causal = true> : tensor<?x9x64xbf16>, !dense, !dense -> !q, !lse
  %o8, %lse8 = kvq.attention %q8, %k, %v scale %scale bounds <causal = true>
      : tensor<?x8x64xf32>, !dense, !dense -> tensor<?x8x64xf32>, tensor<?x8xf32>
  return %o, %o8 : !q, tensor<?x8x64xf32>
}

// The dequantized K was rounded to bf16, which attention on packed data would not do.
// CHECK-LABEL: func.func @kept_bf16
// CHECK: kvq.dequantize
// CHECK: kvq.attention
// CHECK-SAME: tensor<?x64xbf16>, tensor<?x64xbf16>
func.func @kept_bf16(%q: !q, %pk: !k, %pv: !v, %scale: f32) -> !q {
  %k = kvq.dequantize %pk : !k -> tensor<?x64xbf16>
  %v = kvq.dequantize %pv : !v -> tensor<?x64xbf16>
  %o, %lse = kvq.attention %q, %k, %v scale %scale : !q, tensor<?x64xbf16>, tensor<?x64xbf16> -> !q, !lse
  return %o : !q
}
