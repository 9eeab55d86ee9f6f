// RUN: kvq-opt %s -canonicalize | FileCheck %s

#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
!packed = !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = #layout>

// layout_c3
// CHECK-LABEL: func.func @unpack_of_pack
// CHECK-SAME: (%[[CODES:.*]]: tensor<64x64xi8>)
// CHECK-NEXT: return %[[CODES]]
func.func @unpack_of_pack(%codes: tensor<64x64xi8>) -> tensor<64x64xi8> {
  %bytes = kvq.pack %codes bits 4 layout #layout : tensor<64x64xi8> -> tensor<2048xi8>
  %again = kvq.unpack %bytes bits 4 layout #layout : tensor<2048xi8> -> tensor<64x64xi8>
  return %again : tensor<64x64xi8>
}

// CHECK-LABEL: func.func @convert_to_itself
// CHECK-SAME: (%[[P:.*]]: !kvq.packed
// CHECK-NEXT: return %[[P]]
func.func @convert_to_itself(%p: !packed) -> !packed {
  %r = kvq.convert %p : !packed -> !packed
  return %r : !packed
}

// A read of a cache whose values nobody uses goes away; what changes a cache stays.
// CHECK-LABEL: func.func @effects
// CHECK-NOT: kvq.read
// CHECK: kvq.commit
func.func @effects(%cache: !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>) {
  %k, %v = kvq.read %cache : !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni> -> tensor<?x?x?x64xf32>, tensor<?x?x?x64xf32>
  kvq.commit %cache side k : !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
  return
}
