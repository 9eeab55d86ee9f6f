// The plain program of each built-in kernel. K has 4 bits and head size 64, V 2 bits and head size 128.
//
// RUN: echo "module {}" > %t.mlir
// RUN: kvq-opt %t.mlir -kvq-kernel=request=append:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=APPEND
// RUN: kvq-opt %t.mlir -kvq-kernel=request=quantize_k:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=QUANTIZE-K
// RUN: kvq-opt %t.mlir -kvq-kernel=request=quantize_v:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=QUANTIZE-V
// RUN: kvq-opt %t.mlir -kvq-kernel=request=attend:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=ATTEND
// RUN: kvq-opt %t.mlir -kvq-kernel=request=attend:k4c32-v2t32:vnni:p64:dk64:dv128:g3:f16:rows3:lag0:win1:cap1:exact | FileCheck %s -check-prefix=MASKED
// RUN: kvq-opt %t.mlir -kvq-kernel=request=merge:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=MERGE
// RUN: kvq-opt %t.mlir -kvq-kernel=request=dequantize_k:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=DEQUANTIZE-K
// RUN: kvq-opt %t.mlir -kvq-kernel=request=dequantize_v:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=DEQUANTIZE-V
// RUN: kvq-opt %t.mlir -kvq-kernel=request=convert_k:k4c32-v2t32:vnni-mma:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=CONVERT-K
// RUN: kvq-opt %t.mlir -kvq-kernel=request=convert_v:k4c32-v2t32:mma-vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact | FileCheck %s -check-prefix=CONVERT-V
// RUN: not kvq-opt %t.mlir -kvq-kernel=request=attend:k4c32 2>&1 | FileCheck %s -check-prefix=ILLEGAL
// RUN: not kvq-opt %t.mlir -kvq-kernel=request=merge:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact -kvq-kernel=request=merge:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact 2>&1 | FileCheck %s -check-prefix=TWICE

// APPEND: func.func @append(%[[K:.*]]: tensor<?x?x64xbf16>, %[[V:.*]]: tensor<?x?x128xbf16>, %[[CACHE:.*]]: !cache_k4c32_v2t32) -> tensor<?xi32>
// APPEND-SAME: kvq.kernel = "append:k4c32-v2t32:vnni:p64:dk64:dv128:g3:bf16:rows3:lag1:win0:cap0:exact"
// APPEND-NEXT: %[[BAD:.*]] = kvq.append %[[K]], %[[V]] to %[[CACHE]]
// APPEND-NEXT: return %[[BAD]]

// QUANTIZE-K: func.func @quantize_k(%[[CACHE:.*]]: !cache_k4c32_v2t32)
// QUANTIZE-K-NEXT: kvq.commit %[[CACHE]] side k
// QUANTIZE-K-NEXT: return

// QUANTIZE-V: func.func @quantize_v(%[[CACHE:.*]]: !cache_k4c32_v2t32)
// QUANTIZE-V-NEXT: kvq.commit %[[CACHE]] side v
// QUANTIZE-V-NEXT: return

// ATTEND: func.func @attend(%[[Q:.*]]: tensor<?x?x64xbf16>, %[[CACHE:.*]]: !cache_k4c32_v2t32, %[[SCALE:.*]]: f32) -> (tensor<?x?x128xf32>, tensor<?x?xf32>)
// ATTEND-NEXT: %[[K:.*]], %[[V:.*]] = kvq.read %[[CACHE]] : !cache_k4c32_v2t32 -> tensor<?x?x?x64xf32>, tensor<?x?x?x128xf32>
// ATTEND-NEXT: %[[O:.*]], %[[LSE:.*]] = kvq.attention %[[Q]], %[[K]], %[[V]] scale %[[SCALE]] bounds <causal = true>
// ATTEND-NEXT: return %[[O]], %[[LSE]]

// MASKED: problem = <page_tokens = 64, dk = 64, dv = 128, ratio = 3, type = f16, rows = 3, lag = false, window = true, score_cap = true, accuracy = exact>
// MASKED: func.func @attend(%[[Q:.*]]: tensor<?x?x64xf16>, %{{.*}}: !cache_k4c32_v2t32, %[[SCALE:.*]]: f32, %[[WINDOW:.*]]: i64, %[[CAP:.*]]: f32) -> (tensor<?x?x128xf32>, tensor<?x?xf32>)
// MASKED: kvq.attention %[[Q]], %{{.*}}, %{{.*}} scale %[[SCALE]] window %[[WINDOW]] cap %[[CAP]] bounds <causal = true>

// MERGE: func.func @merge(%[[PARTS:.*]]: tensor<?x?x?x128xf32>, %[[LSES:.*]]: tensor<?x?x?xf32>, %[[SINKS:.*]]: tensor<?xf32>) -> (tensor<?x?x128xbf16>, tensor<?x?xf32>)
// MERGE-NEXT: %[[O:.*]], %[[LSE:.*]] = kvq.merge %[[PARTS]], %[[LSES]] sinks %[[SINKS]]
// MERGE-NEXT: return %[[O]], %[[LSE]]

// DEQUANTIZE-K: func.func @dequantize_k(%[[PAGE:.*]]: !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>) -> tensor<64x64xbf16>
// DEQUANTIZE-K-NEXT: %[[K:.*]] = kvq.dequantize %[[PAGE]]
// DEQUANTIZE-K-NEXT: return %[[K]]

// DEQUANTIZE-V: func.func @dequantize_v(%[[PAGE:.*]]: !kvq.packed<64x128, side = <bits = 2, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.2 tok.3 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:4 ch:2">>) -> tensor<64x128xbf16>
// DEQUANTIZE-V-NEXT: %[[V:.*]] = kvq.dequantize %[[PAGE]]
// DEQUANTIZE-V-NEXT: return %[[V]]

// CONVERT-K: func.func @convert_k(%[[PAGE:.*]]: !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>) -> !kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.1 ch.2 ch.0 ch.1 ch.5 ch.3 ch.4 tok.0 tok.3 tok.4 tok.2] ch:1 tok:2">>
// CONVERT-K-SAME: kvq.kernel = "convert_k:k4c32-v2t32:vnni-mma:p64:
// CONVERT-K-NEXT: %[[K:.*]] = kvq.convert %[[PAGE]]
// CONVERT-K-NEXT: return %[[K]]

// CONVERT-V: func.func @convert_v(%[[PAGE:.*]]: !kvq.packed<64x128, side = <bits = 2, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.3 ch.4 tok.2 tok.0 tok.1 tok.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:4 tok:1">>) -> !kvq.packed<64x128, side = <bits = 2, axis = token, group = 32, map = asymmetric, scale = f16>, layout = <"[tok.2 tok.3 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:4 ch:2">>
// CONVERT-V-NEXT: %[[V:.*]] = kvq.convert %[[PAGE]]
// CONVERT-V-NEXT: return %[[V]]

// ILLEGAL: error: kernel request 'attend:k4c32' has 2 fields, not 13: write it as in attend:
// TWICE: error: the module has a function 'merge' already; rename it
