// The tile program of each kernel: its arguments are those of kernel_abi.h, no kvq op is left, and products are with
// codes where attend is folded.
//
// RUN: echo "module {}" > %t.mlir
// RUN: kvq-opt %t.mlir -kvq-kernel=request=append:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag0:win0:cap0:exact -kvq-expand -kvq-verify-tiles | FileCheck %s -check-prefix=APPEND
// RUN: kvq-opt %t.mlir -kvq-kernel=request=quantize_k:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag0:win0:cap0:exact -kvq-expand -kvq-verify-tiles | FileCheck %s -check-prefix=CHANNEL
// RUN: kvq-opt %t.mlir -kvq-kernel=request=quantize_v:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag0:win0:cap0:exact -kvq-expand -kvq-verify-tiles | FileCheck %s -check-prefix=TOKEN
// RUN: kvq-opt %t.mlir -kvq-kernel=request=quantize_v:k3c32-v3t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag0:win0:cap0:exact -kvq-expand -kvq-verify-tiles | FileCheck %s -check-prefix=THREE
// RUN: kvq-opt %t.mlir -kvq-kernel=request=dequantize_v:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag0:win0:cap0:exact -kvq-expand -kvq-verify-tiles | FileCheck %s -check-prefix=DEQUANTIZE
// RUN: kvq-opt %t.mlir -kvq-kernel=request=convert_k:k4c32-v2t32:vnni-kivi:p64:dk64:dv128:g3:bf16:rows3:lag0:win0:cap0:exact -kvq-expand -kvq-verify-tiles | FileCheck %s -check-prefix=CONVERT
// RUN: kvq-opt %t.mlir -kvq-kernel=request=merge:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag0:win0:cap0:exact -kvq-expand -kvq-verify-tiles | FileCheck %s -check-prefix=MERGE
// RUN: kvq-opt %t.mlir -kvq-kernel=request=attend:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag0:win0:cap0:exact -kvq-fuse-packed -kvq-expand -kvq-tile-fold-scales -kvq-verify-tiles | FileCheck %s -check-prefix=ATTEND
// RUN: kvq-opt %t.mlir -kvq-kernel=request=attend:k4t32-v2t32:vnni:p64:dk64:dv128:g3:f16:rows3:lag0:win1:cap1:exact -kvq-fuse-packed -kvq-expand -canonicalize -cse -kvq-verify-tiles | FileCheck %s -check-prefix=MASKED
// RUN: kvq-opt %t.mlir -kvq-kernel=request=attend:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact -kvq-fuse-packed -kvq-expand -kvq-tile-fold-scales -kvq-verify-tiles | FileCheck %s -check-prefix=LAG

// One loop over heads; bad values are found as integers: above 65504 without the sign.
// APPEND: func.func @append(%{{.*}}: !kvq_tile.ptr<i8>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %[[STATUS:.*]]: !kvq_tile.ptr<i32>{{[^,)]*}}) attributes {kvq_tile.kernel
// APPEND: %[[BAD:.*]] = scf.for
// APPEND: arith.bitcast %{{.*}} : tensor<64xf32> to tensor<64xi32>
// APPEND: arith.constant dense<1199562752> : tensor<64xi32>
// APPEND: %[[PROGRAM:.*]] = kvq_tile.program_id 0
// APPEND: kvq_tile.store %[[BAD]], %[[STATUS]][%[[PROGRAM]]]

// The sequence of quantize_c2, group by group of 32 tokens and in strips of 32 channels; no operation is fused, and only
// the clamp comes before the rounding, which gives the same.
// CHANNEL: func.func @quantize_k(%{{.*}}: !kvq_tile.ptr<i8>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i8>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}})
// CHANNEL: scf.for
// CHANNEL: scf.for
// CHANNEL: kvq_tile.prefetch %{{.*}}, 2048
// CHANNEL: %[[X:.*]] = arith.extf %{{.*}} : tensor<32x32xbf16> to tensor<32x32xf32>
// CHANNEL-DAG: %[[MIN0:.*]] = kvq_tile.reduce min %[[X]] dim 0
// CHANNEL-DAG: %[[MAX0:.*]] = kvq_tile.reduce max %[[X]] dim 0
// CHANNEL: %[[MIN:.*]] = arith.addf %[[MIN0]], %{{.*}} : tensor<32xf32>
// CHANNEL: %[[MAX:.*]] = arith.addf %[[MAX0]], %{{.*}} : tensor<32xf32>
// CHANNEL: %[[RANGE:.*]] = arith.subf %[[MAX]], %[[MIN]]
// CHANNEL: %[[STEP:.*]] = arith.divf %[[RANGE]], %{{.*}}
// CHANNEL: %[[SCALE:.*]] = arith.truncf %[[STEP]] : tensor<32xf32> to tensor<32xf16>
// CHANNEL: arith.truncf %[[MIN]] : tensor<32xf32> to tensor<32xf16>
// CHANNEL: %[[SCALE32:.*]] = arith.extf %[[SCALE]]
// CHANNEL: arith.divf %{{.*}}, %[[SCALE32]]
// CHANNEL: kvq_tile.store
// CHANNEL: arith.subf %[[X]]
// CHANNEL-NEXT: arith.mulf
// CHANNEL: arith.maxnumf
// CHANNEL: arith.minnumf
// CHANNEL-NEXT: math.roundeven
// CHANNEL-NEXT: arith.fptosi
// CHANNEL: kvq_tile.store_codes {{.*}} {bits = 4 : i64{{.*}} : tensor<32x32xi32>

// Steps of 16 tokens, in which groups of channels follow each other. A whole step is stored at once.
// TOKEN: func.func @quantize_v
// TOKEN: scf.for
// TOKEN: scf.for
// TOKEN: kvq_tile.reduce min %{{.*}} dim 1 : tensor<16x32xf32> -> tensor<16xf32>
// TOKEN: scf.if
// TOKEN: kvq_tile.store %{{.*}} : tensor<16xf16>, {{(!kvq_tile.ptr)?}}<f16>, index
// TOKEN: kvq_tile.prefetch %{{.*}}, 1024
// TOKEN: kvq_tile.store_codes %{{.*}} {bits = 2 : i64, layout = #kvq_tile.layout<"[tok.2 tok.3 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:4 ch:2">} : tensor<16x32xi32>
// TOKEN: } else {
// TOKEN: kvq_tile.store %{{.*}} mask
// TOKEN: kvq_tile.store_codes
// TOKEN: }

// Three bits: a word of the high plane holds 32 tokens of V.
// THREE: kvq_tile.reduce min %{{.*}} dim 1 : tensor<32x32xf32> -> tensor<32xf32>
// THREE: kvq_tile.store_codes %{{.*}} {bits = 3 : i64, layout = #kvq_tile.layout<"2:[tok.2 tok.3 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:4 ch:2 + 1:[tok.2 tok.3 tok.4 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:2 ch:2">} : tensor<32x32xi32>

// DEQUANTIZE: func.func @dequantize_v(%{{.*}}: !kvq_tile.ptr<i8>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i8>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}})
// DEQUANTIZE: scf.for
// DEQUANTIZE: %[[X:.*]] = kvq_tile.dequantize %{{.*}} axis "token"
// DEQUANTIZE: arith.truncf %[[X]] : tensor<16x128xf32> to tensor<16x128xbf16>
// DEQUANTIZE: kvq_tile.store %{{.*}} mask

// The example of kvq.convert: tiles that share no word in either layout are unpacked by the one and packed by the other;
// scales and minima, 256 bytes each, are copied as words to where they were.
// CONVERT: func.func @convert_k(%[[ITEMS:[a-z0-9]+]]: !kvq_tile.ptr<i8>, %[[FROM:[a-z0-9]+]]: !kvq_tile.ptr<i8> {kvq_tile.multiple = 64 : i64}, %{{.*}}: i64 {{[^,)]*}}, %{{.*}}: i64 {{[^,)]*}}, %[[TO:[a-z0-9]+]]: !kvq_tile.ptr<i8> {kvq_tile.multiple = 64 : i64}, %{{.*}}: i64 {{[^,)]*}}, %{{.*}}: i64 {{[^,)]*}}) attributes {kvq_tile.kernel
// CONVERT: %[[SOURCE:.*]] = kvq_tile.advance %[[FROM]]
// CONVERT: %[[PAGE:.*]] = kvq_tile.advance %[[TO]]
// CONVERT: scf.for %[[ROW:.*]] = %{{.*}} to %{{.*}} step %c16
// CONVERT: scf.for %[[COLUMN:.*]] = %{{.*}} to %{{.*}} step %c32
// CONVERT: %[[OLD:.*]] = kvq_tile.advance %[[SOURCE]]
// CONVERT: %[[PACKED:.*]] = kvq_tile.codes %[[OLD]][%[[ROW]], %[[COLUMN]]] : {{.*}} -> tensor<16x32xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
// CONVERT: %[[CODES:.*]] = kvq_tile.unpack %[[PACKED]]
// CONVERT: %[[NEW:.*]] = kvq_tile.advance %[[PAGE]]
// CONVERT: kvq_tile.store_codes %[[CODES]], %[[NEW]][%[[ROW]], %[[COLUMN]]] rows {{.*}} {bits = 4 : i64, layout = #kvq_tile.layout<"[tok.0 tok.1 tok.2] tok:8 ch:64">}
// CONVERT: scf.for
// CONVERT: %[[SCALES:.*]] = kvq_tile.load {{.*}} -> tensor<64xi32>
// CONVERT-NEXT: kvq_tile.store %[[SCALES]]
// CONVERT: scf.for
// CONVERT: %[[MINIMA:.*]] = kvq_tile.load {{.*}} -> tensor<64xi32>
// CONVERT-NEXT: kvq_tile.store %[[MINIMA]]
// CONVERT: return

// MERGE: func.func @merge(%{{.*}}: !kvq_tile.ptr<f32>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<f32>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i32>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i64>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<f32>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<f32>{{[^,)]*}}, %[[TOGETHER:.*]]: i64{{[^,)]*}})
// The heads of the program, from its place in dimension 1 on.
// MERGE: %[[N:.*]] = arith.index_cast %[[TOGETHER]]
// MERGE: kvq_tile.program_id 1
// MERGE: scf.for
// MERGE: scf.for
// MERGE: arith.truncf %{{.*}} : tensor<128xf32> to tensor<128xbf16>

// Two products with codes in the loop over pages, two with rows of the tail in the loop over raw tokens.
// ATTEND: func.func @attend(%{{.*}}: !kvq_tile.ptr<i8>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i64>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i8>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i32>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<bf16>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i32>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i32>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<i32>{{[^,)]*}}, %{{.*}}: f32, %{{.*}}: !kvq_tile.ptr<f32>{{[^,)]*}}, %{{.*}}: !kvq_tile.ptr<f32>{{[^,)]*}}, %{{.*}}: i64{{[^,)]*}})
// ATTEND-NOT: kvq_tile.dequantize
// Tiles that every row sees whole: no choice between scores and the value of a masked one.
// ATTEND: scf.for
// ATTEND: kvq_tile.prefetch
// ATTEND: %[[Q:.*]] = kvq_tile.coeff %{{.*}}, %{{.*}} as si16 : tensor<3x64xf32>, tensor<2x64xf32> -> tensor<2x3x64xf32>
// ATTEND: kvq_tile.dot %{{.*}}, %[[Q]] acc {{.*}} contract 1 center 7.500000e+00 : tensor<64x64xi4
// ATTEND-NOT: arith.select
// ATTEND: %[[P:.*]] = kvq_tile.coeff {{.*}} as ui16 : tensor<3x64xf32>
// ATTEND: kvq_tile.dot %{{.*}}, %[[P]] acc {{.*}} contract 0 center 1.500000e+00 : tensor<64x128xi2
// Tiles at the end of the packed tokens.
// ATTEND: scf.for
// ATTEND: kvq_tile.dot {{.*}} contract 1 center 7.500000e+00 : tensor<64x64xi4
// ATTEND: arith.select
// ATTEND: kvq_tile.dot {{.*}} contract 0 center 1.500000e+00 : tensor<64x128xi2
// ATTEND: scf.for
// ATTEND: kvq_tile.dot {{.*}} contract 1 : tensor<32x64xf32>
// ATTEND: kvq_tile.dot {{.*}} contract 0 : tensor<32x128xf32>
// ATTEND-NOT: scf.for
// ATTEND: return

// Per token a tile may be committed in part: what is not is read as 0. The cap is applied to scores in its own units, and
// the window masks packed and raw keys. The loop over the tail begins before the ring's tokens, with the kept ones.
// MASKED: func.func @attend(
// MASKED-SAME: %[[SCALE:[a-z0-9]+]]: f32, %[[WINDOW:[a-z0-9]+]]: i64, %[[CAP:[a-z0-9]+]]: f32, %{{[a-z0-9]+}}: !kvq_tile.ptr<f32>
// MASKED: arith.divf %[[SCALE]], %[[CAP]] : f32
// MASKED: arith.index_cast %[[WINDOW]]
// MASKED: scf.for
// MASKED: kvq_tile.dot {{.*}} contract 1
// MASKED: arith.andi
// MASKED: math.tanh
// MASKED: kvq_tile.reduce max
// MASKED: %[[SCALES:.*]] = arith.select {{.*}} tensor<4x64xf32>
// MASKED: %[[MINIMA:.*]] = arith.select {{.*}} tensor<4x64xf32>
// MASKED: kvq_tile.dequantize %{{.*}}, %[[SCALES]], %[[MINIMA]]
// MASKED: kvq_tile.dot {{.*}} contract 0
// MASKED: scf.for
// MASKED: arith.select {{.*}} : i32
// MASKED: arith.andi
// MASKED: math.tanh
// MASKED: kvq_tile.dot {{.*}} contract 0
// MASKED-NOT: scf.for
// MASKED: return

// With a lagging V: a loop over tiles that every row sees whole and whose V is packed, two over short ones, first with
// their V packed, then with their V in the tail, and one over raw tokens.
// LAG: func.func @attend
// LAG: scf.for
// LAG: kvq_tile.dot {{.*}} contract 0 center 1.500000e+00 : tensor<64x128xi2
// LAG-NEXT: scf.yield
// LAG: scf.for {{.*}} step %c32
// LAG: kvq_tile.dot {{.*}} contract 0 center 1.500000e+00 : tensor<32x128xi2
// LAG-NEXT: scf.yield
// LAG: scf.for {{.*}} step %c32
// LAG: kvq_tile.dot {{.*}} contract 1 center 7.500000e+00 : tensor<32x64xi4
// LAG: kvq_tile.dot {{.*}} contract 0 : tensor<32x128xf32>
// LAG-NEXT: scf.yield
// LAG: scf.for
// LAG: return
