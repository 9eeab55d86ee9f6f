// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// kernel_c1
// expected-error @+1 {{has an illegal 'kvq.kernel': operation 'atend' is unknown: use one of append, quantize_k, quantize_v, attend, merge, dequantize_k, dequantize_v, convert_k, convert_v}}
func.func private @f() attributes {kvq.kernel = "atend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"}

// -----

// kernel_c1
// expected-error @+1 {{has 'kvq.kernel', which is the text of a kernel request on a func.func}}
func.func private @f() attributes {kvq.kernel}

// -----

// kernel_c1
// expected-error @+1 {{has 'kvq.kernel', which is the text of a kernel request on a func.func}}
module attributes {kvq.kernel = "attend:k4c32-v4t32:vnni:p64:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"} {
}

// -----

// kernel_c2: the function's cache has pages of 64 tokens, the request asks for 128.
// expected-error @+1 {{argument 0 is another cache than the one of "quantize_k:k4c32-v4t32:vnni:p128:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"; change the request, or give the argument type}}
func.func private @f(!kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>)
    attributes {kvq.kernel = "quantize_k:k4c32-v4t32:vnni:p128:dk64:dv64:g3:f32:rows3:lag0:win0:cap0:exact"}

// -----

// target_c2
// expected-error @+1 {{'kvq.target' is "x86-64"; use a #kvq.target, as in #kvq.target<"x86-64">}}
module attributes {kvq.target = "x86-64"} {
}
