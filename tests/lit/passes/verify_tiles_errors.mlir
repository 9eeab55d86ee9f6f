// RUN: kvq-opt %s -split-input-file -verify-diagnostics -kvq-verify-tiles

!packed = !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>

// verify_tiles_c1: a type.
// expected-error @+2 {{has a value of a type of the kvq dialect after tile expansion}}
// expected-note @+1 {{its function has no 'kvq.kernel', so that kvq-expand left it alone}}
func.func @f(%page: !packed) {
  return
}

// -----

// verify_tiles_c1: an op.
func.func @f(%codes: tensor<64x64xi8>) {
  // expected-error @+2 {{'kvq.pack' op is left after tile expansion}}
  // expected-note @+1 {{its function has no 'kvq.kernel', so that kvq-expand left it alone}}
  %bytes = kvq.pack %codes bits 4 layout <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
      : tensor<64x64xi8> -> tensor<2048xi8>
  return
}

// -----

// verify_tiles_c2
func.func @f(%x: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  // expected-error @+1 {{'tensor.empty' op cannot be in a tile program; use kvq_tile, arith, math, scf.for, scf.if and tensor.splat}}
  %t = tensor.empty() : tensor<4xf32>
  return
}

// -----

// verify_tiles_c2
func.func @f(%x: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  // expected-error @+2 {{'func.call' op cannot be in a tile program}}
  // expected-note @+1 {{a kernel calls nothing; inline the function}}
  func.call @f(%x) : (!kvq_tile.ptr<f32>) -> ()
  return
}

// -----

// verify_tiles_c3
// expected-error @+1 {{is no kernel; give it the attribute 'kvq_tile.kernel', or inline it where it is called}}
func.func @f(%x: !kvq_tile.ptr<f32>) {
  return
}
