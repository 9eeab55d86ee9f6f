// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// merge_c2
func.func @f(%p: tensor<?x?x9x64xf32>, %l: tensor<?x?x9xf32>, %s: tensor<9xf32>) {
  // expected-error @+1 {{parts of type 'tensor<?x?x9x64xf32>', 'tensor<?x?x9xf32>' and results of type 'tensor<?x9x64xf32>', 'tensor<?x8xf32>' do not agree; use [parts, queries, heads, Dv] and [parts, queries, heads], and the same without parts}}
  %o, %lse = kvq.merge %p, %l sinks %s : tensor<?x?x9x64xf32>, tensor<?x?x9xf32>, tensor<9xf32> -> tensor<?x9x64xf32>, tensor<?x8xf32>
  return
}

// -----

// merge_c2
func.func @f(%p: tensor<?x9x64xf32>, %l: tensor<?x9xf32>, %s: tensor<9xf32>) {
  // expected-error @+1 {{parts of type 'tensor<?x9x64xf32>', 'tensor<?x9xf32>' and results of type 'tensor<9x64xf32>', 'tensor<9xf32>' do not agree}}
  %o, %lse = kvq.merge %p, %l sinks %s : tensor<?x9x64xf32>, tensor<?x9xf32>, tensor<9xf32> -> tensor<9x64xf32>, tensor<9xf32>
  return
}

// -----

// merge_c3
func.func @f(%p: tensor<?x?x9x64xf32>, %l: tensor<?x?x9xf32>, %s: tensor<3xf32>) {
  // expected-error @+1 {{sinks of type 'tensor<3xf32>' are not one logit for each head of 'tensor<?x?x9xf32>'}}
  %o, %lse = kvq.merge %p, %l sinks %s : tensor<?x?x9x64xf32>, tensor<?x?x9xf32>, tensor<3xf32> -> tensor<?x9x64xf32>, tensor<?x9xf32>
  return
}

// -----

// convert_c1
!packed = !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
func.func @f(%p: !packed) {
  // expected-error @+1 {{makes 128 tokens x 64 channels of 64 x 64; both must be the same}}
  %r = kvq.convert %p : !packed -> !kvq.packed<128x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.0 tok.1 tok.2] tok:8 ch:64">>
  return
}
