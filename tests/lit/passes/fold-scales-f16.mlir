// Coefficients rounded to f16: what kvq-tile-fold-scales makes of products that may be rounded when a target asks for
// it. Codes are measured from their middle where scales are among the coefficients; minima and scales are multiplied each
// for itself, as they lie in a page. What may not be rounded stays as it is.
//
// RUN: kvq-opt %s -kvq-tile-fold-scales=coefficients=f16 -cse | FileCheck %s
// RUN: kvq-opt %s -kvq-tile-fold-scales=coefficients=integers -cse | FileCheck %s --check-prefix=INTEGERS
// RUN: not kvq-opt %s -kvq-tile-fold-scales=coefficients=bf16 2>&1 | FileCheck %s --check-prefix=UNKNOWN
// UNKNOWN: bf16

!k = tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
!v = tensor<64x64xi4, #kvq_tile.layout<"[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8 ch:1">>

// Scales along the contracted dimension.
// CHECK-LABEL: func.func @k_per_channel
// CHECK-SAME: %[[SCALE:[a-z0-9]*]]: tensor<2x64xf32>, %[[MIN:[a-z0-9]*]]: tensor<2x64xf32>, %[[Q:[a-z0-9]*]]: tensor<3x64xf32>)
// CHECK: %[[MIDDLE:.*]] = arith.constant dense<7.500000e+00> : tensor<3x2xf32>
// CHECK: %[[MINS:.*]] = kvq_tile.dot %[[MIN]], %[[Q]] acc
// CHECK: %[[SCALES:.*]] = kvq_tile.dot %[[SCALE]], %[[Q]] acc
// CHECK: %[[CENTERS:.*]] = arith.mulf %[[SCALES]], %[[MIDDLE]]
// CHECK: %[[ROW:.*]] = arith.addf %[[MINS]], %[[CENTERS]]
// CHECK: %[[BIAS:.*]] = kvq_tile.broadcast %[[ROW]]
// CHECK: %[[COEFF:.*]] = kvq_tile.coeff %[[Q]], %[[SCALE]] as f16 :
// CHECK: kvq_tile.dot %{{.*}}, %[[COEFF]] acc %[[BIAS]] contract 1 center 7.500000e+00 : tensor<64x64xi4
// INTEGERS-LABEL: func.func @k_per_channel
// INTEGERS: kvq_tile.coeff {{.*}} as si16
// INTEGERS: center 7.500000e+00
func.func @k_per_channel(%codes: !k, %scale: tensor<2x64xf32>, %min: tensor<2x64xf32>, %q: tensor<3x64xf32>)
    -> tensor<3x64xf32> {
  %zero = arith.constant dense<0.0> : tensor<3x64xf32>
  %x = kvq_tile.dequantize %codes, %scale, %min axis "channel" : !k, tensor<2x64xf32> -> tensor<64x64xf32>
  %s = kvq_tile.dot %x, %q acc %zero contract 1 round si16
      : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
  return %s : tensor<3x64xf32>
}

// Scales along the result; a rounding to 8 bits as well. Coefficients are values alone, and codes as they are.
// CHECK-LABEL: func.func @v_per_channel
// CHECK-SAME: %[[MIN:[a-z0-9]*]]: tensor<1x64xf32>, %[[P:[a-z0-9]*]]: tensor<3x64xf32>, %[[ACC:[a-z0-9]*]]:
// CHECK: %[[COEFF:.*]] = kvq_tile.coeff %[[P]] as f16 :
// CHECK: %[[BIAS:.*]] = kvq_tile.dot %[[MIN]], %{{.*}} acc %[[ACC]] contract 0
// CHECK: kvq_tile.dot %{{.*}}, %[[COEFF]] acc %[[BIAS]] scale %{{.*}} contract 0 : tensor<64x64xi4
// INTEGERS-LABEL: func.func @v_per_channel
// INTEGERS: kvq_tile.coeff {{.*}} as ui8
func.func @v_per_channel(%codes: !v, %scale: tensor<1x64xf32>, %min: tensor<1x64xf32>, %p: tensor<3x64xf32>,
                         %acc: tensor<3x64xf32>) -> tensor<3x64xf32> {
  %x = kvq_tile.dequantize %codes, %scale, %min axis "channel" : !v, tensor<1x64xf32> -> tensor<64x64xf32>
  %o = kvq_tile.dot %x, %p acc %acc contract 0 round ui8
      : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
  return %o : tensor<3x64xf32>
}

// The program itself asks for f16: the same on every target.
// CHECK-LABEL: func.func @says_f16
// CHECK: as f16
// CHECK: center 7.500000e+00
// INTEGERS-LABEL: func.func @says_f16
// INTEGERS: as f16
// INTEGERS: center 7.500000e+00
func.func @says_f16(%codes: !k, %scale: tensor<2x64xf32>, %min: tensor<2x64xf32>, %q: tensor<3x64xf32>)
    -> tensor<3x64xf32> {
  %zero = arith.constant dense<0.0> : tensor<3x64xf32>
  %x = kvq_tile.dequantize %codes, %scale, %min axis "channel" : !k, tensor<2x64xf32> -> tensor<64x64xf32>
  %s = kvq_tile.dot %x, %q acc %zero contract 1 round f16
      : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
  return %s : tensor<3x64xf32>
}

// CHECK-LABEL: func.func @full
// CHECK-NOT: f16
// CHECK: return
func.func @full(%codes: !k, %scale: tensor<2x64xf32>, %min: tensor<2x64xf32>, %q: tensor<3x64xf32>)
    -> tensor<3x64xf32> {
  %zero = arith.constant dense<0.0> : tensor<3x64xf32>
  %x = kvq_tile.dequantize %codes, %scale, %min axis "channel" : !k, tensor<2x64xf32> -> tensor<64x64xf32>
  %s = kvq_tile.dot %x, %q acc %zero contract 1 : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
  return %s : tensor<3x64xf32>
}
