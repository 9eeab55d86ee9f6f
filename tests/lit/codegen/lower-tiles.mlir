// RUN: kvq-tile-opt %s -kvq-cpu-vector=level=x86-64-v4 -split-input-file | FileCheck %s --check-prefixes=CHECK,WIDE
// RUN: kvq-tile-opt %s -kvq-cpu-vector=level=x86-64 -split-input-file | FileCheck %s --check-prefixes=CHECK,NARROW

// Four vectors per step of a rolled loop, so that their maxima do not wait for each other; one horizontal maximum.
// CHECK-LABEL: func.func @kvq_entry(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr) -> i32
// CHECK: scf.for
// WIDE: llvm.load {{.*}} -> vector<64xf32>
// NARROW: llvm.load {{.*}} -> vector<16xf32>
// CHECK: arith.maxnumf
// CHECK: vector.reduction <maxnumf>
// CHECK-NOT: kvq_tile
func.func @row_max(%x: !kvq_tile.ptr<f32>, %out: !kvq_tile.ptr<f32>) attributes {kvq_tile.kernel} {
  %row = kvq_tile.program_id 0
  %c256 = arith.constant 256 : index
  %at = arith.muli %row, %c256 : index
  %v = kvq_tile.load %x[%at] : !kvq_tile.ptr<f32>, index -> tensor<256xf32>
  %m = kvq_tile.reduce max %v dim 0 : tensor<256xf32> -> f32
  kvq_tile.store %m, %out[%row] : f32, !kvq_tile.ptr<f32>, index
  return
}

// -----

// A dot of packed codes never unpacks to memory: words are loaded, masked where the codes lie, converted, multiplied.
// CHECK-LABEL: func.func @kvq_entry
// WIDE: llvm.load {{.*}} -> vector<16xi32>
// NARROW: llvm.load {{.*}} -> vector<4xi32>
// CHECK: arith.andi
// CHECK: arith.sitofp
// CHECK: llvm.intr.fmuladd
// CHECK: arith.shrui
func.func @dot(%page: !kvq_tile.ptr<i8>, %q: !kvq_tile.ptr<f32>, %out: !kvq_tile.ptr<f32>)
    attributes {kvq_tile.kernel, kvq_tile.schedule = #kvq_tile.schedule<tile_tokens = 64, rows = 1, vectors = 4, prefetch = 0>} {
  %c0 = arith.constant 0 : index
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8>
      -> tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
  %at = tensor.splat %c0 : tensor<1xindex>
  %c = kvq_tile.load %q[%at] : !kvq_tile.ptr<f32>, tensor<1xindex> -> tensor<1x64xf32>
  %zero = arith.constant dense<0.0> : tensor<1x64xf32>
  %s = kvq_tile.dot %k, %c acc %zero contract 1
      : tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>,
        tensor<1x64xf32> -> tensor<1x64xf32>
  kvq_tile.store %s, %out[%at] : tensor<1x64xf32>, !kvq_tile.ptr<f32>, tensor<1xindex>
  return
}

// -----

// A carried tile whose way leads only into the dot's accumulator is updated in place: the accumulator and the
// coefficient are all the scratch there is, and nothing is copied at the end of the body.
// CHECK-LABEL: func.func @kvq_entry
// CHECK-COUNT-2: llvm.alloca
// CHECK-NOT: llvm.alloca
// CHECK: scf.for
func.func @in_place(%p: !kvq_tile.ptr<f32>, %out: !kvq_tile.ptr<f32>, %n: i64) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %end = arith.index_cast %n : i64 to index
  %at = tensor.splat %c0 : tensor<1xindex>
  %zero = arith.constant dense<0.0> : tensor<1x16xf32>
  %half = arith.constant dense<0.5> : tensor<1x16xf32>
  %one = arith.constant dense<1.0> : tensor<1x1xf32>
  %o = scf.for %i = %c0 to %end step %c1 iter_args(%acc = %zero) -> (tensor<1x16xf32>) {
    %v = kvq_tile.load %p[%at] : !kvq_tile.ptr<f32>, tensor<1xindex> -> tensor<1x16xf32>
    %less = arith.mulf %acc, %half : tensor<1x16xf32>
    %next = kvq_tile.dot %v, %one acc %less contract 0 : tensor<1x16xf32>, tensor<1x1xf32> -> tensor<1x16xf32>
    scf.yield %next : tensor<1x16xf32>
  }
  kvq_tile.store %o, %out[%at] : tensor<1x16xf32>, !kvq_tile.ptr<f32>, tensor<1xindex>
  return
}

// -----

// A prefetch is spread over the steps of the dots that follow it: 2048 bytes are 32 lines, 8 steps take 4 each.
// CHECK-LABEL: func.func @kvq_entry
// WIDE-NOT: llvm.intr.prefetch
// WIDE: scf.for {{.*}} iter_args
// WIDE-COUNT-4: llvm.intr.prefetch
// WIDE-NOT: llvm.intr.prefetch
func.func @spread_prefetch(%page: !kvq_tile.ptr<i8>, %q: !kvq_tile.ptr<f32>, %out: !kvq_tile.ptr<f32>)
    attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  kvq_tile.prefetch %page, 2048 : !kvq_tile.ptr<i8>
  %k = kvq_tile.codes %page[%c0, %c0] : !kvq_tile.ptr<i8>
      -> tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
  %at = tensor.splat %c0 : tensor<1xindex>
  %c = kvq_tile.load %q[%at] : !kvq_tile.ptr<f32>, tensor<1xindex> -> tensor<1x64xf32>
  %zero = arith.constant dense<0.0> : tensor<1x64xf32>
  %s = kvq_tile.dot %k, %c acc %zero contract 1
      : tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>,
        tensor<1x64xf32> -> tensor<1x64xf32>
  kvq_tile.store %s, %out[%at] : tensor<1x64xf32>, !kvq_tile.ptr<f32>, tensor<1xindex>
  return
}

// -----

// K's codes are shifted apart in their lanes and merged over as many tokens as a vector has lanes: with 16 lanes 8 + 4 +
// 2 + 1 pairs of shuffles for the 16 tokens of one step (the last pair are the words of two runs of 8 channels), with 4
// lanes 2 + 1. Nothing is extracted, and all rows being stored nothing is read.
// CHECK-LABEL: func.func @kvq_entry
// WIDE-COUNT-16: arith.shli
// WIDE-COUNT-30: vector.shuffle
// WIDE-NOT: vector.shuffle
// WIDE-COUNT-2: llvm.store {{.*}} : vector<16xi32>
// NARROW-COUNT-6: vector.shuffle
// NARROW-NOT: vector.shuffle
// NARROW: llvm.store {{.*}} : vector<4xi32>
// CHECK-NOT: vector.extract
func.func @pack(%page: !kvq_tile.ptr<i8>, %x: !kvq_tile.ptr<i32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c16 = arith.constant 16 : index
  %at = kvq_tile.iota : tensor<16xindex>
  %q = kvq_tile.load %x[%at] : !kvq_tile.ptr<i32>, tensor<16xindex> -> tensor<16x64xi32>
  kvq_tile.store_codes %q, %page[%c0] rows %c0, %c16
      {bits = 4, layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">}
      : tensor<16x64xi32>, !kvq_tile.ptr<i8>
  return
}

// -----

// The lines of a prefetch fall to the steps of the store_codes behind it: 64 lines to 4 by 8 (16 lanes: 4 by 4) steps.
// CHECK-LABEL: func.func @kvq_entry
// CHECK-NOT: llvm.intr.prefetch
// CHECK: scf.for
// CHECK: scf.for
// WIDE-COUNT-4: llvm.intr.prefetch
// NARROW: llvm.intr.prefetch
// CHECK-NOT: llvm.intr.prefetch
// CHECK: llvm.store
func.func @pack_and_prefetch(%page: !kvq_tile.ptr<i8>, %x: !kvq_tile.ptr<i32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c64 = arith.constant 64 : index
  %q = tensor.splat %c0 : tensor<64x64xindex>
  %codes = arith.index_cast %q : tensor<64x64xindex> to tensor<64x64xi32>
  kvq_tile.prefetch %page, 4096 : !kvq_tile.ptr<i8>
  kvq_tile.store_codes %codes, %page[%c0] rows %c0, %c64
      {bits = 4, layout = #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">}
      : tensor<64x64xi32>, !kvq_tile.ptr<i8>
  return
}

// -----

// Rounding and conversion are one operation; the minimum and maximum beside a constant a comparison and a choice.
// CHECK-LABEL: func.func @kvq_entry
// CHECK: arith.cmpf ogt
// CHECK-NEXT: arith.select
// CHECK: llvm.intr.lrint
// CHECK-NOT: math.roundeven
// CHECK-NOT: arith.fptosi
func.func @round(%x: !kvq_tile.ptr<f32>, %y: !kvq_tile.ptr<i32>) attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %zero = arith.constant dense<0.0> : tensor<64xf32>
  %v = kvq_tile.load %x[%c0] : !kvq_tile.ptr<f32>, index -> tensor<64xf32>
  %p = arith.maxnumf %v, %zero : tensor<64xf32>
  %r = math.roundeven %p : tensor<64xf32>
  %i = arith.fptosi %r : tensor<64xf32> to tensor<64xi32>
  kvq_tile.store %i, %y[%c0] : tensor<64xi32>, !kvq_tile.ptr<i32>, index
  return
}
