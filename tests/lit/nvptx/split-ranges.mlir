// The largest of a tile's parameters is found among copies of its own, of all that makes them; what products do not take
// and what is no load element by element stays.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-split-ranges -split-input-file | FileCheck %s

// CHECK-LABEL: func.func @shared
// CHECK: %[[S:.*]] = kvq_tile.load
// CHECK: %[[T:.*]] = kvq_tile.load
// CHECK: %[[U:.*]] = arith.mulf %[[T]], %{{.*}}
// CHECK: %[[M:.*]] = kvq_tile.reduce max %[[U]] dim 1
// CHECK: kvq_tile.coeff %{{.*}}, %[[S]]
func.func @shared(%scales: !kvq_tile.ptr<f32>, %at: tensor<1xindex>, %q: tensor<8x32xf32>) -> (tensor<1xf32>, tensor<1x8x32xf32>) {
  %three = arith.constant dense<3.0> : tensor<1x32xf32>
  %s = kvq_tile.load %scales[%at] : !kvq_tile.ptr<f32>, tensor<1xindex> -> tensor<1x32xf32>
  %t = arith.mulf %s, %three : tensor<1x32xf32>
  %m = kvq_tile.reduce max %t dim 1 : tensor<1x32xf32> -> tensor<1xf32>
  %c = kvq_tile.coeff %q, %s : tensor<8x32xf32>, tensor<1x32xf32> -> tensor<1x8x32xf32>
  return %m, %c : tensor<1xf32>, tensor<1x8x32xf32>
}

// -----

// Values of coefficients are no parameters: a query is read once.
// CHECK-LABEL: func.func @query
// CHECK: %[[S:.*]] = kvq_tile.load
// CHECK-NOT: kvq_tile.load
// CHECK: kvq_tile.reduce max %[[S]] dim 1
func.func @query(%query: !kvq_tile.ptr<f32>, %at: tensor<8xindex>, %s: tensor<1x32xf32>) -> (tensor<8xf32>, tensor<1x8x32xf32>) {
  %q = kvq_tile.load %query[%at] : !kvq_tile.ptr<f32>, tensor<8xindex> -> tensor<8x32xf32>
  %m = kvq_tile.reduce max %q dim 1 : tensor<8x32xf32> -> tensor<8xf32>
  %c = kvq_tile.coeff %q, %s : tensor<8x32xf32>, tensor<1x32xf32> -> tensor<1x8x32xf32>
  return %m, %c : tensor<8xf32>, tensor<1x8x32xf32>
}
