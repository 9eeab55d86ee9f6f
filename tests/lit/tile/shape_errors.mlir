// RUN: kvq-tile-opt %s -split-input-file -verify-diagnostics

// iota_c1
func.func @f() {
  // expected-error @+1 {{result #0 must be 1D tensor of index or 32-bit signless integer or 64-bit signless integer values, but got 'tensor<4x8xindex>'}}
  %x = kvq_tile.iota : tensor<4x8xindex>
  return
}

// -----

// broadcast_c1
func.func @f(%m: tensor<3xf32>) {
  // expected-error @+1 {{dims has 2 entries for a source of rank 1}}
  %x = kvq_tile.broadcast %m dims [0, 1] : tensor<3xf32> -> tensor<3x32xf32>
  return
}

// -----

// broadcast_c1
func.func @f(%m: tensor<3x32xf32>) {
  // expected-error @+1 {{dims must ascend inside the result's rank 2}}
  %x = kvq_tile.broadcast %m dims [1, 0] : tensor<3x32xf32> -> tensor<32x3xf32>
  return
}

// -----

// broadcast_c1
func.func @f(%m: tensor<3xf32>) {
  // expected-error @+1 {{dims must ascend inside the result's rank 2}}
  %x = kvq_tile.broadcast %m dims [2] : tensor<3xf32> -> tensor<3x32xf32>
  return
}

// -----

// broadcast_c2
func.func @f(%m: tensor<3xf32>) {
  // expected-error @+1 {{source extent 3 does not divide the result's 32}}
  %x = kvq_tile.broadcast %m dims [1] : tensor<3xf32> -> tensor<3x32xf32>
  return
}

// -----

// broadcast_c2
func.func @f(%m: tensor<3xf32>) {
  // expected-error @+1 {{source and result have different elements}}
  %x = kvq_tile.broadcast %m dims [0] : tensor<3xf32> -> tensor<3x32xi32>
  return
}

// -----

// reduce_c1
func.func @f(%s: tensor<3x32xf32>) {
  // expected-error @+1 {{result has type 'tensor<32xf32>'; it is the source without dimension 1}}
  %x = kvq_tile.reduce max %s dim 1 : tensor<3x32xf32> -> tensor<32xf32>
  return
}

// -----

// reduce_c1
func.func @f(%s: tensor<32xf32>) {
  // expected-error @+1 {{result has type 'i32'; it is the source without dimension 0}}
  %x = kvq_tile.reduce add %s dim 0 : tensor<32xf32> -> i32
  return
}

// -----

// reduce_c2
func.func @f(%s: tensor<3x32xf32>) {
  // expected-error @+1 {{dim is 2; the source has rank 2}}
  %x = kvq_tile.reduce min %s dim 2 : tensor<3x32xf32> -> tensor<3xf32>
  return
}

// -----

// broadcast_c2
func.func @f(%m: tensor<0xf32>) {
  // expected-error @+1 {{source extent 0 does not divide the result's 32}}
  %x = kvq_tile.broadcast %m dims [0] : tensor<0xf32> -> tensor<32xf32>
  return
}

// -----

// reduce_c2
func.func @f(%s: tensor<3x32xf32>) {
  // expected-error @+1 {{dim is -1; the source has rank 2}}
  %x = kvq_tile.reduce min %s dim -1 : tensor<3x32xf32> -> tensor<3xf32>
  return
}

// -----

// convert_c1: another shape.
func.func @f(%x: tensor<64xf32, #kvq_tile.lanes<"lane=[d0.0 - - - -]">>) {
  // expected-error @+1 {{source and result must differ in their #kvq_tile.lanes alone}}
  %y = kvq_tile.convert %x : tensor<64xf32, #kvq_tile.lanes<"lane=[d0.0 - - - -]">> -> tensor<32xf32, #kvq_tile.lanes<"lane=[d0.0 - - - -]">>
  return
}

// -----

// convert_c1: another element.
func.func @f(%x: tensor<64xf32, #kvq_tile.lanes<"lane=[d0.0 - - - -]">>) {
  // expected-error @+1 {{source and result must differ in their #kvq_tile.lanes alone}}
  %y = kvq_tile.convert %x : tensor<64xf32, #kvq_tile.lanes<"lane=[d0.0 - - - -]">> -> tensor<64xf16, #kvq_tile.lanes<"lane=[d0.0 - - - -]">>
  return
}

// -----

// convert_c1: a tile without lanes.
func.func @f(%x: tensor<64xf32>) {
  // expected-error @+1 {{source and result must differ in their #kvq_tile.lanes alone}}
  %y = kvq_tile.convert %x : tensor<64xf32> -> tensor<64xf32, #kvq_tile.lanes<"lane=[d0.0 - - - -]">>
  return
}

// -----

// reduce_parts_c1
func.func @f(%x: tensor<8xf32>, %c: i1) {
  scf.if %c {
    // expected-error @+1 {{stands in a loop or a branch, which some parts might not take}}
    %m = kvq_tile.reduce_parts max %x : tensor<8xf32>
  }
  return
}
