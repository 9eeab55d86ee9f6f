// RUN: kvq-tile-opt %s -kvq-nvptx-to-llvm -verify-diagnostics

llvm.func @f(%p: !llvm.ptr) {
  %c0 = arith.constant 0 : index
  // expected-error @below {{'kvq_tile.iota' is left after conversion to the llvm dialect}}
  // expected-note @below {{likely an op that tile programs may not use}}
  %i = kvq_tile.iota : tensor<32xi32>
  %e = tensor.extract %i[%c0] : tensor<32xi32>
  llvm.store %e, %p : i32, !llvm.ptr
  llvm.return
}
