// Operands of products become f16 where that changes nothing or where the program allows it.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-half-operands -cse | FileCheck %s

!x = tensor<32x64xf16>

// Values are rounded, scales are halves of a page that were extended.
// CHECK-LABEL: func.func @scaled
// CHECK-SAME: (%[[X:.*]]: tensor<32x64xf16>, %[[Q:.*]]: tensor<8x64xf32>, %[[S:.*]]: tensor<1x64xf16>
// CHECK: %[[H:.*]] = arith.truncf %[[Q]] : tensor<8x64xf32> to tensor<8x64xf16>
// CHECK: %[[C:.*]] = kvq_tile.coeff %[[H]], %[[S]] : tensor<8x64xf16>, tensor<1x64xf16> -> tensor<1x8x64xf16>
// CHECK: kvq_tile.dot %[[X]], %[[C]] acc
func.func @scaled(%x: !x, %q: tensor<8x64xf32>, %s16: tensor<1x64xf16>, %z: tensor<8x32xf32>) -> tensor<8x32xf32> {
  %s = arith.extf %s16 : tensor<1x64xf16> to tensor<1x64xf32>
  %c = kvq_tile.coeff %q, %s as f16 : tensor<8x64xf32>, tensor<1x64xf32> -> tensor<1x8x64xf32>
  %r = kvq_tile.dot %x, %c acc %z contract 1 : !x, tensor<1x8x64xf32> -> tensor<8x32xf32>
  return %r : tensor<8x32xf32>
}

// Without scales the two halves of a value are worth having: nothing is rounded, and nothing is left of `as`.
// CHECK-LABEL: func.func @plain
// CHECK-SAME: (%[[X:.*]]: tensor<32x64xf16>, %[[Q:.*]]: tensor<8x64xf32>
// CHECK-NOT: truncf
// CHECK: kvq_tile.coeff %[[Q]] : tensor<8x64xf32> -> tensor<1x8x64xf32>
func.func @plain(%x: !x, %q: tensor<8x64xf32>, %z: tensor<8x32xf32>) -> tensor<8x32xf32> {
  %c = kvq_tile.coeff %q as f16 : tensor<8x64xf32> -> tensor<1x8x64xf32>
  %r = kvq_tile.dot %x, %c acc %z contract 1 : !x, tensor<1x8x64xf32> -> tensor<8x32xf32>
  return %r : tensor<8x32xf32>
}

// Coefficients that may not be rounded stay.
// CHECK-LABEL: func.func @not_rounded
// CHECK-NOT: truncf
// CHECK: kvq_tile.coeff {{.*}} : tensor<8x64xf32>, tensor<1x64xf32> -> tensor<1x8x64xf32>
func.func @not_rounded(%x: !x, %q: tensor<8x64xf32>, %s: tensor<1x64xf32>, %z: tensor<8x32xf32>) -> tensor<8x32xf32> {
  %c = kvq_tile.coeff %q, %s : tensor<8x64xf32>, tensor<1x64xf32> -> tensor<1x8x64xf32>
  %r = kvq_tile.dot %x, %c acc %z contract 1 : !x, tensor<1x8x64xf32> -> tensor<8x32xf32>
  return %r : tensor<8x32xf32>
}

// Operands that are halves already: extended, constant, and chosen between such.
// CHECK-LABEL: func.func @exact
// CHECK-SAME: (%[[X:.*]]: tensor<32x64xf16>, %[[Q:.*]]: tensor<8x64xf16>, %[[Z:.*]]: tensor<8x32xf32>, %[[IF:.*]]: i1)
// CHECK: %[[ONE:.*]] = arith.constant dense<1.000000e+00> : tensor<32x64xf16>
// CHECK: %[[CHOSEN:.*]] = arith.select %[[IF]], %[[X]], %[[ONE]] : tensor<32x64xf16>
// CHECK: kvq_tile.dot %[[CHOSEN]], %[[Q]] acc %[[Z]] contract 1 : tensor<32x64xf16>, tensor<8x64xf16>
func.func @exact(%x16: tensor<32x64xf16>, %q16: tensor<8x64xf16>, %z: tensor<8x32xf32>, %if: i1) -> tensor<8x32xf32> {
  %one = arith.constant dense<1.0> : tensor<32x64xf32>
  %x = arith.extf %x16 : tensor<32x64xf16> to tensor<32x64xf32>
  %q = arith.extf %q16 : tensor<8x64xf16> to tensor<8x64xf32>
  %chosen = arith.select %if, %x, %one : tensor<32x64xf32>
  %s = kvq_tile.dot %chosen, %q acc %z contract 1 : tensor<32x64xf32>, tensor<8x64xf32> -> tensor<8x32xf32>
  return %s : tensor<8x32xf32>
}

// A constant that no half is, and what was computed in f32, stay.
// CHECK-LABEL: func.func @not_exact
// CHECK-NOT: f16
// CHECK: kvq_tile.dot %{{.*}}, %{{.*}} acc %{{.*}} contract 1 : tensor<32x64xf32>, tensor<8x64xf32>
func.func @not_exact(%x: tensor<8x64xf32>, %z: tensor<8x32xf32>) -> tensor<8x32xf32> {
  %third = arith.constant dense<0.3333> : tensor<32x64xf32>
  %s = kvq_tile.dot %third, %x acc %z contract 1 : tensor<32x64xf32>, tensor<8x64xf32> -> tensor<8x32xf32>
  return %s : tensor<8x32xf32>
}
