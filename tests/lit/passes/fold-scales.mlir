// The four ways in which scales meet a product: along the contracted dimension or along the result, with contract 1 (K)
// and contract 0 (V). Then what is left alone.
//
// RUN: kvq-opt %s -kvq-tile-fold-scales -cse | FileCheck %s

!k = tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
!v = tensor<64x64xi4, #kvq_tile.layout<"[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8 ch:1">>

// K per channel, two groups of 32 tokens: two sets of coefficients, and one correction per row and group. An
// accumulator of zero adds nothing.
// CHECK-LABEL: func.func @k_per_channel
// CHECK-SAME: (%[[CODES:.*]]: tensor<64x64xi4, {{.*}}>, %[[SCALE:.*]]: tensor<2x64xf32>, %[[MIN:.*]]: tensor<2x64xf32>, %[[Q:.*]]: tensor<3x64xf32>)
// CHECK-NOT: kvq_tile.dequantize
// CHECK: %[[ROW:.*]] = kvq_tile.dot %[[MIN]], %[[Q]] acc %{{.*}} contract 1 : tensor<2x64xf32>, tensor<3x64xf32> -> tensor<3x2xf32>
// CHECK: %[[BIAS:.*]] = kvq_tile.broadcast %[[ROW]] dims [0, 1] : tensor<3x2xf32> -> tensor<3x64xf32>
// CHECK: %[[COEFF:.*]] = kvq_tile.coeff %[[Q]], %[[SCALE]] : tensor<3x64xf32>, tensor<2x64xf32> -> tensor<2x3x64xf32>
// CHECK: %[[S:.*]] = kvq_tile.dot %[[CODES]], %[[COEFF]] acc %[[BIAS]] contract 1
// CHECK: return %[[S]]
func.func @k_per_channel(%codes: !k, %scale: tensor<2x64xf32>, %min: tensor<2x64xf32>, %q: tensor<3x64xf32>)
    -> tensor<3x64xf32> {
  %zero = arith.constant dense<0.0> : tensor<3x64xf32>
  %x = kvq_tile.dequantize %codes, %scale, %min axis "channel" : !k, tensor<2x64xf32> -> tensor<64x64xf32>
  %s = kvq_tile.dot %x, %q acc %zero contract 1 : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
  return %s : tensor<3x64xf32>
}

// K per token, two groups of 32 channels: scales multiply the sum of each group, minima the sums of q over it. Those
// sums do not depend on the loop and stand outside.
// CHECK-LABEL: func.func @k_per_token
// CHECK-SAME: (%[[CODES:.*]]: tensor<64x64xi4, {{.*}}>, %[[SCALE:.*]]: tensor<2x64xf32>, %[[MIN:.*]]: tensor<2x64xf32>, %[[Q:.*]]: tensor<3x64xf32>, %[[ACC:.*]]: tensor<3x64xf32>, %{{.*}}: index)
// CHECK: %[[MEMBER:.*]] = arith.cmpi eq
// CHECK: %[[SELECTOR:.*]] = arith.select %[[MEMBER]]
// CHECK: %[[SUMS:.*]] = kvq_tile.dot %[[SELECTOR]], %[[Q]] acc %{{.*}} contract 1 : tensor<2x64xf32>, tensor<3x64xf32> -> tensor<3x2xf32>
// CHECK: scf.for
// CHECK-NOT: kvq_tile.dequantize
// CHECK: %[[BIAS:.*]] = kvq_tile.dot %[[MIN]], %[[SUMS]] acc %{{.*}} contract 0 : tensor<2x64xf32>, tensor<3x2xf32> -> tensor<3x64xf32>
// CHECK: kvq_tile.dot %[[CODES]], %[[Q]] acc %[[BIAS]] scale %[[SCALE]] contract 1
func.func @k_per_token(%codes: !k, %scale: tensor<2x64xf32>, %min: tensor<2x64xf32>, %q: tensor<3x64xf32>,
                       %acc: tensor<3x64xf32>, %n: index) -> tensor<3x64xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %s = scf.for %i = %c0 to %n step %c1 iter_args(%a = %acc) -> tensor<3x64xf32> {
    %x = kvq_tile.dequantize %codes, %scale, %min axis "token" : !k, tensor<2x64xf32> -> tensor<64x64xf32>
    %next = kvq_tile.dot %x, %q acc %a contract 1 : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
    scf.yield %next : tensor<3x64xf32>
  }
  return %s : tensor<3x64xf32>
}

// V per token, two groups of 32 channels: coefficients are p times scale, one set per group of channels.
// CHECK-LABEL: func.func @v_per_token
// CHECK-SAME: (%[[CODES:.*]]: tensor<64x64xi4, {{.*}}>, %[[SCALE:.*]]: tensor<2x64xf32>, %[[MIN:.*]]: tensor<2x64xf32>, %[[P:.*]]: tensor<3x64xf32>, %[[ACC:.*]]: tensor<3x64xf32>)
// CHECK-NOT: kvq_tile.dequantize
// CHECK: %[[ROW:.*]] = kvq_tile.dot %[[MIN]], %[[P]] acc %{{.*}} contract 1 : tensor<2x64xf32>, tensor<3x64xf32> -> tensor<3x2xf32>
// CHECK: %[[BIAS:.*]] = kvq_tile.broadcast %[[ROW]] dims [0, 1]
// CHECK: %[[COEFF:.*]] = kvq_tile.coeff %[[P]], %[[SCALE]]
// CHECK: %[[START:.*]] = arith.addf %[[ACC]], %[[BIAS]]
// CHECK: kvq_tile.dot %[[CODES]], %[[COEFF]] acc %[[START]] contract 0
func.func @v_per_token(%codes: !v, %scale: tensor<2x64xf32>, %min: tensor<2x64xf32>, %p: tensor<3x64xf32>,
                       %acc: tensor<3x64xf32>) -> tensor<3x64xf32> {
  %x = kvq_tile.dequantize %codes, %scale, %min axis "token" : !v, tensor<2x64xf32> -> tensor<64x64xf32>
  %o = kvq_tile.dot %x, %p acc %acc contract 0 : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
  return %o : tensor<3x64xf32>
}

// V per channel, one group of tokens: the sums of p are a plain reduction.
// CHECK-LABEL: func.func @v_per_channel
// CHECK-SAME: (%[[CODES:.*]]: tensor<64x64xi4, {{.*}}>, %[[SCALE:.*]]: tensor<1x64xf32>, %[[MIN:.*]]: tensor<1x64xf32>, %[[P:.*]]: tensor<3x64xf32>, %[[ACC:.*]]: tensor<3x64xf32>)
// CHECK: %[[SUM:.*]] = kvq_tile.reduce add %[[P]] dim 1
// CHECK: %[[SUMS:.*]] = kvq_tile.broadcast %[[SUM]] dims [0] : tensor<3xf32> -> tensor<3x1xf32>
// CHECK-NOT: kvq_tile.dequantize
// CHECK: %[[BIAS:.*]] = kvq_tile.dot %[[MIN]], %[[SUMS]] acc %[[ACC]] contract 0
// CHECK: kvq_tile.dot %[[CODES]], %[[P]] acc %[[BIAS]] scale %[[SCALE]] contract 0
func.func @v_per_channel(%codes: !v, %scale: tensor<1x64xf32>, %min: tensor<1x64xf32>, %p: tensor<3x64xf32>,
                         %acc: tensor<3x64xf32>) -> tensor<3x64xf32> {
  %x = kvq_tile.dequantize %codes, %scale, %min axis "channel" : !v, tensor<1x64xf32> -> tensor<64x64xf32>
  %o = kvq_tile.dot %x, %p acc %acc contract 0 : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
  return %o : tensor<3x64xf32>
}

// A product that has scales already stays; so does a dequantized tile that is used otherwise.
// CHECK-LABEL: func.func @left_alone
// CHECK: %[[X:.*]] = kvq_tile.dequantize
// CHECK: kvq_tile.dot %[[X]], %{{.*}} acc %{{.*}} scale
// CHECK: kvq_tile.dot %{{.*}}, %{{.*}} acc %{{.*}} contract 1 : tensor<64x64xi4
func.func @left_alone(%codes: !k, %scale: tensor<1x64xf32>, %min: tensor<1x64xf32>, %q: tensor<3x64xf32>,
                      %acc: tensor<3x64xf32>) -> (tensor<3x64xf32>, tensor<3x64xf32>, tensor<64x64xf32>) {
  %x = kvq_tile.dequantize %codes, %scale, %min axis "channel" : !k, tensor<1x64xf32> -> tensor<64x64xf32>
  %s = kvq_tile.dot %x, %q acc %acc scale %scale contract 1
      : tensor<64x64xf32>, tensor<3x64xf32>, tensor<1x64xf32> -> tensor<3x64xf32>
  %t = kvq_tile.dot %x, %q acc %acc contract 1 : tensor<64x64xf32>, tensor<3x64xf32> -> tensor<3x64xf32>
  return %s, %t, %x : tensor<3x64xf32>, tensor<3x64xf32>, tensor<64x64xf32>
}
