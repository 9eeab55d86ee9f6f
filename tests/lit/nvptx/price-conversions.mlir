// What a conversion costs: instructions of a warp. Transposed pairs are moved by movmatrix, a register each; what lanes have
// already is only paired anew, or not at all; all else goes word by word, of 64 bits two, and as often as a lane's number
// chooses among registers of another.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-price-conversions | FileCheck %s

!scores = tensor<8x64xf16, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2] pair=d0.0">>
!weights = tensor<8x64xf16, #kvq_tile.lanes<"lane=[d1.1 d1.2 d0.0 d0.1 d0.2] pair=d1.0">>

// CHECK-LABEL: func.func @transposed
// CHECK: kvq_tile.convert {{.*}} {cost = "8 movmatrix"}
func.func @transposed(%a: !scores) -> !weights {
  %b = kvq_tile.convert %a : !scores -> !weights
  return %b : !weights
}

!single = tensor<64xf16, #kvq_tile.lanes<"lane=[d0.1 d0.2 d0.3 d0.4 d0.5]">>
!paired = tensor<64xf16, #kvq_tile.lanes<"lane=[d0.1 d0.2 d0.3 d0.4 d0.5] pair=d0.0">>

// CHECK-LABEL: func.func @renamed
// CHECK: kvq_tile.convert {{.*}} {cost = "1 prmt"}
// CHECK: kvq_tile.convert {{.*}} {cost = "nothing"}
func.func @renamed(%a: !single) -> !single {
  %b = kvq_tile.convert %a : !single -> !paired
  %c = kvq_tile.convert %b : !paired -> !single
  return %c : !single
}

!low = tensor<64xi32, #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d0.4]">>
!high = tensor<64xi32, #kvq_tile.lanes<"lane=[d0.5 d0.1 d0.2 d0.3 d0.4]">>
!swapped = tensor<64xi32, #kvq_tile.lanes<"lane=[d0.1 d0.0 d0.2 d0.3 d0.4]">>
!long = tensor<64xi64, #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d0.4]">>
!longSwapped = tensor<64xi64, #kvq_tile.lanes<"lane=[d0.1 d0.0 d0.2 d0.3 d0.4]">>

// CHECK-LABEL: func.func @shuffled
// CHECK: kvq_tile.convert {{.*}} {cost = "2 shfl"}
// CHECK: kvq_tile.convert {{.*}} {cost = "4 shfl"}
// CHECK: kvq_tile.convert {{.*}} {cost = "4 shfl"}
func.func @shuffled(%a: !low, %b: !long) -> (!swapped, !high, !longSwapped) {
  %c = kvq_tile.convert %a : !low -> !swapped
  %d = kvq_tile.convert %a : !low -> !high
  %e = kvq_tile.convert %b : !long -> !longSwapped
  return %c, %d, %e : !swapped, !high, !longSwapped
}
