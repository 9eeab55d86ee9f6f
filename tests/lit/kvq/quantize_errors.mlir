// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// quantize_c3
#c32 = #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
func.func @f(%x: tensor<48x64xf32>) {
  // expected-error @+1 {{group 32 of 4c32 does not divide 48 tokens; use a group that does, or whole groups of tokens}}
  %c, %s, %m = kvq.quantize %x side #c32 : tensor<48x64xf32> -> tensor<48x64xi8>, tensor<1x64xf16>
  return
}

// -----

// quantize_c3
#t32 = #kvq.side<bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>
func.func @f(%x: tensor<64x80xf32>) {
  // expected-error @+1 {{group 32 of 4t32 does not divide 80 channels; use a group that does, or whole groups of channels}}
  %c, %s, %m = kvq.quantize %x side #t32 : tensor<64x80xf32> -> tensor<64x80xi8>, tensor<2x64xf16>
  return
}

// -----

// quantize_c6
#c32 = #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
func.func @f(%x: tensor<64x64xf32>) {
  // expected-error @+1 {{values of type 'tensor<64x64xf32>' and codes of type 'tensor<64x32xi8>' do not fit; both are 2-d [tokens, channels] of one shape}}
  %c, %s, %m = kvq.quantize %x side #c32 : tensor<64x64xf32> -> tensor<64x32xi8>, tensor<2x64xf16>
  return
}

// -----

// quantize_c7
#c32 = #kvq.side<bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>
func.func @f(%x: tensor<64x80xf32>) {
  // expected-error @+1 {{scale of type 'tensor<80x2xf16>' and min of type 'tensor<80x2xf16>' do not fit; per channel both are [tokens / 32, channels] of 'tensor<64x80xf32>'}}
  %c, %s, %m = kvq.quantize %x side #c32 : tensor<64x80xf32> -> tensor<64x80xi8>, tensor<80x2xf16>
  return
}

// -----

// quantize_c7: per token, the groups of one token lie apart, those of one group together
#t32 = #kvq.side<bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>
func.func @f(%x: tensor<80x64xf32>) {
  // expected-error @+1 {{per token both are [channels / 32, tokens] of 'tensor<80x64xf32>'}}
  %c, %s, %m = kvq.quantize %x side #t32 : tensor<80x64xf32> -> tensor<80x64xi8>, tensor<80x2xf16>
  return
}
