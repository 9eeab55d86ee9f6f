// RUN: kvq-tile-opt %s -split-input-file -verify-diagnostics

// program_id_c1
func.func @f() {
  // expected-error @+1 {{dimension is 3; a grid has dimensions 0, 1 and 2}}
  %x = kvq_tile.program_id 3
  return
}

// -----

// page_c1
func.func @f(%pool: !kvq_tile.ptr<i8>, %table: !kvq_tile.ptr<i64>, %i: index) {
  // expected-error @+1 {{page table holds 'i64'; it must hold i32}}
  %x = kvq_tile.page %pool, %table[%i], %i : !kvq_tile.ptr<i8>, !kvq_tile.ptr<i64>
  return
}

// -----

// load_c1
func.func @f(%p: !kvq_tile.ptr<f32>, %i: index) {
  // expected-error @+1 {{moves elements of 'bf16' through a pointer to 'f32'; convert the value with arith}}
  %x = kvq_tile.load %p[%i] : !kvq_tile.ptr<f32>, index -> tensor<64xbf16>
  return
}

// -----

// load_c2
func.func @f(%p: !kvq_tile.ptr<f32>, %i: tensor<3xindex>) {
  // expected-error @+1 {{value of type 'tensor<4x64xf32>' does not fit offsets of type 'tensor<3xindex>'; it has their shape, or their shape and one more dimension}}
  %x = kvq_tile.load %p[%i] : !kvq_tile.ptr<f32>, tensor<3xindex> -> tensor<4x64xf32>
  return
}

// -----

// load_c2
func.func @f(%p: !kvq_tile.ptr<f32>, %i: index) {
  // expected-error @+1 {{value of type 'tensor<3x64xf32>' does not fit offsets of type 'index'; it has their shape, or their shape and one more dimension}}
  %x = kvq_tile.load %p[%i] : !kvq_tile.ptr<f32>, index -> tensor<3x64xf32>
  return
}

// -----

// load_c3
func.func @f(%p: !kvq_tile.ptr<f32>, %i: tensor<3xindex>, %m: tensor<4xi1>) {
  // expected-error @+1 {{mask of type 'tensor<4xi1>' does not have the shape of the offsets, 'tensor<3xindex>'}}
  %x = kvq_tile.load %p[%i] mask %m : !kvq_tile.ptr<f32>, tensor<3xindex>, tensor<4xi1> -> tensor<3xf32>
  return
}

// -----

// store_c1
func.func @f(%p: !kvq_tile.ptr<f32>, %i: index, %v: bf16) {
  // expected-error @+1 {{moves elements of 'bf16' through a pointer to 'f32'; convert the value with arith}}
  kvq_tile.store %v, %p[%i] : bf16, !kvq_tile.ptr<f32>, index
  return
}

// -----

// store_c2
func.func @f(%p: !kvq_tile.ptr<f32>, %i: tensor<3xindex>, %v: tensor<4xf32>) {
  // expected-error @+1 {{value of type 'tensor<4xf32>' does not fit offsets of type 'tensor<3xindex>'; it has their shape, or their shape and one more dimension}}
  kvq_tile.store %v, %p[%i] : tensor<4xf32>, !kvq_tile.ptr<f32>, tensor<3xindex>
  return
}

// -----

// store_c3
func.func @f(%p: !kvq_tile.ptr<f32>, %i: index, %v: tensor<64xf32>, %m: tensor<64xi1>) {
  // expected-error @+1 {{mask of type 'tensor<64xi1>' does not have the shape of the offsets, 'index'}}
  kvq_tile.store %v, %p[%i] mask %m : tensor<64xf32>, !kvq_tile.ptr<f32>, index, tensor<64xi1>
  return
}

// -----

// prefetch_c1
func.func @f(%p: !kvq_tile.ptr<i8>) {
  // expected-error @+1 {{prefetches 0 bytes; give a positive number}}
  kvq_tile.prefetch %p, 0 : !kvq_tile.ptr<i8>
  return
}
