// Which lane holds which element: what products demand, how it spreads, and what is converted or made twice.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-assign-layouts -split-input-file | FileCheck %s

!k = tensor<64x64xi4, #kvq_tile.layout<"[tok.1 ch.1 ch.0 ch.2 ch.5 ch.3 ch.4 tok.0 tok.3 tok.4 tok.2] ch:1 tok:2">>

// The highest bit of a word's fields, ch.0, is the pair. Words of another lane begin 16 bytes on: ch.3, ch.4 and tok.0,
// tok.3, tok.4. The result's rows are n. Offsets are made once for the load and once for the store.
// CHECK-LABEL: func.func @product
// CHECK: arith.constant dense<0.000000e+00> : tensor<8x64xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.3 d1.4]">>
// CHECK-DAG: kvq_tile.iota : tensor<8xindex, #kvq_tile.lanes<"lane=[d0.1 d0.2 - - -]">>
// CHECK-DAG: kvq_tile.iota : tensor<8xindex, #kvq_tile.lanes<"lane=[- - d0.0 d0.1 d0.2]">>
// CHECK: kvq_tile.load {{.*}} -> tensor<8x64xf16, #kvq_tile.lanes<"lane=[d1.3 d1.4 d0.0 d0.1 d0.2] pair=d1.0">>
// CHECK-NOT: kvq_tile.convert
// CHECK: kvq_tile.dot {{.*}} -> tensor<8x64xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.3 d1.4]">>
// CHECK-NOT: kvq_tile.convert
// CHECK: return
func.func @product(%q: !kvq_tile.ptr<f16>, %page: !kvq_tile.ptr<i8>, %out: !kvq_tile.ptr<f32>)
    attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %zero = arith.constant dense<0.0> : tensor<8x64xf32>
  %rows = kvq_tile.iota : tensor<8xindex>
  %width = arith.constant dense<64> : tensor<8xindex>
  %at = arith.muli %rows, %width : tensor<8xindex>
  %qs = kvq_tile.load %q[%at] : !kvq_tile.ptr<f16>, tensor<8xindex> -> tensor<8x64xf16>
  %codes = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  %s = kvq_tile.dot %codes, %qs acc %zero contract 1 : !k, tensor<8x64xf16> -> tensor<8x64xf32>
  kvq_tile.store %s, %out[%at] : tensor<8x64xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  return
}

// -----

!k = tensor<64x64xi4, #kvq_tile.layout<"[tok.1 ch.1 ch.0 ch.2 ch.5 ch.3 ch.4 tok.0 tok.3 tok.4 tok.2] ch:1 tok:2">>
!v = tensor<64x64xi4, #kvq_tile.layout<"[ch.1 tok.1 tok.0 tok.2 tok.5 tok.3 tok.4 ch.0 ch.3 ch.4 ch.2] tok:1 ch:2">>

// Attention: one conversion between the two products, and it is a transposition. Tokens are on the lanes of the first
// product where the second one needs them afterwards.
// CHECK-LABEL: func.func @attention
// CHECK-NOT: kvq_tile.convert
// CHECK: kvq_tile.dot {{.*}} -> tensor<8x64xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.3 d1.4]">>
// CHECK: kvq_tile.reduce max {{.*}} -> tensor<8xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 - - -]">>
// CHECK: arith.truncf {{.*}} to tensor<8x64xf16, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.3 d1.4]">>
// CHECK: kvq_tile.convert {{.*}} -> tensor<8x64xf16, #kvq_tile.lanes<"lane=[d1.3 d1.4 d0.0 d0.1 d0.2] pair=d1.0">>
// CHECK-NOT: kvq_tile.convert
// CHECK: return
func.func @attention(%q: !kvq_tile.ptr<f16>, %page: !kvq_tile.ptr<i8>, %out: !kvq_tile.ptr<f32>)
    attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c4096 = arith.constant 4096 : index
  %zero = arith.constant dense<0.0> : tensor<8x64xf32>
  %rows = kvq_tile.iota : tensor<8xindex>
  %width = arith.constant dense<64> : tensor<8xindex>
  %at = arith.muli %rows, %width : tensor<8xindex>
  %qs = kvq_tile.load %q[%at] : !kvq_tile.ptr<f16>, tensor<8xindex> -> tensor<8x64xf16>
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  %more = kvq_tile.advance %page, %c4096 : !kvq_tile.ptr<i8> -> !kvq_tile.ptr<i8>
  %v = kvq_tile.codes %more[%c0, %c0] : !kvq_tile.ptr<i8> -> !v
  %s = kvq_tile.dot %k, %qs acc %zero contract 1 : !k, tensor<8x64xf16> -> tensor<8x64xf32>
  %m = kvq_tile.reduce max %s dim 1 : tensor<8x64xf32> -> tensor<8xf32>
  %wide = kvq_tile.broadcast %m dims [0] : tensor<8xf32> -> tensor<8x64xf32>
  %d = arith.subf %s, %wide : tensor<8x64xf32>
  %p = math.exp2 %d : tensor<8x64xf32>
  %h = arith.truncf %p : tensor<8x64xf32> to tensor<8x64xf16>
  %o = kvq_tile.dot %v, %h acc %zero contract 0 : !v, tensor<8x64xf16> -> tensor<8x64xf32>
  kvq_tile.store %o, %out[%at] : tensor<8x64xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  return
}

// -----

// A tile without a demand: neighbours in a lane's vector of 16 bytes, then lanes. What a row needs follows.
// CHECK-LABEL: func.func @usual
// CHECK: kvq_tile.load {{.*}} -> tensor<4x64xf32, #kvq_tile.lanes<"lane=[d1.2 d1.3 d1.4 d1.5 d0.0]">>
// CHECK: kvq_tile.reduce add {{.*}} -> tensor<4xf32, #kvq_tile.lanes<"lane=[- - - - d0.0]">>
func.func @usual(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %rows = kvq_tile.iota : tensor<4xindex>
  %width = arith.constant dense<64> : tensor<4xindex>
  %at = arith.muli %rows, %width : tensor<4xindex>
  %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, tensor<4xindex> -> tensor<4x64xf32>
  %sum = kvq_tile.reduce add %v dim 1 : tensor<4x64xf32> -> tensor<4xf32>
  kvq_tile.store %sum, %y[%rows] : tensor<4xf32>, !kvq_tile.ptr<f32>, tensor<4xindex>
  return
}

// -----

// What a loop carries has one layout inside and outside.
// CHECK-LABEL: func.func @carried
// CHECK: %[[LOOP:.*]] = scf.for {{.*}} -> (tensor<128xf32, #kvq_tile.lanes<"lane=[d0.2 d0.3 d0.4 d0.5 d0.6]">>)
// CHECK: arith.addf {{.*}} : tensor<128xf32, #kvq_tile.lanes<"lane=[d0.2 d0.3 d0.4 d0.5 d0.6]">>
func.func @carried(%x: !kvq_tile.ptr<f32>, %n: i64) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c128 = arith.constant 128 : index
  %zero = arith.constant dense<0.0> : tensor<128xf32>
  %end = arith.index_cast %n : i64 to index
  %sum = scf.for %i = %c0 to %end step %c128 iter_args(%a = %zero) -> (tensor<128xf32>) {
    %v = kvq_tile.load %x[%i] : !kvq_tile.ptr<f32>, index -> tensor<128xf32>
    %next = arith.addf %a, %v : tensor<128xf32>
    scf.yield %next : tensor<128xf32>
  }
  kvq_tile.store %sum, %x[%c0] : tensor<128xf32>, !kvq_tile.ptr<f32>, index
  return
}

// -----

!k = tensor<64x48xi2, #kvq_tile.layout<"[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:3 tok:1">>

// 48 channels have four bits, and a word has sixteen channels: the lanes of k share words, and take ch.2 and ch.3 of
// them.
// CHECK-LABEL: func.func @shared_words
// CHECK: kvq_tile.load {{.*}} -> tensor<8x48xf16, #kvq_tile.lanes<"lane=[d1.2 d1.3 d0.0 d0.1 d0.2] pair=d1.1">>
// CHECK: kvq_tile.dot {{.*}} -> tensor<8x64xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.2 d1.3 d1.4]">>
func.func @shared_words(%q: !kvq_tile.ptr<f16>, %page: !kvq_tile.ptr<i8>, %out: !kvq_tile.ptr<f32>)
    attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %zero = arith.constant dense<0.0> : tensor<8x64xf32>
  %rows = kvq_tile.iota : tensor<8xindex>
  %qs = kvq_tile.load %q[%rows] : !kvq_tile.ptr<f16>, tensor<8xindex> -> tensor<8x48xf16>
  %codes = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !k
  %s = kvq_tile.dot %codes, %qs acc %zero contract 1 : !k, tensor<8x48xf16> -> tensor<8x64xf32>
  kvq_tile.store %s, %out[%rows] : tensor<8x64xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  return
}

// -----

!v = tensor<64x64xi2, #kvq_tile.layout<"[tok.2 tok.3 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:4 ch:1">>

// Of 32 tokens of a group two words have the codes: as many lanes read words of their own, by tok.4, and two share one.
// Without groups no word is shared.
// CHECK-LABEL: func.func @shared_words_of_groups
// CHECK: kvq_tile.load {{.*}} -> tensor<8x64xf16, #kvq_tile.lanes<"lane=[d1.2 d1.4 d0.0 d0.1 d0.2] pair=d1.1">>
// CHECK: kvq_tile.dot {{.*}} scale
// CHECK: kvq_tile.load {{.*}} -> tensor<8x64xf16, #kvq_tile.lanes<"lane=[d1.4 d1.5 d0.0 d0.1 d0.2] pair=d1.1">>
// CHECK: kvq_tile.dot
func.func @shared_words_of_groups(%p: !kvq_tile.ptr<f16>, %page: !kvq_tile.ptr<i8>, %scales: !kvq_tile.ptr<f32>,
                                  %out: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %zero = arith.constant dense<0.0> : tensor<8x64xf32>
  %rows = kvq_tile.iota : tensor<8xindex>
  %groups = kvq_tile.iota : tensor<2xindex>
  %scale = kvq_tile.load %scales[%groups] : !kvq_tile.ptr<f32>, tensor<2xindex> -> tensor<2x64xf32>
  %codes = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8> -> !v
  %first = kvq_tile.load %p[%rows] : !kvq_tile.ptr<f16>, tensor<8xindex> -> tensor<8x64xf16>
  %a = kvq_tile.dot %codes, %first acc %zero scale %scale contract 0 : !v, tensor<8x64xf16>, tensor<2x64xf32> -> tensor<8x64xf32>
  kvq_tile.store %a, %out[%rows] : tensor<8x64xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  %second = kvq_tile.load %p[%rows] : !kvq_tile.ptr<f16>, tensor<8xindex> -> tensor<8x64xf16>
  %b = kvq_tile.dot %codes, %second acc %zero contract 0 : !v, tensor<8x64xf16> -> tensor<8x64xf32>
  kvq_tile.store %b, %out[%rows] : tensor<8x64xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  return
}
