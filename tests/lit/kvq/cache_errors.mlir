// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// append_c1
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%k: tensor<?x3x80xf32>, %v: tensor<?x3x64xf32>, %cache: !kvq_k4v4) {
  // expected-error @+1 {{k of type 'tensor<?x3x80xf32>' and v of type 'tensor<?x3x64xf32>' do not fit the cache; use [tokens, KV heads, 64] and [tokens, KV heads, 64] of 'f32'}}
  %bad = kvq.append %k, %v to %cache : tensor<?x3x80xf32>, tensor<?x3x64xf32>, !kvq_k4v4 -> tensor<?xi32>
  return
}

// -----

// append_c1
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%k: tensor<?x3x64xbf16>, %v: tensor<?x3x64xbf16>, %cache: !kvq_k4v4) {
  // expected-error @+1 {{do not fit the cache; use [tokens, KV heads, 64] and [tokens, KV heads, 64] of 'f32'}}
  %bad = kvq.append %k, %v to %cache : tensor<?x3x64xbf16>, tensor<?x3x64xbf16>, !kvq_k4v4 -> tensor<?xi32>
  return
}

// -----

// append_c2
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%k: tensor<8x3x64xf32>, %v: tensor<8x3x64xf32>, %cache: !kvq_k4v4) {
  // expected-error @+1 {{bad of type 'tensor<3xi32>' does not count by token; use one i32 for each token of 'tensor<8x3x64xf32>'}}
  %bad = kvq.append %k, %v to %cache : tensor<8x3x64xf32>, tensor<8x3x64xf32>, !kvq_k4v4 -> tensor<3xi32>
  return
}

// -----

// read_c1
!kvq_k4v4 = !kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>
func.func @f(%cache: !kvq_k4v4) {
  // expected-error @+1 {{result has type 'tensor<?x?x64xf32>'; use f32 of shape [queries, tokens, KV heads, 64]}}
  %k, %v = kvq.read %cache : !kvq_k4v4 -> tensor<?x?x64xf32>, tensor<?x?x64xf32>
  return
}
