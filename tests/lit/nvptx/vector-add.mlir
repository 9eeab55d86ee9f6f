// z[i] = 2^(x[i] * y[i] + y[i]) for n elements, one program of 32 lanes a warp: from scf, arith and math to PTX. The
// kernel's attributes become directives, products and sums stay apart, and exp2 is one instruction.
//
// RUN: kvqc %s --target=nvptx:sm_80 --compile-from=lanes --emit=ptx -o %t.ptx
// RUN: FileCheck %s --input-file=%t.ptx
// CHECK: .version 7.8
// CHECK: .target sm_80
// CHECK: .address_size 64
// CHECK: .visible .entry kvq_entry(
// CHECK-COUNT-5: .param .u64
// CHECK-NOT: .param
// CHECK: .reqntid 128, 1, 1
// CHECK: .minnctapersm 2
// CHECK: mul.rn.f32
// CHECK: add.rn.f32
// CHECK: ex2.approx.ftz.f32
// CHECK-NOT: call

// Each processor by the oldest PTX that knows it.
// DEFINE: %{sm}=
// DEFINE: %{version}=
// DEFINE: %{each} = kvqc %s --target=nvptx:sm_%{sm} --compile-from=lanes | FileCheck %s --check-prefix=EACH -DSM=%{sm} -DVERSION=%{version}
// EACH: .version [[VERSION]]
// EACH: .target sm_[[SM]]{{$}}
// EACH: ex2.approx.ftz.f32
// REDEFINE: %{sm}=86
// REDEFINE: %{version}=7.8
// RUN: %{each}
// REDEFINE: %{sm}=89
// REDEFINE: %{version}=7.8
// RUN: %{each}
// REDEFINE: %{sm}=90
// REDEFINE: %{version}=7.8
// RUN: %{each}
// REDEFINE: %{sm}=100
// REDEFINE: %{version}=8.6
// RUN: %{each}
// REDEFINE: %{sm}=120
// REDEFINE: %{version}=8.7
// RUN: %{each}

llvm.func @kvq_entry(%x: i64, %y: i64, %z: i64, %n: i64, %programs: i64)
    attributes {nvvm.kernel, nvvm.reqntid = array<i32: 128, 1, 1>, nvvm.minctasm = 2 : i32} {
  %c32 = arith.constant 32 : index
  %c4 = arith.constant 4 : index
  %warps_per_block = arith.constant 4 : i32
  %lane32 = nvvm.read.ptx.sreg.laneid : i32
  %block = nvvm.read.ptx.sreg.ctaid.x : i32
  %thread = nvvm.read.ptx.sreg.tid.x : i32
  %c5 = arith.constant 5 : i32
  %warp = arith.shrui %thread, %c5 : i32
  %first = arith.muli %block, %warps_per_block : i32
  %program32 = arith.addi %first, %warp : i32
  %program = arith.index_castui %program32 : i32 to index
  %lane = arith.index_castui %lane32 : i32 to index
  %count = arith.index_cast %programs : i64 to index
  %end = arith.index_cast %n : i64 to index
  %runs = arith.cmpi ult, %program, %count : index
  scf.if %runs {
    %offset = arith.muli %program, %c32 : index
    %begin = arith.addi %offset, %lane : index
    %step = arith.muli %count, %c32 : index
    %px = llvm.inttoptr %x : i64 to !llvm.ptr<1>
    %py = llvm.inttoptr %y : i64 to !llvm.ptr<1>
    %pz = llvm.inttoptr %z : i64 to !llvm.ptr<1>
    scf.for %i = %begin to %end step %step {
      %at = arith.index_cast %i : index to i64
      %ax = llvm.getelementptr %px[%at] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, f32
      %ay = llvm.getelementptr %py[%at] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, f32
      %az = llvm.getelementptr %pz[%at] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, f32
      %vx = llvm.load %ax : !llvm.ptr<1> -> f32
      %vy = llvm.load %ay : !llvm.ptr<1> -> f32
      %product = arith.mulf %vx, %vy : f32
      %sum = arith.addf %product, %vy : f32
      %power = math.exp2 %sum : f32
      llvm.store %power, %az : f32, !llvm.ptr<1>
    }
  }
  llvm.return
}
