// Each rule: a program of one op, and what it becomes for a lane.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-lower-tiles -canonicalize -cse -split-input-file | FileCheck %s

// Every kernel: programs beyond the last return, one word an argument.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK-SAME: (%{{.*}}: i64, %{{.*}}: i64, %{{.*}}: i64) attributes {nvvm.kernel, nvvm.minctasm = 2 : i32, nvvm.reqntid = array<i32: 128, 1, 1>}
// CHECK: %[[LANE:.*]] = arith.andi %{{.*}}, %c31_i32
// CHECK: %[[EXISTS:.*]] = arith.cmpi slt
// CHECK: scf.if %[[EXISTS]]

// Neighbours of 16 bytes are one access where the pointer promises so much, else one each. The lane's place is a shift.
// CHECK: %[[AT:.*]] = arith.shli %{{.*}}, %c2_i32 : i32
// CHECK: %[[V:.*]] = llvm.load %{{.*}} invariant {alignment = 16 : i64} : !llvm.ptr<1> -> vector<4xf32>
// CHECK-NOT: llvm.load
// CHECK-COUNT-4: llvm.store %{{.*}} {alignment = 4 : i64} : f32
// CHECK-NOT: llvm.store
func.func @load(%x: !kvq_tile.ptr<f32> {kvq_tile.multiple = 64 : i64}, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<128xf32, #kvq_tile.lanes<"lane=[d0.2 d0.3 d0.4 d0.5 d0.6]">>
  kvq_tile.store %v, %y[%c0] : tensor<128xf32, #kvq_tile.lanes<"lane=[d0.2 d0.3 d0.4 d0.5 d0.6]">>, !kvq_tile.ptr<f32>, index
  return
}

// -----

// As many blocks as the schedule says.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK-SAME: nvvm.minctasm = 3 : i32
func.func @blocks(%x: !kvq_tile.ptr<f32>) attributes {
    kvq_tile.kernel, kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 64, rows = 1, vectors = 1, prefetch = 0, blocks = 3>} {
  return
}

// -----

#p = #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d0.4]">

// Two warps a program: each leaves its word, and both read both. A barrier is of one program's warps, of which there are
// two beside each other. The next words go to the other half.
// CHECK: llvm.mlir.global internal @exchanged() {addr_space = 3 : i32, alignment = 16 : i64} : !llvm.array<1024 x i32>
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK-SAME: nvvm.reqntid = array<i32: 64, 2, 1>
// CHECK-NOT: nvvm.barrier
// CHECK: llvm.store %{{.*}}, %{{.*}} {alignment = 4 : i64} : f32, !llvm.ptr<3>
// CHECK: nvvm.barrier id = %{{.*}} number_of_threads = %c64_i32
// CHECK: %[[A:.*]] = llvm.load %{{.*}} {alignment = 4 : i64} : !llvm.ptr<3> -> f32
// CHECK: %[[B:.*]] = llvm.load %{{.*}} {alignment = 4 : i64} : !llvm.ptr<3> -> f32
// CHECK: arith.addf %[[A]], %[[B]]
// CHECK-NOT: nvvm.barrier
// CHECK: %[[OTHER:.*]] = llvm.getelementptr %{{.*}}[512] : (!llvm.ptr<3>) -> !llvm.ptr<3>, i32
// CHECK: llvm.store %{{.*}}, %[[OTHER]] {alignment = 4 : i64} : f32, !llvm.ptr<3>
// CHECK: nvvm.barrier
func.func @parts(%x: !kvq_tile.ptr<f32>) attributes {
    kvq_tile.kernel, kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 64, rows = 1, vectors = 1, prefetch = 0, warps = 2>} {
  %part = kvq_tile.part_id
  %v = kvq_tile.load %x[%part] : !kvq_tile.ptr<f32>, index -> tensor<32xf32, #p>
  %sum = kvq_tile.reduce_parts add %v : tensor<32xf32, #p>
  %max = kvq_tile.reduce_parts max %sum : tensor<32xf32, #p>
  kvq_tile.store %max, %x[%part] : tensor<32xf32, #p>, !kvq_tile.ptr<f32>, index
  return
}

// -----

// With one, the only part is 0 and its own sum.
// CHECK-NOT: llvm.mlir.global
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: %[[V:.*]] = llvm.load
// CHECK-NOT: nvvm.barrier
// CHECK: llvm.store %[[V]]
func.func @one_part(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %part = kvq_tile.part_id
  %v = kvq_tile.load %x[%part] : !kvq_tile.ptr<f32>, index -> tensor<32xf32, #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d0.4]">>
  %sum = kvq_tile.reduce_parts add %v : tensor<32xf32, #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d0.4]">>
  kvq_tile.store %sum, %y[%part] : tensor<32xf32, #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d0.4]">>, !kvq_tile.ptr<f32>, index
  return
}

// -----

#o = #kvq_tile.lanes<"lane=[- - - - d0.0]">
#t = #kvq_tile.lanes<"lane=[d1.0 d1.1 d1.2 d1.3 d0.0]">

// Where the mask is false nothing is read and the value is zero.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: scf.if
// CHECK: %[[MASK:.*]] = arith.cmpi slt
// CHECK: %[[V:.*]] = scf.if %[[MASK]] -> (f32) {
// CHECK: %[[READ:.*]] = llvm.load
// CHECK: scf.yield %[[READ]] : f32
// CHECK: } else {
// CHECK: scf.yield %cst : f32
// CHECK: llvm.store %[[V]]
func.func @masked(%x: !kvq_tile.ptr<f32>, %n: i64, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %rows = kvq_tile.iota : tensor<2xindex, #o>
  %w = arith.constant dense<16> : tensor<2xindex, #o>
  %at = arith.muli %rows, %w : tensor<2xindex, #o>
  %end = arith.index_cast %n : i64 to index
  %ends = tensor.splat %end : tensor<2xindex, #o>
  %m = arith.cmpi slt, %rows, %ends : tensor<2xindex, #o>
  %v = kvq_tile.load %x[%at] mask %m : !kvq_tile.ptr<f32>, tensor<2xindex, #o>, tensor<2xi1, #o> -> tensor<2x16xf32, #t>
  kvq_tile.store %v, %y[%at] : tensor<2x16xf32, #t>, !kvq_tile.ptr<f32>, tensor<2xindex, #o>
  return
}

// -----

#t = #kvq_tile.lanes<"lane=[d1.1 d1.2 - d0.0 d0.1]">
#r = #kvq_tile.lanes<"lane=[- - - d0.0 d0.1]">

// First the registers of a lane, then an exchange for each lane bit of the dimension; the first of eight lanes stores.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: %[[M:.*]] = arith.maxnumf
// CHECK: shfl.sync.bfly.i32"(%{{.*}}, %{{.*}}, %c1_i32,
// CHECK: arith.maxnumf
// CHECK: shfl.sync.bfly.i32"(%{{.*}}, %{{.*}}, %c2_i32,
// CHECK: %[[ALL:.*]] = arith.maxnumf
// CHECK-NOT: shfl
// CHECK: %[[REST:.*]] = arith.andi %{{.*}}, %c7_i32
// CHECK: %[[FIRST:.*]] = arith.cmpi eq, %[[REST]], %c0_i32
// CHECK: scf.if %[[FIRST]]
// CHECK: llvm.store %[[ALL]]
func.func @reduce(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %rows = kvq_tile.iota : tensor<4xindex, #r>
  %w = arith.constant dense<8> : tensor<4xindex, #r>
  %at = arith.muli %rows, %w : tensor<4xindex, #r>
  %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, tensor<4xindex, #r> -> tensor<4x8xf32, #t>
  %m = kvq_tile.reduce max %v dim 1 : tensor<4x8xf32, #t> -> tensor<4xf32, #r>
  kvq_tile.store %m, %y[%rows] : tensor<4xf32, #r>, !kvq_tile.ptr<f32>, tensor<4xindex, #r>
  return
}

// -----

#a = #kvq_tile.lanes<"lane=[d0.1 d0.2 d0.3 d0.4 d0.5]">
#b = #kvq_tile.lanes<"lane=[d0.1 d0.2 d0.3 d0.4 d0.5] pair=d0.0">

// Lanes keep what they have: no instruction moves anything.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: scf.if
// CHECK-NOT: {{shfl|movmatrix}}
// CHECK: llvm.return
func.func @rename(%x: !kvq_tile.ptr<f16>, %y: !kvq_tile.ptr<f16>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f16>, index -> tensor<64xf16, #a>
  %w = kvq_tile.convert %v : tensor<64xf16, #a> -> tensor<64xf16, #b>
  kvq_tile.store %w, %y[%c0] : tensor<64xf16, #b>, !kvq_tile.ptr<f16>, index
  return
}

// -----

#a = #kvq_tile.lanes<"lane=[d0.1 d0.2 d0.3 d0.4 d0.5] pair=d0.0">
#b = #kvq_tile.lanes<"lane=[d0.4 d0.5 d0.0 d0.1 d0.2] pair=d0.3">

// Lane bits 0 and 1 and the pair against lane bits 2 to 4: one movmatrix a register.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: scf.if
// CHECK-NOT: shfl
// CHECK-COUNT-1: movmatrix.sync.aligned.m8n8.trans.b16
// CHECK-NOT: {{shfl|movmatrix}}
// CHECK: llvm.return
func.func @transpose(%x: !kvq_tile.ptr<f16>, %y: !kvq_tile.ptr<f16>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f16>, index -> tensor<64xf16, #a>
  %w = kvq_tile.convert %v : tensor<64xf16, #a> -> tensor<64xf16, #b>
  kvq_tile.store %w, %y[%c0] : tensor<64xf16, #b>, !kvq_tile.ptr<f16>, index
  return
}

// -----

#a = #kvq_tile.lanes<"lane=[d0.1 d0.2 d0.3 d0.4 d0.5]">
#b = #kvq_tile.lanes<"lane=[d0.5 d0.4 d0.3 d0.2 d0.1]">

// Lane bits in another order: one shuffle a register.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: scf.if
// CHECK-COUNT-2: shfl.sync.idx.i32
// CHECK-NOT: {{shfl|movmatrix}}
// CHECK: llvm.return
func.func @exchange(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<64xf32, #a>
  %w = kvq_tile.convert %v : tensor<64xf32, #a> -> tensor<64xf32, #b>
  kvq_tile.store %w, %y[%c0] : tensor<64xf32, #b>, !kvq_tile.ptr<f32>, index
  return
}

// -----

#a = #kvq_tile.lanes<"lane=[d0.1 d0.2 d0.3 d0.4 d0.5]">
#b = #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d0.4]">

// A lane bit that was a register's: both are sent, and the asking lane chooses.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: scf.if
// CHECK-COUNT-2: shfl.sync.idx.i32
// CHECK: arith.select
// CHECK-COUNT-2: shfl.sync.idx.i32
// CHECK: arith.select
// CHECK-NOT: {{shfl|movmatrix}}
// CHECK: llvm.return
func.func @exchange_registers(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<64xf32, #a>
  %w = kvq_tile.convert %v : tensor<64xf32, #a> -> tensor<64xf32, #b>
  kvq_tile.store %w, %y[%c0] : tensor<64xf32, #b>, !kvq_tile.ptr<f32>, index
  return
}

// -----

#k = #kvq_tile.layout<"[ch.0 ch.1 ch.2 tok.0 tok.1 tok.2 tok.3] ch:2 tok:1">
#t = #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d1.3]">

// A word is read once; each of its codes is a shift and a mask.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK-COUNT-1: llvm.load
// CHECK-NOT: llvm.load
// CHECK: %[[CODE:.*]] = arith.andi %[[WORD:.*]], %c15_i32
// CHECK: arith.shrui %[[WORD]], %c4_i32
// CHECK: arith.shrui %[[WORD]], %c28_i32
// CHECK: shfl.sync.bfly
func.func @unpack(%x: !kvq_tile.ptr<i8>, %y: !kvq_tile.ptr<i32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %k = kvq_tile.codes %x[%c0, %c0] : !kvq_tile.ptr<i8> -> tensor<16x16xi4, #k>
  %i = kvq_tile.unpack %k : tensor<16x16xi4, #k> -> tensor<16x16xi32, #t>
  %m = kvq_tile.reduce max %i dim 1 : tensor<16x16xi32, #t> -> tensor<16xi32, #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 -]">>
  kvq_tile.store %m, %y[%c0] : tensor<16xi32, #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 -]">>, !kvq_tile.ptr<i32>, index
  return
}

// -----

#k = #kvq_tile.layout<"[ch.0 ch.1 ch.2 tok.0 tok.1 tok.2 tok.3] ch:2 tok:1">
#t = #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d1.3]">

// Whole rows: words are stored as they are.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK-NOT: llvm.load
// CHECK: llvm.store %c2004318071_i32
// CHECK-NOT: {{llvm.load|llvm.store}}
// CHECK: llvm.return
func.func @pack(%x: !kvq_tile.ptr<i8>, %b: i64, %e: i64) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c16 = arith.constant 16 : index
  %begin = arith.index_cast %b : i64 to index
  %end = arith.index_cast %e : i64 to index
  %seven = arith.constant dense<7> : tensor<16x16xi32, #t>
  kvq_tile.store_codes %seven, %x[%c0] rows %c0, %c16 {bits = 4, layout = #k} : tensor<16x16xi32, #t>, !kvq_tile.ptr<i8>
  return
}

// -----

#k = #kvq_tile.layout<"[ch.0 ch.1 ch.2 tok.0 tok.1 tok.2 tok.3] ch:2 tok:1">
#t = #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d1.3]">

// Some rows: bits of the others come from memory, and words without any are left alone.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: %[[ABOVE:.*]] = arith.cmpi sge
// CHECK: %[[BELOW:.*]] = arith.cmpi slt
// CHECK: %[[IN:.*]] = arith.andi %[[ABOVE]], %[[BELOW]] : i1
// CHECK: %[[BITS:.*]] = arith.select %[[IN]], %c-1_i32, %c0_i32
// CHECK: %[[ANY:.*]] = arith.cmpi ne, %[[BITS]], %c0_i32
// CHECK: scf.if %[[ANY]]
// CHECK: %[[OLD:.*]] = llvm.load
// CHECK: arith.andi %[[OLD]]
// CHECK: arith.ori
// CHECK: llvm.store
func.func @pack_rows(%x: !kvq_tile.ptr<i8>, %b: i64, %e: i64) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c16 = arith.constant 16 : index
  %begin = arith.index_cast %b : i64 to index
  %end = arith.index_cast %e : i64 to index
  %seven = arith.constant dense<7> : tensor<16x16xi32, #t>
  kvq_tile.store_codes %seven, %x[%c0] rows %begin, %end {bits = 4, layout = #k} : tensor<16x16xi32, #t>, !kvq_tile.ptr<i8>
  return
}

// -----

#s = #kvq_tile.lanes<"lane=[- - - - -]">
#t = #kvq_tile.lanes<"lane=[d0.0 - - - -]">

// Six elements stand for two: bit 0 of the index decides between them in the middle, so the lane chooses.
// CHECK-LABEL: llvm.func @kvq_entry
// CHECK: %[[IS:.*]] = arith.cmpi ne
// CHECK: arith.select %[[IS]], %{{.*}}, %{{.*}} : f32
func.func @ragged(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<2xf32, #s>
  %w = kvq_tile.broadcast %v dims [0] : tensor<2xf32, #s> -> tensor<6xf32, #t>
  kvq_tile.store %w, %y[%c0] : tensor<6xf32, #t>, !kvq_tile.ptr<f32>, index
  return
}
