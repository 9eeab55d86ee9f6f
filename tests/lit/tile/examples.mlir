// RUN: kvq-tile-opt %s | kvq-tile-opt | FileCheck %s
//
// The worked examples of dialect/tile/*.td, read, printed, read and printed again. scripts/check_examples.py compares
// them with the .td files.

#layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">

// CHECK-LABEL: func.func @row_max
// CHECK-SAME: attributes {kvq_tile.kernel}
func.func @row_max(%x: !kvq_tile.ptr<f32>, %out: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %row = kvq_tile.program_id 0
  %c64 = arith.constant 64 : index
  %at = arith.muli %row, %c64 : index
  %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, index -> tensor<64xf32>
  %m = kvq_tile.reduce max %v dim 0 : tensor<64xf32> -> f32
  kvq_tile.store %m, %out[%row] : f32, !kvq_tile.ptr<f32>, index
  return
}

// CHECK-LABEL: func.func @attributes
// CHECK-SAME: kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 64, rows = 4, vectors = 4, prefetch = 1>
// CHECK-SAME: test.blocks = #kvq_tile.schedule<tile_tokens = 64, rows = 1, vectors = 1, prefetch = 0, blocks = 3>
// CHECK-SAME: test.layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
func.func @attributes() attributes {
    kvq_tile.schedule =
#kvq_tile.schedule<tile_tokens = 64, rows = 4, vectors = 4, prefetch = 1>
    , test.blocks =
#kvq_tile.schedule<tile_tokens = 64, rows = 1, vectors = 1, prefetch = 0, blocks = 3>
    , test.layout =
#kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">
    } {
  return
}

// CHECK-LABEL: func.func @parts
// CHECK-SAME: warps = 4
// CHECK: kvq_tile.part_id
// CHECK: kvq_tile.reduce_parts max %{{.*}} : tensor<8xf32>
func.func @parts(%s: tensor<8xf32>) attributes {
    kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 64, rows = 1, vectors = 1, prefetch = 0, warps = 4>} {
  %part = kvq_tile.part_id
  %m = kvq_tile.reduce_parts max %s : tensor<8xf32>
  return
}

// CHECK-LABEL: func.func @memory
// CHECK: kvq_tile.program_id 0
// CHECK: kvq_tile.page %{{.*}}, %{{.*}}[%{{.*}}], %{{.*}} : {{(!kvq_tile.ptr)?}}<i8>, {{(!kvq_tile.ptr)?}}<i32>
// CHECK: kvq_tile.advance %{{.*}}, %{{.*}} : {{(!kvq_tile.ptr)?}}<i8> -> {{(!kvq_tile.ptr)?}}<f16>
// CHECK: kvq_tile.prefetch %{{.*}}, 4608 : {{(!kvq_tile.ptr)?}}<i8>
func.func @memory(%pool: !kvq_tile.ptr<i8>, %table: !kvq_tile.ptr<i32>, %page: !kvq_tile.ptr<i8>,
                  %next: !kvq_tile.ptr<i8>, %entry: index, %stride: index, %c2048: index) {
  %item = kvq_tile.program_id 0
  %block = kvq_tile.page %pool, %table[%entry], %stride : !kvq_tile.ptr<i8>, !kvq_tile.ptr<i32>
  %scales = kvq_tile.advance %page, %c2048 : !kvq_tile.ptr<i8> -> !kvq_tile.ptr<f16>
  kvq_tile.prefetch %next, 4608 : !kvq_tile.ptr<i8>
  return
}

// CHECK-LABEL: func.func @rows
// CHECK: kvq_tile.load %{{.*}}[%{{.*}}] mask %{{.*}} : {{(!kvq_tile.ptr)?}}<f32>, tensor<3xindex>, tensor<3xi1> -> tensor<3x64xf32>
// CHECK: kvq_tile.store %{{.*}}, %{{.*}}[%{{.*}}] mask %{{.*}} : tensor<3x64xf32>, {{(!kvq_tile.ptr)?}}<f32>, tensor<3xindex>, tensor<3xi1>
func.func @rows(%q: !kvq_tile.ptr<f32>, %out: !kvq_tile.ptr<f32>, %o: tensor<3x64xf32>, %offsets: tensor<3xindex>,
                %valid: tensor<3xi1>) {
  %rows = kvq_tile.load %q[%offsets] mask %valid
      : !kvq_tile.ptr<f32>, tensor<3xindex>, tensor<3xi1> -> tensor<3x64xf32>
  kvq_tile.store %o, %out[%offsets] mask %valid : tensor<3x64xf32>, !kvq_tile.ptr<f32>, tensor<3xindex>, tensor<3xi1>
  return
}

// CHECK-LABEL: func.func @codes
// CHECK: kvq_tile.codes %{{.*}}[%{{.*}}, %{{.*}}] : {{(!kvq_tile.ptr)?}}<i8> -> tensor<32x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
// CHECK: kvq_tile.store_codes %{{.*}}, %{{.*}}[%{{.*}}] rows %{{.*}}, %{{.*}} {bits = 4 : i64, layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">} : tensor<32x64xi32>, {{(!kvq_tile.ptr)?}}<i8>
func.func @codes(%page: !kvq_tile.ptr<i8>, %token: index, %c0: index, %n: index, %q: tensor<32x64xi32>) {
  %k = kvq_tile.codes %page[%token, %c0] : !kvq_tile.ptr<i8>
      -> tensor<32x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
  kvq_tile.store_codes %q, %page[%token] rows %c0, %n {bits = 4, layout = #layout}
      : tensor<32x64xi32>, !kvq_tile.ptr<i8>
  return
}

// Planes of 3 bits, and a strip of channels.
// CHECK-LABEL: func.func @planes
// CHECK: kvq_tile.codes {{.*}} -> tensor<32x64xi3, #kvq_tile.layout<"2:[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:4 tok:1 + 1:[ch.2 ch.3 tok.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:2 ch:4 tok:1">>
// CHECK: kvq_tile.store_codes %{{.*}}, %{{.*}}[%{{.*}}, %{{.*}}] rows %{{.*}}, %{{.*}} {bits = 3 : i64
#planes = #kvq_tile.layout<"2:[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:4 tok:1 + 1:[ch.2 ch.3 tok.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:2 ch:4 tok:1">
func.func @planes(%page: !kvq_tile.ptr<i8>, %token: index, %c0: index, %n: index, %q: tensor<32x16xi32>) {
  %k = kvq_tile.codes %page[%token, %c0] : !kvq_tile.ptr<i8> -> tensor<32x64xi3, #planes>
  kvq_tile.store_codes %q, %page[%token, %c0] rows %c0, %n {bits = 3, layout = #planes}
      : tensor<32x16xi32>, !kvq_tile.ptr<i8>
  return
}

// CHECK-LABEL: func.func @values
// CHECK: kvq_tile.unpack %{{.*}} : tensor<32x64xi4, {{.*}}> -> tensor<32x64xi32>
// CHECK: kvq_tile.dequantize %{{.*}}, %{{.*}}, %{{.*}} axis "channel" : tensor<32x64xi4, {{.*}}>, tensor<1x64xf32> -> tensor<32x64xf32>
func.func @values(%codes: tensor<32x64xi4, #layout>, %scale: tensor<1x64xf32>, %min: tensor<1x64xf32>) {
  %i = kvq_tile.unpack %codes : tensor<32x64xi4, #layout> -> tensor<32x64xi32>
  %k = kvq_tile.dequantize %codes, %scale, %min axis "channel"
      : tensor<32x64xi4, #layout>, tensor<1x64xf32> -> tensor<32x64xf32>
  return
}

// CHECK-LABEL: func.func @dot
// CHECK: %[[C:.*]] = kvq_tile.coeff %{{.*}}, %{{.*}} as si16 : tensor<3x64xf32>, tensor<1x64xf32> -> tensor<1x3x64xf32>
// CHECK: kvq_tile.coeff %{{.*}} as si8 : tensor<3x64xf32> -> tensor<1x3x64xf32>
// CHECK: kvq_tile.coeff %{{.*}} as f16 : tensor<3x64xf32> -> tensor<1x3x64xf32>
// CHECK: kvq_tile.dot %{{.*}}, %[[C]] acc %{{.*}} contract 1 : tensor<32x64xi4, {{.*}}>, tensor<1x3x64xf32> -> tensor<3x32xf32>
// CHECK: kvq_tile.dot {{.*}} contract 1 center 7.500000e+00 round ui16 : tensor<32x64xi4
func.func @dot(%k: tensor<32x64xi4, #layout>, %q: tensor<3x64xf32>, %scale: tensor<1x64xf32>, %bias: tensor<3x32xf32>) {
  %c = kvq_tile.coeff %q, %scale as si16 : tensor<3x64xf32>, tensor<1x64xf32> -> tensor<1x3x64xf32>
  %d = kvq_tile.coeff %q as si8 : tensor<3x64xf32> -> tensor<1x3x64xf32>
  %h = kvq_tile.coeff %q as f16 : tensor<3x64xf32> -> tensor<1x3x64xf32>
  %s = kvq_tile.dot %k, %c acc %bias contract 1 : tensor<32x64xi4, #layout>, tensor<1x3x64xf32> -> tensor<3x32xf32>
  %t = kvq_tile.dot %k, %d acc %bias contract 1 center 7.5 round ui16
      : tensor<32x64xi4, #layout>, tensor<1x3x64xf32> -> tensor<3x32xf32>
  return
}

// CHECK-LABEL: func.func @shapes
// CHECK: kvq_tile.iota : tensor<32xindex>
// CHECK: %[[M:.*]] = kvq_tile.reduce max %{{.*}} dim 1 : tensor<3x32xf32> -> tensor<3xf32>
// CHECK: kvq_tile.broadcast %[[M]] dims [0] : tensor<3xf32> -> tensor<3x32xf32>
func.func @shapes(%s: tensor<3x32xf32>) {
  %i = kvq_tile.iota : tensor<32xindex>
  %m = kvq_tile.reduce max %s dim 1 : tensor<3x32xf32> -> tensor<3xf32>
  %b = kvq_tile.broadcast %m dims [0] : tensor<3xf32> -> tensor<3x32xf32>
  return
}

// CHECK-LABEL: func.func @lanes
// CHECK-SAME: tensor<8x128xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2]">>
// CHECK: kvq_tile.convert %{{.*}} : tensor<8x64xf16, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2] pair=d0.0">> -> tensor<8x64xf16, #kvq_tile.lanes<"lane=[d1.1 d1.2 d0.0 d0.1 d0.2] pair=d1.0">>
func.func @lanes(%x:
    tensor<8x128xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2]">>
    , %p: tensor<8x64xf16, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2] pair=d0.0">>) {
  %b = kvq_tile.convert %p : tensor<8x64xf16, #kvq_tile.lanes<"lane=[d0.1 d0.2 d1.0 d1.1 d1.2] pair=d0.0">>
      -> tensor<8x64xf16, #kvq_tile.lanes<"lane=[d1.1 d1.2 d0.0 d0.1 d0.2] pair=d1.0">>
  return
}

// CHECK-LABEL: func.func @score_hook
// CHECK: kvq_tile.score_hook %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : tensor<8x64xf32>, tensor<8x64xi32>
// CHECK: kvq_tile.score_hook %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : f32, i32
func.func @score_hook(%score: tensor<8x64xf32>, %batch: tensor<8x64xi32>, %head: tensor<8x64xi32>,
                      %query: tensor<8x64xi32>, %key: tensor<8x64xi32>, %one: f32, %i: i32) -> (tensor<8x64xf32>, f32) {
  %s = kvq_tile.score_hook %score, %batch, %head, %query, %key : tensor<8x64xf32>, tensor<8x64xi32>
  %t = kvq_tile.score_hook %one, %i, %i, %i, %i : f32, i32
  return %s, %t : tensor<8x64xf32>, f32
}
