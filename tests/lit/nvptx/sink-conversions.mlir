// Element by element before a tile is spread over more registers. Splats follow; what has as many registers before, what
// others use as well, and operands from different layouts stay.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-sink-conversions -split-input-file | FileCheck %s

!before = tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 -]">>
!after = tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 - - -]">>

// CHECK-LABEL: func.func @spread
// CHECK-SAME: %[[A:.*]]: tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 -]">>, %[[B:[^:]*]]:
// CHECK: %[[TWO:.*]] = arith.constant dense<2.000000e+00> : tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 -]">>
// CHECK: %[[P:.*]] = arith.mulf %[[A]], %[[TWO]]
// CHECK: %[[S:.*]] = arith.addf %[[B]], %[[P]]
// CHECK: %[[C:.*]] = kvq_tile.convert %[[S]]
// CHECK: return %[[C]]
func.func @spread(%a: !before, %b: !before) -> !after {
  %two = arith.constant dense<2.0> : !after
  %c = kvq_tile.convert %a : !before -> !after
  %p = arith.mulf %c, %two : !after
  %d = kvq_tile.convert %b : !before -> !after
  %s = arith.addf %d, %p : !after
  return %s : !after
}

// -----

!before = tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 - - -]">>
!after = tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 -]">>

// CHECK-LABEL: func.func @gathered
// CHECK: kvq_tile.convert
// CHECK: kvq_tile.convert
// CHECK: arith.addf
func.func @gathered(%a: !before, %b: !before) -> !after {
  %c = kvq_tile.convert %a : !before -> !after
  %d = kvq_tile.convert %b : !before -> !after
  %s = arith.addf %c, %d : !after
  return %s : !after
}

// -----

!before = tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 -]">>
!other = tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.1 d1.0 -]">>
!after = tensor<8x4xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 - - -]">>

// CHECK-LABEL: func.func @shared
// CHECK-COUNT-2: kvq_tile.convert
// CHECK: arith.mulf
// CHECK: kvq_tile.convert
// CHECK: arith.addf
// CHECK: arith.addf
// CHECK-NOT: kvq_tile.convert
func.func @shared(%a: !before, %b: !other, %values: !after) -> !after {
  %c = kvq_tile.convert %a : !before -> !after
  %d = kvq_tile.convert %a : !before -> !after
  %square = arith.mulf %c, %c : !after
  %e = kvq_tile.convert %b : !other -> !after
  %s = arith.addf %d, %e : !after
  %r = arith.addf %s, %values : !after
  %t = arith.addf %r, %square : !after
  return %t : !after
}
