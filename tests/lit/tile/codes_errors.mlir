// RUN: kvq-tile-opt %s -split-input-file -verify-diagnostics

// codes_c1
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index) {
  // expected-error @+1 {{result must be a 2-d tile [tokens, channels] with a #kvq_tile.layout encoding}}
  %x = kvq_tile.codes %p[%i, %i] : !kvq_tile.ptr<i8> -> tensor<32x64xi4>
  return
}

// -----

// codes_c1
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index) {
  // expected-error @+1 {{result must be a 2-d tile [tokens, channels] with a #kvq_tile.layout encoding}}
  %x = kvq_tile.codes %p[%i, %i] : !kvq_tile.ptr<i8> -> tensor<2048xi4, #layout>
  return
}

// -----

// codes_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index) {
  // expected-error @+1 {{a rectangle of 48 tokens and 64 channels does not tile a layout of 64 tokens and 64 channels}}
  %x = kvq_tile.codes %p[%i, %i] : !kvq_tile.ptr<i8> -> tensor<48x64xi4, #layout>
  return
}

// -----

// codes_c3
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index) {
  // expected-error @+1 {{is one plane, which codes of 3 bits are not: write planes of 1, 2, 4 or 8 bits}}
  %x = kvq_tile.codes %p[%i, %i] : !kvq_tile.ptr<i8> -> tensor<32x64xi3, #layout>
  return
}

// -----

// store_codes_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index, %c: tensor<32x64xi32>) {
  // expected-error @+1 {{is one plane, which codes of 3 bits are not}}
  kvq_tile.store_codes %c, %p[%i] rows %i, %i {bits = 3, layout = #layout} : tensor<32x64xi32>, !kvq_tile.ptr<i8>
  return
}

// -----

// store_codes_c1: a strip of channels
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index, %c: tensor<32x48xi32>) {
  // expected-error @+1 {{codes of type 'tensor<32x48xi32>' do not divide the layout's 64 channels}}
  kvq_tile.store_codes %c, %p[%i, %i] rows %i, %i {bits = 4, layout = #layout} : tensor<32x48xi32>, !kvq_tile.ptr<i8>
  return
}

// -----

// store_codes_c1
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index, %c: tensor<32x32xi32>) {
  // expected-error @+1 {{codes of type 'tensor<32x32xi32>' do not have the layout's 64 channels}}
  kvq_tile.store_codes %c, %p[%i] rows %i, %i {bits = 4, layout = #layout} : tensor<32x32xi32>, !kvq_tile.ptr<i8>
  return
}

// -----

// store_codes_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index, %c: tensor<32x64xi32>) {
  // expected-error @+1 {{bits is 5; use 2, 3, 4 or 8}}
  kvq_tile.store_codes %c, %p[%i] rows %i, %i {bits = 5, layout = #layout} : tensor<32x64xi32>, !kvq_tile.ptr<i8>
  return
}

// -----

// store_codes_c3
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index, %c: tensor<48x64xi32>) {
  // expected-error @+1 {{codes of 48 tokens do not tile a layout of 64 tokens}}
  kvq_tile.store_codes %c, %p[%i] rows %i, %i {bits = 4, layout = #layout} : tensor<48x64xi32>, !kvq_tile.ptr<i8>
  return
}

// -----

// unpack_c1
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<32x64xi4, #layout>) {
  // expected-error @+1 {{result has another shape than the codes}}
  %x = kvq_tile.unpack %c : tensor<32x64xi4, #layout> -> tensor<64x32xi32>
  return
}

// -----

// dequantize_c2: 4 tokens do not make 3 groups
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<32x64xi4, #layout>, %s: tensor<3x64xf32>) {
  // expected-error @+1 {{scale of shape [3, 64] does not fit; per channel it is [groups along tokens, 64] with groups dividing 32}}
  %x = kvq_tile.dequantize %c, %s, %s axis "channel" : tensor<32x64xi4, #layout>, tensor<3x64xf32> -> tensor<32x64xf32>
  return
}

// -----

// dequantize_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<32x64xi4, #layout>, %s: tensor<2x64xf32>) {
  // expected-error @+1 {{scale of shape [2, 64] does not fit; per token it is [groups along channels, 32] with groups dividing 64}}
  %x = kvq_tile.dequantize %c, %s, %s axis "token" : tensor<32x64xi4, #layout>, tensor<2x64xf32> -> tensor<32x64xf32>
  return
}

// -----

// dequantize_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<32x64xi4, #layout>, %s: tensor<64xf32>) {
  // expected-error @+1 {{must be 2-d}}
  %x = kvq_tile.dequantize %c, %s, %s axis "channel" : tensor<32x64xi4, #layout>, tensor<64xf32> -> tensor<32x64xf32>
  return
}

// -----

// dequantize_c3
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<32x64xi4, #layout>, %s: tensor<1x64xf32>) {
  // expected-error @+1 {{axis is "0"; use "channel" (per channel) or "token" (per token)}}
  %x = kvq_tile.dequantize %c, %s, %s axis "0" : tensor<32x64xi4, #layout>, tensor<1x64xf32> -> tensor<32x64xf32>
  return
}

// -----

// codes_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%p: !kvq_tile.ptr<i8>, %i: index) {
  // expected-error @+1 {{a rectangle of 0 tokens and 64 channels does not tile a layout of 64 tokens and 64 channels}}
  %x = kvq_tile.codes %p[%i, %i] : !kvq_tile.ptr<i8> -> tensor<0x64xi4, #layout>
  return
}

// -----

// store_codes_c3
func.func @f(%q: tensor<0x64xi32>, %p: !kvq_tile.ptr<i8>, %i: index) {
  // expected-error @+1 {{codes of 0 tokens do not tile a layout of 64 tokens}}
  kvq_tile.store_codes %q, %p[%i] rows %i, %i {bits = 4, layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">}
      : tensor<0x64xi32>, !kvq_tile.ptr<i8>
  return
}

// -----

// dequantize_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%k: tensor<32x64xi4, #layout>, %s: tensor<0x64xf32>) {
  // expected-error @+1 {{scale of shape [0, 64] does not fit}}
  %x = kvq_tile.dequantize %k, %s, %s axis "channel" : tensor<32x64xi4, #layout>, tensor<0x64xf32> -> tensor<32x64xf32>
  return
}
