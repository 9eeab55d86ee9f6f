// RUN: kvq-opt %s -split-input-file -verify-diagnostics

// packed_c1
// expected-error @+1 {{a layout of 64 tokens x 64 channels does not make up the packed matrix; give it 64 channels and a multiple of 64 tokens, or change the layout}}
func.func private @f(!kvq.packed<96x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>)

// -----

// packed_c1
// expected-error @+1 {{a layout of 64 tokens x 64 channels does not make up the packed matrix}}
func.func private @f(!kvq.packed<?x80, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>)

// -----

// packed_c1
// expected-error @+1 {{a packed matrix has 2 dimensions, tokens x channels, not 3}}
func.func private @f(!kvq.packed<2x64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>)

// -----

// packed_c2
// expected-error @+1 {{group 128 of 4c128 does not divide the page's 64 tokens; use a group that does}}
func.func private @f(!kvq.packed<64x64, side = <bits = 4, axis = channel, group = 128, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>)

// -----

// packed_c2
// expected-error @+1 {{group 48 of 4t48 does not divide the page's 64 channels; use a group that does}}
func.func private @f(!kvq.packed<64x64, side = <bits = 4, axis = token, group = 48, map = asymmetric, scale = f16>, layout = <"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>)

// -----

// packed_c3
// expected-error @+1 {{have 3 bits in all, not the 4 of a code: use others}}
func.func private @f(!kvq.packed<64x64, side = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, layout = <"2:[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:4 tok:1 + 1:[ch.2 ch.3 tok.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:2 ch:4 tok:1">>)

// -----

// cache_c2
// expected-error @+1 {{width 3 of 'k3c32-v4t32' is not legal in the profile kivi: use 2, 4 or 8 bits, or the profile vnni}}
func.func private @f(!kvq.cache<format = <k = <bits = 3, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = kivi>)

// -----

// cache_c2
// expected-error @+1 {{width 3 of 'k4c32-v3t32' is not legal in the profile mma: use 2, 4 or 8 bits, or the profile vnni}}
func.func private @f(!kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 3, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f16, rows = 8, lag = false, accuracy = exact>, profile = mma>)

// -----

// cache_c1: the commit group of 128 does not fit a page of 64.
// expected-error @+1 {{page size 64 is not legal for k4c128-v4t32: use one of 128, 256 tokens}}
func.func private @f(!kvq.cache<format = <k = <bits = 4, axis = channel, group = 128, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 64, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>)

// -----

// cache_c1
// expected-error @+1 {{V's head size 80 is not a multiple of its per-token group of 32 channels: use a group that divides it}}
func.func private @f(!kvq.cache<format = <k = <bits = 4, axis = channel, group = 32, map = asymmetric, scale = f16>, v = <bits = 4, axis = token, group = 32, map = asymmetric, scale = f16>>, problem = <page_tokens = 64, dk = 64, dv = 80, ratio = 3, type = f32, rows = 3, lag = false, accuracy = exact>, profile = vnni>)
