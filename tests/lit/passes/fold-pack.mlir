// RUN: kvq-opt %s -kvq-fold-pack | FileCheck %s

#vnni = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
#kivi = #kvq_tile.layout<"[tok.0 tok.1 tok.2] tok:8 ch:64">

// CHECK-LABEL: func.func @unpack_of_pack
// CHECK-SAME: (%[[CODES:.*]]: tensor<64x64xi8>)
// CHECK-NEXT: return %[[CODES]]
func.func @unpack_of_pack(%codes: tensor<64x64xi8>) -> tensor<64x64xi8> {
  %bytes = kvq.pack %codes bits 4 layout #vnni : tensor<64x64xi8> -> tensor<2048xi8>
  %again = kvq.unpack %bytes bits 4 layout #vnni : tensor<2048xi8> -> tensor<64x64xi8>
  return %again : tensor<64x64xi8>
}

// CHECK-LABEL: func.func @pack_of_unpack
// CHECK-SAME: (%[[BYTES:.*]]: tensor<2048xi8>)
// CHECK-NEXT: return %[[BYTES]]
func.func @pack_of_unpack(%bytes: tensor<2048xi8>) -> tensor<2048xi8> {
  %codes = kvq.unpack %bytes bits 4 layout #vnni : tensor<2048xi8> -> tensor<64x64xi32>
  %again = kvq.pack %codes bits 4 layout #vnni : tensor<64x64xi32> -> tensor<2048xi8>
  return %again : tensor<2048xi8>
}

// CHECK-LABEL: func.func @chain
// CHECK-SAME: (%[[BYTES:.*]]: tensor<2048xi8>)
// CHECK-NEXT: %[[CODES:.*]] = kvq.unpack %[[BYTES]]
// CHECK-NEXT: return %[[CODES]]
func.func @chain(%bytes: tensor<2048xi8>) -> tensor<64x64xi8> {
  %codes = kvq.unpack %bytes bits 4 layout #vnni : tensor<2048xi8> -> tensor<64x64xi8>
  %again = kvq.pack %codes bits 4 layout #vnni : tensor<64x64xi8> -> tensor<2048xi8>
  %result = kvq.unpack %again bits 4 layout #vnni : tensor<2048xi8> -> tensor<64x64xi8>
  return %result : tensor<64x64xi8>
}

// The pack has another user.
// CHECK-LABEL: func.func @shared
// CHECK-SAME: (%[[CODES:.*]]: tensor<64x64xi8>)
// CHECK-NEXT: %[[BYTES:.*]] = kvq.pack
// CHECK-NEXT: return %[[CODES]], %[[BYTES]]
func.func @shared(%codes: tensor<64x64xi8>) -> (tensor<64x64xi8>, tensor<2048xi8>) {
  %bytes = kvq.pack %codes bits 4 layout #vnni : tensor<64x64xi8> -> tensor<2048xi8>
  %again = kvq.unpack %bytes bits 4 layout #vnni : tensor<2048xi8> -> tensor<64x64xi8>
  return %again, %bytes : tensor<64x64xi8>, tensor<2048xi8>
}

// Another layout, another width, another type of codes: each is a real operation.
// CHECK-LABEL: func.func @kept
// CHECK: kvq.pack
// CHECK: kvq.unpack {{.*}} layout <"[tok.0
// CHECK: kvq.unpack {{.*}} -> tensor<64x64xi32>
// CHECK: kvq.pack
// CHECK: kvq.unpack {{.*}} bits 8
func.func @kept(%codes: tensor<64x64xi8>, %small: tensor<64x64xi8>)
    -> (tensor<64x64xi8>, tensor<64x64xi32>, tensor<32x64xi8>) {
  %bytes = kvq.pack %codes bits 4 layout #vnni : tensor<64x64xi8> -> tensor<2048xi8>
  %relaid = kvq.unpack %bytes bits 4 layout #kivi : tensor<2048xi8> -> tensor<64x64xi8>
  %wide = kvq.unpack %bytes bits 4 layout #vnni : tensor<2048xi8> -> tensor<64x64xi32>
  %more = kvq.pack %small bits 4 layout #kivi : tensor<64x64xi8> -> tensor<2048xi8>
  %bytewise = kvq.unpack %more bits 8 layout <"[tok.0 tok.1 tok.2] tok:4 ch:64"> : tensor<2048xi8> -> tensor<32x64xi8>
  return %relaid, %wide, %bytewise : tensor<64x64xi8>, tensor<64x64xi32>, tensor<32x64xi8>
}
