// Products that no fragment fits.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-assign-layouts -split-input-file -verify-diagnostics

!k = tensor<64x64xi3, #kvq_tile.layout<"2:[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:4 tok:1 + 1:[ch.2 ch.3 ch.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:2 tok:1">>
func.func @three_bits(%page: !kvq_tile.ptr<i8>, %out: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %q = arith.constant dense<1.0> : tensor<8x64xf16>
  %zero = arith.constant dense<0.0> : tensor<8x64xf32>
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  // expected-error @+1 {{takes codes of 3 bits, which lie in several planes; use 2, 4 or 8 on this target}}
  %s = kvq_tile.dot %k, %q acc %zero contract 1 : !k, tensor<8x64xf16> -> tensor<8x64xf32>
  %m = kvq_tile.reduce max %s dim 0 : tensor<8x64xf32> -> tensor<64xf32>
  kvq_tile.store %m, %out[%c0] : tensor<64xf32>, !kvq_tile.ptr<f32>, index
  return
}

// -----

!k = tensor<64x64xi3, #kvq_tile.layout<"2:[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:4 tok:1 + 1:[ch.2 ch.3 ch.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:2 tok:1">>
func.func @three_bits_alone(%page: !kvq_tile.ptr<i8>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  // expected-error @+1 {{which lie in several planes; use 2, 4 or 8 bits on this target}}
  %i = kvq_tile.unpack %k : !k -> tensor<64x64xi32>
  return
}

// -----

// In KIVI's order the codes of a word are tokens, which K does not contract.
!k = tensor<64x64xi4, #kvq_tile.layout<"[tok.0 tok.1 tok.2] tok:8 ch:64">>
func.func @kivi(%page: !kvq_tile.ptr<i8>, %out: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %q = arith.constant dense<1.0> : tensor<8x64xf16>
  %zero = arith.constant dense<0.0> : tensor<8x64xf32>
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  // expected-error @+1 {{the halves of a word are not of the contracted dimension; use the profile mma}}
  %s = kvq_tile.dot %k, %q acc %zero contract 1 : !k, tensor<8x64xf16> -> tensor<8x64xf32>
  %m = kvq_tile.reduce max %s dim 0 : tensor<8x64xf32> -> tensor<64xf32>
  kvq_tile.store %m, %out[%c0] : tensor<64xf32>, !kvq_tile.ptr<f32>, index
  return
}

// -----

!k = tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
func.func @three_rows(%page: !kvq_tile.ptr<i8>, %out: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %q = arith.constant dense<1.0> : tensor<3x64xf16>
  %zero = arith.constant dense<0.0> : tensor<3x64xf32>
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  // expected-error @+1 {{multiplies packed codes with 3 rows of coefficients over 64 elements; this target takes a multiple of 8 rows and of 16 elements}}
  %s = kvq_tile.dot %k, %q acc %zero contract 1 : !k, tensor<3x64xf16> -> tensor<3x64xf32>
  %m = kvq_tile.reduce max %s dim 0 : tensor<3x64xf32> -> tensor<64xf32>
  kvq_tile.store %m, %out[%c0] : tensor<64xf32>, !kvq_tile.ptr<f32>, index
  return
}

// -----

// 16 bits of a word are tokens 0 and 1 of all eight channels that a word has: a tile of 1 token ends within it.
!k = tensor<1x64xi4, #kvq_tile.layout<"[tok.0 ch.1 ch.0 ch.2 ch.3 tok.1 tok.2 tok.3] tok:4 ch:4 tok:1">>
func.func @within_a_word(%page: !kvq_tile.ptr<i8>, %out: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %q = arith.constant dense<1.0> : tensor<8x64xf16>
  %zero = arith.constant dense<0.0> : tensor<8x1xf32>
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  // expected-error @+1 {{a tile ends within a word; use the profile mma}}
  %s = kvq_tile.dot %k, %q acc %zero contract 1 : !k, tensor<8x64xf16> -> tensor<8x1xf32>
  %m = kvq_tile.reduce max %s dim 0 : tensor<8x1xf32> -> tensor<1xf32>
  kvq_tile.store %m, %out[%c0] : tensor<1xf32>, !kvq_tile.ptr<f32>, index
  return
}
