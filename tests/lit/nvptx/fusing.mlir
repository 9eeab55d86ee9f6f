// A product and a sum become one instruction where the program says so, by llvm.fmuladd, fma or the flag contract, and
// nowhere else: `.rn` also keeps ptxas from it.
//
// RUN: kvqc %s --target=nvptx:sm_80 --compile-from=llvm | FileCheck %s
// CHECK: mul.rn.f32
// CHECK-NEXT: add.rn.f32
// CHECK-NOT: {{mul|add}}.{{(rn.)?}}f32
// CHECK-COUNT-3: fma.rn.f32
// CHECK-NOT: {{mul|add}}.{{(rn.)?}}f32

llvm.func @kvq_entry(%p: !llvm.ptr<1>) attributes {nvvm.kernel} {
  %x = llvm.load volatile %p : !llvm.ptr<1> -> f32
  %y = llvm.load volatile %p : !llvm.ptr<1> -> f32
  %z = llvm.load volatile %p : !llvm.ptr<1> -> f32
  %a = llvm.fmul %x, %y : f32
  %b = llvm.fadd %a, %z : f32
  llvm.store volatile %b, %p : f32, !llvm.ptr<1>
  %c = llvm.intr.fmuladd(%x, %z, %y) : (f32, f32, f32) -> f32
  llvm.store volatile %c, %p : f32, !llvm.ptr<1>
  %d = llvm.intr.fma(%y, %z, %x) : (f32, f32, f32) -> f32
  llvm.store volatile %d, %p : f32, !llvm.ptr<1>
  %e = llvm.fmul %x, %x {fastmathFlags = #llvm.fastmath<contract>} : f32
  %f = llvm.fadd %e, %z {fastmathFlags = #llvm.fastmath<contract>} : f32
  llvm.store volatile %f, %p : f32, !llvm.ptr<1>
  llvm.return
}
