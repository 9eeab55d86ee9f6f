// RUN: kvq-tile-opt %s -kvq-cpu-vector=level=x86-64 -split-input-file -verify-diagnostics

func.func @half_arithmetic(%p: !kvq_tile.ptr<f16>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %p[%c0] : !kvq_tile.ptr<f16>, index -> f16
  // expected-error @below {{'arith.addf' op has no lowering to CPU code}}
  %w = arith.addf %v, %v : f16
  kvq_tile.store %w, %p[%c0] : f16, !kvq_tile.ptr<f16>, index
  return
}

// -----

func.func @center(%page: !kvq_tile.ptr<i8>, %p: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %at = tensor.splat %c0 : tensor<1xindex>
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8>
      -> tensor<32x16xi8, #kvq_tile.layout<"[ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:2 ch:4">>
  %c = kvq_tile.load %p[%at] : !kvq_tile.ptr<f32>, tensor<1xindex> -> tensor<1x16xf32>
  %z = arith.constant dense<0.0> : tensor<1x32xf32>
  // expected-error @below {{has a center; the f32 arithmetic of class `exact` takes raw codes and their minimum}}
  %s = kvq_tile.dot %k, %c acc %z contract 1 center 7.5
      : tensor<32x16xi8, #kvq_tile.layout<"[ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:2 ch:4">>, tensor<1x16xf32>
      -> tensor<1x32xf32>
  kvq_tile.store %s, %p[%at] : tensor<1x32xf32>, !kvq_tile.ptr<f32>, tensor<1xindex>
  return
}

// -----

func.func @combined_bits(%page: !kvq_tile.ptr<i8>, %p: !kvq_tile.ptr<i32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8>
      -> tensor<16x16xi8, #kvq_tile.layout<"[ch.0^tok.0 ch.1 tok.0] tok:8 ch:4">>
  // expected-error @below {{has no lowering for a layout that combines index bits}}
  %u = kvq_tile.unpack %k : tensor<16x16xi8, #kvq_tile.layout<"[ch.0^tok.0 ch.1 tok.0] tok:8 ch:4">> -> tensor<16x16xi32>
  %m = kvq_tile.reduce add %u dim 0 : tensor<16x16xi32> -> tensor<16xi32>
  kvq_tile.store %m, %p[%c0] : tensor<16xi32>, !kvq_tile.ptr<i32>, index
  return
}

// -----

// expected-error @below {{a module must hold one kernel, this one holds 2; mark a func.func with the attribute kvq_tile.kernel}}
module {
  func.func @a() attributes {kvq_tile.kernel} { return }
  func.func @b() attributes {kvq_tile.kernel} { return }
}
