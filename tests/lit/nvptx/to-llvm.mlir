// kvq-nvptx-to-llvm: what the lanes of a warp compute, to the llvm and nvvm dialects.
//
// RUN: kvq-tile-opt %s -kvq-nvptx-to-llvm | FileCheck %s

// exp2 and log2 of f32 are instructions, math functions without one polynomials; roots and fma are LLVM's intrinsics.
// CHECK-LABEL: llvm.func @math
// CHECK-SAME: (%[[X:.*]]: f32)
// CHECK: llvm.call_intrinsic "llvm.nvvm.ex2.approx.ftz.f"(%[[X]])
// CHECK: llvm.call_intrinsic "llvm.nvvm.lg2.approx.ftz.f"
// CHECK: llvm.intr.sqrt
// CHECK: llvm.intr.fma
// CHECK-NOT: tanh
// CHECK: llvm.return
llvm.func @math(%x: f32) -> f32 {
  %a = math.exp2 %x : f32
  %b = math.log2 %a : f32
  %c = math.sqrt %b : f32
  %d = math.fma %c, %c, %x : f32
  %e = math.tanh %d : f32
  llvm.return %e : f32
}

// A product and a sum stay two operations without a flag, so that codes have the same bits as on a CPU.
// CHECK-LABEL: llvm.func @apart
// CHECK: llvm.fmul %{{.*}}, %{{.*}} : f32
// CHECK: llvm.fadd %{{.*}}, %{{.*}} : f32
llvm.func @apart(%x: f32, %y: f32) -> f32 {
  %a = arith.mulf %x, %y : f32
  %b = arith.addf %a, %y : f32
  llvm.return %b : f32
}

// Pairs of f16, indices of 64 bits, a loop, and ops of nvvm, which stay.
// CHECK-LABEL: llvm.func @warp
// CHECK: nvvm.read.ptx.sreg.laneid
// CHECK: llvm.cond_br
// CHECK: llvm.fmul %{{.*}} : vector<2xf16>
// CHECK: llvm.add %{{.*}} : i64
// CHECK: nvvm.shfl.sync
llvm.func @warp(%n: i64, %pair: vector<2xf16>) -> i32 {
  %lane = nvvm.read.ptx.sreg.laneid : i32
  %begin = arith.constant 0 : index
  %step = arith.constant 1 : index
  %end = arith.index_cast %n : i64 to index
  %last = scf.for %i = %begin to %end step %step iter_args(%p = %pair) -> vector<2xf16> {
    %next = arith.mulf %p, %pair : vector<2xf16>
    scf.yield %next : vector<2xf16>
  }
  %bits = vector.bitcast %last : vector<2xf16> to vector<1xi32>
  %word = vector.extract %bits[0] : i32 from vector<1xi32>
  %all = arith.constant -1 : i32
  %one = arith.constant 1 : i32
  %clamp = arith.constant 31 : i32
  %other = nvvm.shfl.sync bfly %all, %word, %one, %clamp : i32 -> i32
  %sum = arith.addi %lane, %other : i32
  llvm.return %sum : i32
}
