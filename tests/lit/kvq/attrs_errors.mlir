// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// side_c1
// expected-error @+1 {{width '5' of '5c32' is not legal: use 2, 3, 4 or 8 bits}}
func.func private @f() attributes {test.a = #kvq.side<bits = 5, axis = channel, group = 32, map = asymmetric, scale = f16>}

// -----

// side_c1
// expected-error @+1 {{group '48' of '4c48' is not legal: a per-channel group is 32, 64, 128 or 256 tokens}}
func.func private @f() attributes {test.a = #kvq.side<bits = 4, axis = channel, group = 48, map = asymmetric, scale = f16>}

// -----

// side_c1
// expected-error @+1 {{group '24' of '4t24' is not legal: a per-token group is h or a multiple of 16 channels, at most 256}}
func.func private @f() attributes {test.a = #kvq.side<bits = 4, axis = token, group = 24, map = asymmetric, scale = f16>}

// -----

// side_c1
// expected-error @+1 {{bits is 4 and group is -1; neither is negative in a legal format}}
func.func private @f() attributes {test.a = #kvq.side<bits = 4, axis = token, group = -1, map = asymmetric, scale = f16>}

// -----

// side_c1
// expected-error @+1 {{bits is -4 and group is 32; neither is negative in a legal format}}
func.func private @f() attributes {test.a = #kvq.side<bits = -4, axis = token, group = 32, map = asymmetric, scale = f16>}

// -----

// side_c1
// expected-error @+2 {{expected ::mlir::kvq::CodeMap to be one of: asymmetric}}
// expected-error @+1 {{failed to parse Kvq_SideAttr parameter 'map'}}
func.func private @f() attributes {test.a = #kvq.side<bits = 4, axis = token, group = 32, map = ternary, scale = f16>}

// -----

// problem_c1
// expected-error @+1 {{page_tokens is 48; use a multiple of 32 from 32 to 256}}
func.func private @f() attributes {test.a = #kvq.problem<page_tokens = 48, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>}

// -----

// problem_c2
// expected-error @+1 {{dv is 72; use a multiple of 16 from 16 to 256}}
func.func private @f() attributes {test.a = #kvq.problem<page_tokens = 64, dk = 64, dv = 72, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>}

// -----

// problem_c3
// expected-error @+1 {{ratio is 0; use 1 to 64}}
func.func private @f() attributes {test.a = #kvq.problem<page_tokens = 64, dk = 64, dv = 64, ratio = 0, type = f32, rows = 3, lag = false, accuracy = exact>}

// -----

// problem_c3
// expected-error @+1 {{rows is 65; use 1 to 64}}
func.func private @f() attributes {test.a = #kvq.problem<page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 65, lag = false, accuracy = exact>}

// -----

// problem_c4
// expected-error @+1 {{type is 'f64'; use f32, bf16 or f16}}
func.func private @f() attributes {test.a = #kvq.problem<page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f64, rows = 3, lag = false, accuracy = exact>}

// -----

// target_c1
// expected-error @+1 {{target "x86 64" is not the name of a target; write one like "x86-64-v4" or "nvptx:sm_80"}}
func.func private @f() attributes {test.a = #kvq.target<"x86 64">}
func.func private @gpu() attributes {test.a = #kvq.target<"nvptx:sm_80">}
func.func private @spelled_out() attributes {test.a = #kvq.target<"x86-64-v4@host">}

// -----

// bounds_c1
// expected-error @+1 {{left is -1; give 0 or more tokens, or leave it out}}
func.func private @f() attributes {test.a = #kvq.bounds<causal = true, left = -1>}

// -----

// bounds_c2
// expected-error @+1 {{right is 4 beside causal, which already is right = 0; leave one of them out}}
func.func private @f() attributes {test.a = #kvq.bounds<causal = true, right = 4>}

// -----

// bounds_c3
// expected-error @+1 {{keep_first is 4 without left, so that nothing is cut off; add left}}
func.func private @f() attributes {test.a = #kvq.bounds<causal = true, keep_first = 4>}
