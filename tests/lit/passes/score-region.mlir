// A score region with a capture becomes elementwise ops on tiles, for packed and for raw keys; scores are in natural
// units there, so the change to base 2 follows it.
//
// RUN: kvq-opt %s -kvq-expand -canonicalize -cse | FileCheck %s

!cache = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>

// CHECK-LABEL: func.func @attend
// CHECK-SAME: %[[SCALE:[a-z0-9]+]]: f32, %{{[a-z0-9]+}}: i64, %{{[a-z0-9]+}}: f32, %{{[a-z0-9]+}}: !kvq_tile.ptr<f32>, %{{[a-z0-9]+}}: !kvq_tile.ptr<f32>, %{{[a-z0-9]+}}: i64, %[[CAP:.*]]: f32)
// CHECK: tensor.splat %[[SCALE]]
// CHECK: scf.for
// CHECK: %[[S:.*]] = kvq_tile.dot
// CHECK: %[[CAPS:.*]] = tensor.splat %[[CAP]] : tensor<3x64xf32>
// CHECK: %[[T:.*]] = arith.divf %[[S]], %[[CAPS]] : tensor<3x64xf32>
// CHECK: %[[U:.*]] = math.tanh %[[T]] : tensor<3x64xf32>
// CHECK: %[[CAPPED:.*]] = arith.mulf %[[U]], %[[CAPS]] : tensor<3x64xf32>
// CHECK: %[[K:.*]] = arith.index_cast %{{.*}} : tensor<3x64xindex> to tensor<3x64xi32>
// CHECK: arith.sitofp %[[K]] : tensor<3x64xi32> to tensor<3x64xf32>
// Tiles at the end of the packed tokens, then the tail.
// CHECK: scf.for
// CHECK: math.tanh {{.*}} : tensor<3x64xf32>
// CHECK: scf.for
// CHECK: math.tanh {{.*}} : tensor<3x32xf32>
func.func @attend(%q: tensor<?x?x64xf32>, %cache: !cache, %scale: f32, %cap: f32) -> tensor<?x?x64xf32> attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  %o, %lse = kvq.attention %q, %cache scale %scale captures(%cap : f32) bounds <causal = true> : tensor<?x?x64xf32>, !cache -> tensor<?x?x64xf32>, tensor<?x?xf32> score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index, %c: f32):
    %t = arith.divf %s, %c : f32
    %u = math.tanh %t : f32
    %capped = arith.mulf %u, %c : f32
    %k = arith.index_cast %key : index to i32
    %kf = arith.sitofp %k : i32 to f32
    %slope = arith.constant 0.01 : f32
    %bias = arith.mulf %kf, %slope : f32
    %r = arith.addf %capped, %bias : f32
    kvq.yield %r : f32
  }
  return %o : tensor<?x?x64xf32>
}

// The batch index is the number of the sequence, which is that of its tail slot: the member at byte 40 of the item.
// CHECK-LABEL: func.func @by_sequence
// CHECK: %[[C40:.*]] = arith.constant 40 : index
// CHECK: %[[AT:.*]] = kvq_tile.advance %{{.*}}, %[[C40]] : !kvq_tile.ptr<i8> -> !kvq_tile.ptr<i32>
// CHECK: %[[SLOT:.*]] = kvq_tile.load %[[AT]][%{{.*}}] : !kvq_tile.ptr<i32>, index -> i32
// CHECK: %[[INDEX:.*]] = arith.index_cast %[[SLOT]] : i32 to index
// CHECK: scf.for
// CHECK: kvq_tile.dot
// CHECK: %[[BATCH:.*]] = tensor.splat %[[INDEX]] : tensor<3x64xindex>
// CHECK: arith.index_cast %[[BATCH]] : tensor<3x64xindex> to tensor<3x64xi32>
func.func @by_sequence(%q: tensor<?x?x64xf32>, %cache: !cache, %scale: f32) -> tensor<?x?x64xf32> attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  %o, %lse = kvq.attention %q, %cache scale %scale bounds <causal = true> : tensor<?x?x64xf32>, !cache -> tensor<?x?x64xf32>, tensor<?x?xf32> score {
  ^bb0(%s: f32, %batch: index, %head: index, %query: index, %key: index):
    %b = arith.index_cast %batch : index to i32
    %f = arith.sitofp %b : i32 to f32
    %t = arith.addf %s, %f : f32
    kvq.yield %t : f32
  }
  return %o : tensor<?x?x64xf32>
}
