// RUN: kvq-tile-opt %s -kvq-verify-llvm -verify-diagnostics

llvm.func @f(%x: i64) -> i64 {
  // expected-error @below {{'arith.addi' is left after conversion to the llvm dialect}}
  // expected-note @below {{likely an op that tile programs may not use}}
  %y = arith.addi %x, %x : i64
  llvm.return %y : i64
}
