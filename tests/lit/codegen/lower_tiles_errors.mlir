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

// -----

func.func @half_tiles(%p: !kvq_tile.ptr<bf16>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %p[%c0] : !kvq_tile.ptr<bf16>, index -> tensor<8xbf16>
  // expected-error @below {{computes with f16 or bf16; convert to f32 with arith.extf before and with arith.truncf after}}
  %w = arith.addf %v, %v : tensor<8xbf16>
  kvq_tile.store %w, %p[%c0] : tensor<8xbf16>, !kvq_tile.ptr<bf16>, index
  return
}

// -----

func.func @other_rounding(%p: !kvq_tile.ptr<f32>, %q: !kvq_tile.ptr<bf16>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %p[%c0] : !kvq_tile.ptr<f32>, index -> tensor<8xf32>
  // expected-error @below {{it rounds to nearest, ties to even, only}}
  %w = arith.truncf %v toward_zero : tensor<8xf32> to tensor<8xbf16>
  kvq_tile.store %w, %q[%c0] : tensor<8xbf16>, !kvq_tile.ptr<bf16>, index
  return
}

// -----

func.func @double(%p: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %p[%c0] : !kvq_tile.ptr<f32>, index -> tensor<8xf32>
  // expected-error @below {{makes a value of type 'tensor<8xf64>', which has no place in a kernel: use f32, f16, bf16, i64, i32, i8, i1 or index}}
  %w = arith.extf %v : tensor<8xf32> to tensor<8xf64>
  return
}

// -----

func.func @rank_0(%p: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  // expected-error @below {{a tile has a static shape of one or more dimensions and at least one element}}
  %v = kvq_tile.load %p[%c0] : !kvq_tile.ptr<f32>, index -> tensor<f32>
  return
}

// -----

func.func @empty(%p: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  // expected-error @below {{a tile has a static shape of one or more dimensions and at least one element}}
  %v = kvq_tile.load %p[%c0] : !kvq_tile.ptr<f32>, index -> tensor<0xf32>
  return
}

// -----

func.func @arithmetic_on_codes(%p: !kvq_tile.ptr<i8>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %k = kvq_tile.codes %p[%c0, %c0] : !kvq_tile.ptr<i8>
      -> tensor<8x16xi8, #kvq_tile.layout<"[ch.0 ch.1] ch:4 tok:8">>
  // expected-error @below {{only kvq_tile.codes makes a tile with an encoding; use kvq_tile.unpack or kvq_tile.dequantize}}
  %w = arith.addi %k, %k : tensor<8x16xi8, #kvq_tile.layout<"[ch.0 ch.1] ch:4 tok:8">>
  return
}

// -----

func.func @broadcast_of_codes(%p: !kvq_tile.ptr<i8>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %k = kvq_tile.codes %p[%c0, %c0] : !kvq_tile.ptr<i8>
      -> tensor<8x16xi8, #kvq_tile.layout<"[ch.0 ch.1] ch:4 tok:8">>
  // expected-error @below {{takes packed codes, which are only in memory; use kvq_tile.unpack or kvq_tile.dequantize}}
  %w = kvq_tile.broadcast %k dims [1, 2]
      : tensor<8x16xi8, #kvq_tile.layout<"[ch.0 ch.1] ch:4 tok:8">> -> tensor<2x8x16xi8>
  return
}

// -----

func.func @dot_of_bytes(%p: !kvq_tile.ptr<i8>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %at = tensor.splat %c0 : tensor<8xindex>
  %v = kvq_tile.load %p[%at] : !kvq_tile.ptr<i8>, tensor<8xindex> -> tensor<8x8xi8>
  %f = arith.constant dense<1.0> : tensor<8x8xf32>
  // expected-error @below {{takes x of type 'tensor<8x8xi8>', which is neither f32 nor made by kvq_tile.codes}}
  %d = kvq_tile.dot %v, %f acc %f contract 0 : tensor<8x8xi8>, tensor<8x8xf32> -> tensor<8x8xf32>
  return
}

// -----

func.func @sparse_constant(%p: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  // expected-error @below {{a constant tile is written with dense<...>}}
  %v = arith.constant sparse<[[0]], [1.0]> : tensor<8xf32>
  kvq_tile.store %v, %p[%c0] : tensor<8xf32>, !kvq_tile.ptr<f32>, index
  return
}

// -----

// expected-error @below {{needs 1310720 bytes of scratch memory on the stack, more than the 1048576 that a kernel may use; work on smaller tiles}}
func.func @too_large(%p: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %p[%c0] : !kvq_tile.ptr<f32>, index -> tensor<327680xf32>
  kvq_tile.store %v, %p[%c0] : tensor<327680xf32>, !kvq_tile.ptr<f32>, index
  return
}
