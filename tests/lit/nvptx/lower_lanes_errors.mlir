// Ops that have no rule, or none for such tiles.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-assign-layouts -kvq-nvptx-lower-tiles -split-input-file -verify-diagnostics

func.func @no_rule(%x: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  // expected-error @+1 {{'tensor.empty' op has no lowering to lanes of a warp; supported on tiles are the elementwise ops of arith and math, tensor.splat, scf.for, scf.if and the ops of kvq_tile}}
  %t = tensor.empty() : tensor<32xf32>
  return
}

// -----

func.func @call(%x: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  // expected-error @+1 {{'func.call' op has no lowering to lanes of a warp; supported on scalars are arith, math and kvq_tile}}
  func.call @other() : () -> ()
  return
}
func.func private @other()

// -----

func.func @constant(%x: !kvq_tile.ptr<i32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  // expected-error @+1 {{has no lowering to lanes of a warp: a constant tile is written with dense<...> and has one value; make others with kvq_tile.iota}}
  %t = arith.constant dense<[0, 1, 2, 3]> : tensor<4xi32>
  kvq_tile.store %t, %x[%c0] : tensor<4xi32>, !kvq_tile.ptr<i32>, index
  return
}

// -----

func.func @two_results(%x: !kvq_tile.ptr<i32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %t = arith.constant dense<3> : tensor<64xi32>
  // expected-error @+1 {{'arith.mulsi_extended' op has no lowering to lanes of a warp: it makes more than one tile}}
  %low, %high = arith.mulsi_extended %t, %t : tensor<64xi32>
  kvq_tile.store %low, %x[%c0] : tensor<64xi32>, !kvq_tile.ptr<i32>, index
  return
}

// -----

func.func @short_groups(%x: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %t = arith.constant dense<1.0> : tensor<32x32xf32>
  %c = arith.constant dense<1.0> : tensor<8x32xf32>
  %z = arith.constant dense<0.0> : tensor<8x32xf32>
  %s = arith.constant dense<1.0> : tensor<4x32xf32>
  // expected-error @+1 {{has groups that are shorter than the 16 elements that tensor cores take of this layout; use longer groups or the profile mma}}
  %y = kvq_tile.dot %t, %c acc %z scale %s contract 1 : tensor<32x32xf32>, tensor<8x32xf32>, tensor<4x32xf32> -> tensor<8x32xf32>
  %m = kvq_tile.reduce max %y dim 0 : tensor<8x32xf32> -> tensor<32xf32>
  kvq_tile.store %m, %x[%c0] : tensor<32xf32>, !kvq_tile.ptr<f32>, index
  return
}

// -----

!k = tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1^tok.0 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
func.func @sums_of_bits(%page: !kvq_tile.ptr<i8>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  // expected-error @+1 {{in which an address bit is a sum of index bits; use another layout on this target}}
  %i = kvq_tile.unpack %k : !k -> tensor<64x64xi32>
  return
}
