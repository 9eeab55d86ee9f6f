// Every built-in kernel goes from its plain program to a tile program that the driver without the kvq dialect reads.
//
// RUN: echo "" > %t.mlir
// RUN: kvq-opt %t.mlir -kvq-kernel=request=append:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=append -check-prefixes=CHECK,APPEND
// RUN: kvq-opt %t.mlir -kvq-kernel=request=quantize_k:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=quantize_k -check-prefixes=CHECK,QUANTIZE-K
// RUN: kvq-opt %t.mlir -kvq-kernel=request=quantize_v:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=quantize_v -check-prefixes=CHECK,QUANTIZE-V
// RUN: kvq-opt %t.mlir -kvq-kernel=request=attend:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=attend -check-prefixes=CHECK,ATTEND
// RUN: kvq-opt %t.mlir -kvq-kernel=request=merge:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=merge -check-prefixes=CHECK,MERGE
// RUN: kvq-opt %t.mlir -kvq-kernel=request=dequantize_k:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=dequantize_k -check-prefixes=CHECK,DEQUANTIZE-K
// RUN: kvq-opt %t.mlir -kvq-kernel=request=dequantize_v:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=dequantize_v -check-prefixes=CHECK,DEQUANTIZE-V
// RUN: kvq-opt %t.mlir -kvq-kernel=request=convert_k:k4c32-v2t32:vnni-mma:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=convert_k -check-prefixes=CHECK,CONVERT-K
// RUN: kvq-opt %t.mlir -kvq-kernel=request=convert_v:k4c32-v2t32:mma-vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact \
// RUN:   -kvq-fuse-packed -kvq-attach-schedule -kvq-expand -kvq-tile-fold-scales -canonicalize -kvq-verify-tiles \
// RUN:   | kvq-tile-opt | FileCheck %s -DOP=convert_v -check-prefixes=CHECK,CONVERT-V

// CHECK-NOT: kvq.{{kernel|cache|packed}}
// CHECK: func.func @[[OP]](
// CHECK-SAME: kvq_tile.kernel
// CHECK-SAME: kvq_tile.schedule = #kvq_tile.schedule<
// APPEND: kvq_tile.store
// QUANTIZE-K: kvq_tile.store_codes {{.*}} {bits = 4
// QUANTIZE-V: kvq_tile.store_codes {{.*}} {bits = 2
// The product reads codes of K, then codes of V; nothing is dequantized before it.
// ATTEND-NOT: kvq_tile.dequantize
// ATTEND: kvq_tile.dot {{.*}} contract 1 {{.*}}xi4
// ATTEND-NOT: kvq_tile.dequantize
// ATTEND: kvq_tile.dot {{.*}} contract 0 {{.*}}xi2
// ATTEND-NOT: kvq_tile.dequantize
// MERGE: kvq_tile.store
// DEQUANTIZE-K: kvq_tile.dequantize {{.*}} axis "channel"
// DEQUANTIZE-V: kvq_tile.dequantize {{.*}} axis "token"
// CONVERT-K: kvq_tile.unpack {{.*}}xi4
// CONVERT-K: kvq_tile.store_codes {{.*}} {bits = 4
// CONVERT-V: kvq_tile.unpack {{.*}}xi2
// CONVERT-V: kvq_tile.store_codes {{.*}} {bits = 2
