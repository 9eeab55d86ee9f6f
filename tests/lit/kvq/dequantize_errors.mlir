// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// dequantize_c3
func.func @f(%c: tensor<64x64xi8>) {
  // expected-error @+1 {{has codes, which need their scale, min and side; add them}}
  %x = kvq.dequantize %c : tensor<64x64xi8> -> tensor<64x64xf32>
  return
}

// -----

// dequantize_c3
!packed = !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
#c32 = #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
func.func @f(%p: !packed, %s: tensor<2x64xf16>) {
  // expected-error @+1 {{has a packed matrix, which has its own scale, min and side; leave them out}}
  %x = kvq.dequantize %p, %s, %s side #c32 : !packed, tensor<2x64xf16> -> tensor<64x64xf32>
  return
}

// -----

// dequantize_c4
!packed = !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
func.func @f(%p: !packed) {
  // expected-error @+1 {{values of type 'tensor<64x32xf32>' do not have the shape of '!kvq.packed<64x64,}}
  %x = kvq.dequantize %p : !packed -> tensor<64x32xf32>
  return
}

// -----

// dequantize_c4
#c32 = #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
func.func @f(%c: tensor<64x64xi8>, %s: tensor<2x64xf16>) {
  // expected-error @+1 {{values of type 'tensor<4096xf32>' do not have the shape of 'tensor<64x64xi8>'; both are 2-d [tokens, channels] of one shape}}
  %x = kvq.dequantize %c, %s, %s side #c32 : tensor<64x64xi8>, tensor<2x64xf16> -> tensor<4096xf32>
  return
}

// -----

// dequantize_c5
#c32 = #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
func.func @f(%c: tensor<64x64xi8>, %s: tensor<1x64xf16>) {
  // expected-error @+1 {{scale of type 'tensor<1x64xf16>' and min of type 'tensor<1x64xf16>' do not fit; per channel both are [tokens / 32, channels]}}
  %x = kvq.dequantize %c, %s, %s side #c32 : tensor<64x64xi8>, tensor<1x64xf16> -> tensor<64x64xf32>
  return
}

// -----

// dequantize_c5
#c32 = #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
func.func @f(%c: tensor<48x64xi8>, %s: tensor<1x64xf16>) {
  // expected-error @+1 {{group 32 of 4c32 does not divide 48 tokens; use a group that does}}
  %x = kvq.dequantize %c, %s, %s side #c32 : tensor<48x64xi8>, tensor<1x64xf16> -> tensor<48x64xf32>
  return
}
