// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// pack_c1
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<64x80xi8>) {
  // expected-error @+1 {{codes of type 'tensor<64x80xi8>' are not what the layout covers; make them 64 tokens x 64 channels, or change the layout}}
  %b = kvq.pack %c bits 4 layout #layout : tensor<64x80xi8> -> tensor<2560xi8>
  return
}

// -----

// pack_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<64x64xi8>) {
  // expected-error @+1 {{bits is 5; use 2, 3, 4 or 8}}
  %b = kvq.pack %c bits 5 layout #layout : tensor<64x64xi8> -> tensor<1536xi8>
  return
}

// -----

// pack_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<64x64xi8>) {
  // expected-error @+1 {{is one plane, which codes of 3 bits are not: write planes of 1, 2, 4 or 8 bits}}
  %b = kvq.pack %c bits 3 layout #layout : tensor<64x64xi8> -> tensor<1536xi8>
  return
}

// -----

// pack_c3
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%c: tensor<64x64xi8>) {
  // expected-error @+1 {{bytes of type 'tensor<4096xi8>' are not the section of these codes; use tensor<2048xi8>}}
  %b = kvq.pack %c bits 4 layout #layout : tensor<64x64xi8> -> tensor<4096xi8>
  return
}

// -----

// unpack_c1
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%b: tensor<2048xi8>) {
  // expected-error @+1 {{codes of type 'tensor<32x128xi8>' are not what the layout covers; make them 64 tokens x 64 channels, or change the layout}}
  %c = kvq.unpack %b bits 4 layout #layout : tensor<2048xi8> -> tensor<32x128xi8>
  return
}

// -----

// unpack_c2
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%b: tensor<4096xi8>) {
  // expected-error @+1 {{bits is 16; use 2, 3, 4 or 8}}
  %c = kvq.unpack %b bits 16 layout #layout : tensor<4096xi8> -> tensor<64x64xi32>
  return
}

// -----

// unpack_c3
#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @f(%b: tensor<64x32xi8>) {
  // expected-error @+1 {{bytes of type 'tensor<64x32xi8>' are not the section of these codes; use tensor<2048xi8>}}
  %c = kvq.unpack %b bits 4 layout #layout : tensor<64x32xi8> -> tensor<64x64xi32>
  return
}
