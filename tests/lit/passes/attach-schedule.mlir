// RUN: kvq-opt %s -split-input-file -kvq-attach-schedule | FileCheck %s

// A whole page of 64 tokens, which are two groups of K.
// CHECK-LABEL: func.func @merge
// CHECK-SAME: kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 64, rows = 8, vectors = 8, prefetch = 1>
func.func @merge(%parts: tensor<?x?x?x64xf32>, %lses: tensor<?x?x?xf32>, %sinks: tensor<?xf32>) -> (tensor<?x?x64xf32>, tensor<?x?xf32>)
    attributes {kvq.kernel = "merge:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
  %o, %lse = kvq.merge %parts, %lses sinks %sinks : tensor<?x?x?x64xf32>, tensor<?x?x?xf32>, tensor<?xf32> -> tensor<?x?x64xf32>, tensor<?x?xf32>
  return %o, %lse : tensor<?x?x64xf32>, tensor<?x?xf32>
}

// -----

// A page of 160 tokens is more than one tile; K's groups of 32 tokens leave 32, the largest part that is made of them.
// CHECK-LABEL: func.func @merge
// CHECK-SAME: #kvq_tile.schedule<tile_tokens = 32, rows = 8, vectors = 8, prefetch = 1>
func.func @merge(%parts: tensor<?x?x?x64xf32>, %lses: tensor<?x?x?xf32>, %sinks: tensor<?xf32>) -> (tensor<?x?x64xf32>, tensor<?x?xf32>)
    attributes {kvq.kernel = "merge:k4c32-v4t32:vnni:p160:dk64:dv64:g4:f32:rows16:lag0:win0:cap0:exact"} {
  %o, %lse = kvq.merge %parts, %lses sinks %sinks : tensor<?x?x?x64xf32>, tensor<?x?x?xf32>, tensor<?xf32> -> tensor<?x?x64xf32>, tensor<?x?xf32>
  return %o, %lse : tensor<?x?x64xf32>, tensor<?x?xf32>
}

// -----

// A schedule that was chosen stays; a function that is no kernel gets none.
// CHECK-LABEL: func.func @merge
// CHECK-SAME: #kvq_tile.schedule<tile_tokens = 16, rows = 1, vectors = 1, prefetch = 0>
func.func @merge(%parts: tensor<?x?x?x64xf32>, %lses: tensor<?x?x?xf32>, %sinks: tensor<?xf32>) -> (tensor<?x?x64xf32>, tensor<?x?xf32>)
    attributes {kvq.kernel = "merge:k4t32-v4t32:vnni:p96:dk64:dv64:g4:f32:rows16:lag0:win0:cap0:exact",
                kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 16, rows = 1, vectors = 1, prefetch = 0>} {
  %o, %lse = kvq.merge %parts, %lses sinks %sinks : tensor<?x?x?x64xf32>, tensor<?x?x?xf32>, tensor<?xf32> -> tensor<?x?x64xf32>, tensor<?x?xf32>
  return %o, %lse : tensor<?x?x64xf32>, tensor<?x?xf32>
}

// CHECK-LABEL: func.func @other
// CHECK-NOT: kvq_tile.schedule
func.func @other() {
  return
}
