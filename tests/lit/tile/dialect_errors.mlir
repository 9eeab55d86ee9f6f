// RUN: kvq-tile-opt %s -split-input-file -verify-diagnostics

// ptr_c1
// expected-error @+1 {{a pointer to 'f64' is not supported; use f32, bf16, f16, i64, i32 or i8}}
func.func private @f(!kvq_tile.ptr<f64>)

// -----

// layout_c1
// expected-error @+1 {{is not a bijection: its inner part maps}}
func.func private @f() attributes {test.a = #kvq_tile.layout<"[ch.0 ch.0 tok.0] tok:4">}

// -----

// layout_c1
// expected-error @+1 {{index bit 'row.0' is not legal: write tok.0 to tok.15 or ch.0 to ch.15}}
func.func private @f() attributes {test.a = #kvq_tile.layout<"[row.0] tok:4">}

// -----

// schedule_c1
// expected-error @+1 {{tile_tokens is 24; use a multiple of 16 from 16 to 256}}
func.func private @f() attributes {test.a = #kvq_tile.schedule<tile_tokens = 24, rows = 4, vectors = 4, prefetch = 1>}

// -----

// schedule_c1
// expected-error @+1 {{rows is 0; use 1 to 16}}
func.func private @f() attributes {test.a = #kvq_tile.schedule<tile_tokens = 64, rows = 0, vectors = 4, prefetch = 1>}

// -----

// schedule_c1
// expected-error @+1 {{vectors is 17; use 1 to 16}}
func.func private @f() attributes {test.a = #kvq_tile.schedule<tile_tokens = 64, rows = 4, vectors = 17, prefetch = 1>}

// -----

// schedule_c1
// expected-error @+1 {{prefetch is 9; use 0 to 8}}
func.func private @f() attributes {test.a = #kvq_tile.schedule<tile_tokens = 64, rows = 4, vectors = 4, prefetch = 9>}

// -----

// schedule_c1
// expected-error @+1 {{warps is 3; use 1, 2 or 4}}
func.func private @f() attributes {test.a = #kvq_tile.schedule<tile_tokens = 64, rows = 4, vectors = 4, prefetch = 1, warps = 3>}

// -----

// expected-error @+1 {{blocks is 17; use 0 to 16}}
func.func private @f() attributes {test.a = #kvq_tile.schedule<tile_tokens = 64, rows = 4, vectors = 4, prefetch = 1, blocks = 17>}

// -----

// kernel_c1
// expected-error @+1 {{argument 1 of a kernel has type 'index'; use !kvq_tile.ptr<...>, i64, i32 or f32}}
func.func private @f(i64, index) attributes {kvq_tile.kernel}

// -----

// kernel_c1
// expected-error @+1 {{a kernel returns nothing; write results through a pointer argument}}
func.func private @f(i64) -> i32 attributes {kvq_tile.kernel}

// -----

// kernel_c1
// expected-error @+1 {{has 'kvq_tile.kernel', which belongs on a func.func}}
module attributes {kvq_tile.kernel} {}

// -----

// The schedule of a function is a schedule.
// expected-error @+1 {{'kvq_tile.schedule' must be a #kvq_tile.schedule}}
func.func private @f() attributes {kvq_tile.schedule = 4}

// -----

// An upper op that is left over is unknown to this driver.
func.func @f(%s: f32) {
  // expected-error @+2 {{Dialect `kvq' not found for custom op 'kvq.yield'}}
  // expected-note @+1 {{Available dialects: arith, builtin, cf, func, kvq_tile, llvm, math, memref, nvvm, scf, tensor, vector}}
  kvq.yield %s : f32
}

// -----

// lanes_c1
// expected-error @+1 {{lanes "lane=[d0.0 d0.0 - - -]" name bit d0.0 twice; name each bit once}}
func.func private @f() attributes {test.a = #kvq_tile.lanes<"lane=[d0.0 d0.0 - - -]">}

// -----

// lanes_c1: the pair is a bit like others.
// expected-error @+1 {{name bit d1.0 twice; name each bit once}}
func.func private @f() attributes {test.a = #kvq_tile.lanes<"lane=[d1.0 - - - -] pair=d1.0">}

// -----

// lanes_c1
// expected-error @+1 {{lanes "lane=[d0.0 - - -]" are not written as in lane=[d0.1 d0.2 d1.0 d1.1 -] pair=d0.0}}
func.func private @f() attributes {test.a = #kvq_tile.lanes<"lane=[d0.0 - - -]">}

// -----

// lanes_c2: 96 has five bits, 0 to 4.
func.func private @f(tensor<96xf32, #kvq_tile.lanes<"lane=[d0.0 d0.1 d0.2 d0.3 d0.4]">>)
// expected-error @+1 {{lanes "lane=[d0.1 d0.2 d0.3 d0.4 d0.5]" name bit d0.5, which the tile does not have: bit b exists where 2^(b+1) divides the extent}}
func.func private @g(tensor<96xf32, #kvq_tile.lanes<"lane=[d0.1 d0.2 d0.3 d0.4 d0.5]">>)

// -----

// lanes_c2: a dimension that is not there.
// expected-error @+1 {{lanes "lane=[d1.0 - - - -]" name bit d1.0, which the tile does not have}}
func.func private @f(tensor<64xf32, #kvq_tile.lanes<"lane=[d1.0 - - - -]">>)

// -----

// lanes_c2: the pair.
// expected-error @+1 {{name bit d0.1, which the tile does not have}}
func.func private @f(tensor<6xf16, #kvq_tile.lanes<"lane=[- - - - -] pair=d0.1">>)
