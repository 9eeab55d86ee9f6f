// RUN: kvq-tile-opt %s -split-input-file -verify-diagnostics

// coeff_c1
func.func @f(%v: tensor<3x64xf32>, %s: tensor<1x32xf32>) {
  // expected-error @+1 {{values [R, C], scale [S, C] and result [S, R, C] do not agree: 'tensor<3x64xf32>', 'tensor<1x32xf32>', 'tensor<1x3x64xf32>'}}
  %x = kvq_tile.coeff %v, %s : tensor<3x64xf32>, tensor<1x32xf32> -> tensor<1x3x64xf32>
  return
}

// -----

// coeff_c1
func.func @f(%v: tensor<3x64xf32>, %s: tensor<2x64xf32>) {
  // expected-error @+1 {{values [R, C], scale [S, C] and result [S, R, C] do not agree}}
  %x = kvq_tile.coeff %v, %s : tensor<3x64xf32>, tensor<2x64xf32> -> tensor<1x3x64xf32>
  return
}

// -----

// coeff_c1
func.func @f(%v: tensor<3x64xf32>) {
  // expected-error @+1 {{values [R, C], scale [S, C] and result [S, R, C] do not agree: 'tensor<3x64xf32>', 'tensor<2x3x64xf32>'}}
  %x = kvq_tile.coeff %v as si8 : tensor<3x64xf32> -> tensor<2x3x64xf32>
  return
}

// -----

// coeff_c2
func.func @f(%v: tensor<3x64xf32>) {
  // expected-error @+1 {{rounds coefficients to 'i8'; use si8, si16, ui8, ui16 or f16}}
  %x = kvq_tile.coeff %v as i8 : tensor<3x64xf32> -> tensor<1x3x64xf32>
  return
}

// -----

// dot_c4
func.func @f(%x: tensor<32x64xf32>, %c: tensor<3x64xf32>, %a: tensor<3x32xf32>) {
  // expected-error @+1 {{rounds coefficients to 'si4'; use si8, si16, ui8, ui16 or f16}}
  %s = kvq_tile.dot %x, %c acc %a contract 1 round si4 : tensor<32x64xf32>, tensor<3x64xf32> -> tensor<3x32xf32>
  return
}

// -----

// dot_c1: contract 1 meets channels, contract 0 tokens
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%k: tensor<32x64xi4, #layout>, %c: tensor<3x32xf32>, %a: tensor<3x32xf32>) {
  // expected-error @+1 {{contracts 64 elements of x with 32 coefficients; they must be as many}}
  %x = kvq_tile.dot %k, %c acc %a contract 1 : tensor<32x64xi4, #layout>, tensor<3x32xf32> -> tensor<3x32xf32>
  return
}

// -----

// dot_c1
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%k: tensor<32x64xi4, #layout>, %c: tensor<3x64xf32>, %a: tensor<3x64xf32>) {
  // expected-error @+1 {{acc and result must have shape [3, 32], acc is 'tensor<3x64xf32>'}}
  %x = kvq_tile.dot %k, %c acc %a contract 1 : tensor<32x64xi4, #layout>, tensor<3x64xf32> -> tensor<3x64xf32>
  return
}

// -----

// dot_c1
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%k: tensor<32x64xi4, #layout>, %c: tensor<64xf32>, %a: tensor<3x32xf32>) {
  // expected-error @+1 {{x and acc are 2-d, coeff is 2-d or 3-d}}
  %x = kvq_tile.dot %k, %c acc %a contract 1 : tensor<32x64xi4, #layout>, tensor<64xf32> -> tensor<3x32xf32>
  return
}

// -----

// dot_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%k: tensor<32x64xi4, #layout>, %c: tensor<3x64xf32>, %a: tensor<3x32xf32>) {
  // expected-error @+1 {{contract is 2; x has dimensions 0 and 1}}
  %x = kvq_tile.dot %k, %c acc %a contract 2 : tensor<32x64xi4, #layout>, tensor<3x64xf32> -> tensor<3x32xf32>
  return
}

// -----

// dot_c3
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%k: tensor<32x64xi4, #layout>, %c: tensor<3x3x64xf32>, %a: tensor<3x32xf32>) {
  // expected-error @+1 {{has 3 sets of coefficients, which do not divide 32 results}}
  %x = kvq_tile.dot %k, %c acc %a contract 1 : tensor<32x64xi4, #layout>, tensor<3x3x64xf32> -> tensor<3x32xf32>
  return
}

// -----

// dot_c3
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%k: tensor<32x64xi4, #layout>, %c: tensor<3x64xf32>, %a: tensor<3x32xf32>, %s: tensor<3x32xf32>) {
  // expected-error @+1 {{scale of type 'tensor<3x32xf32>' is not [groups dividing 64, 32]}}
  %x = kvq_tile.dot %k, %c acc %a scale %s contract 1 : tensor<32x64xi4, #layout>, tensor<3x64xf32>, tensor<3x32xf32> -> tensor<3x32xf32>
  return
}

// -----

// dot_c3
func.func @f(%x: tensor<8x32xf32>, %c: tensor<0x3x8xf32>, %a: tensor<3x32xf32>) {
  // expected-error @+1 {{has 0 sets of coefficients, which do not divide 32 results}}
  %y = kvq_tile.dot %x, %c acc %a contract 0 : tensor<8x32xf32>, tensor<0x3x8xf32> -> tensor<3x32xf32>
  return
}

// -----

// dot_c3
func.func @f(%x: tensor<8x32xf32>, %c: tensor<3x8xf32>, %a: tensor<3x32xf32>, %s: tensor<0x32xf32>) {
  // expected-error @+1 {{scale of type 'tensor<0x32xf32>' is not [groups dividing 8, 32]}}
  %y = kvq_tile.dot %x, %c acc %a scale %s contract 0 : tensor<8x32xf32>, tensor<3x8xf32>, tensor<0x32xf32> -> tensor<3x32xf32>
  return
}

// -----

// coeff_c1: one element type.
func.func @f(%v: tensor<3x64xf32>, %s: tensor<1x64xf16>) {
  // expected-error @+1 {{values [R, C], scale [S, C] and result [S, R, C] do not agree: 'tensor<3x64xf32>', 'tensor<1x64xf16>', 'tensor<1x3x64xf32>'}}
  %x = kvq_tile.coeff %v, %s : tensor<3x64xf32>, tensor<1x64xf16> -> tensor<1x3x64xf32>
  return
}

// -----

// coeff_c1: also the result's.
func.func @f(%v: tensor<3x64xf16>) {
  // expected-error @+1 {{values [R, C], scale [S, C] and result [S, R, C] do not agree: 'tensor<3x64xf16>', 'tensor<1x3x64xf32>'}}
  %x = kvq_tile.coeff %v : tensor<3x64xf16> -> tensor<1x3x64xf32>
  return
}
