// SPDX-License-Identifier: Apache-2.0
//
// Attention of one query over a plain cache of halves, as a tile program: what stands beside the attend kernels, out of the
// same pipeline. One program is one split of one KV head, `chunk` tokens, a multiple of 64; heads have 128 channels.
//
//   q [heads][group][128], k and v [heads][tokens][128] in f16, group at most 8
//   o [heads][splits][8][128] in f32, not divided by the sum; statistics [heads][splits][8][2]: maximum in base 2, sum

func.func @plain_f16(%q: !kvq_tile.ptr<f16>, %k: !kvq_tile.ptr<f16> {kvq_tile.multiple = 64 : i64},
                     %v: !kvq_tile.ptr<f16> {kvq_tile.multiple = 64 : i64}, %o: !kvq_tile.ptr<f32>,
                     %statistics: !kvq_tile.ptr<f32>, %tokens64: i64, %chunk64: i64, %splits64: i64, %group64: i64,
                     %scale: f32) attributes {kvq_tile.kernel} {
  %split = kvq_tile.program_id 0
  %head = kvq_tile.program_id 1
  %tokens = arith.index_cast %tokens64 : i64 to index
  %chunk = arith.index_cast %chunk64 : i64 to index
  %splits = arith.index_cast %splits64 : i64 to index
  %group = arith.index_cast %group64 : i64 to index
  %c8 = arith.constant 8 : index
  %c64 = arith.constant 64 : index
  %c128 = arith.constant 128 : index

  // Rows beyond the group are zero.
  %row = kvq_tile.iota : tensor<8xindex>
  %groups = tensor.splat %group : tensor<8xindex>
  %exists = arith.cmpi slt, %row, %groups : tensor<8xindex>
  %first_row = arith.muli %head, %group : index
  %first_rows = tensor.splat %first_row : tensor<8xindex>
  %q_row = arith.addi %row, %first_rows : tensor<8xindex>
  %c128_8 = arith.constant dense<128> : tensor<8xindex>
  %q_at = arith.muli %q_row, %c128_8 : tensor<8xindex>
  %q_half = kvq_tile.load %q[%q_at] mask %exists : !kvq_tile.ptr<f16>, tensor<8xindex>, tensor<8xi1> -> tensor<8x128xf16>
  %query = arith.extf %q_half : tensor<8x128xf16> to tensor<8x128xf32>

  %begin = arith.muli %split, %chunk : index
  %end = arith.addi %begin, %chunk : index
  %head_at = arith.muli %head, %tokens : index
  %number = kvq_tile.iota : tensor<64xindex>
  %c128_64 = arith.constant dense<128> : tensor<64xindex>
  %run = arith.muli %number, %c128_64 : tensor<64xindex>
  %scales = tensor.splat %scale : tensor<8xf32>
  %scales_64 = tensor.splat %scale : tensor<8x64xf32>
  %ones = arith.constant dense<1.0> : tensor<1x64xf32>
  %zeros = arith.constant dense<0.0> : tensor<8x64xf32>
  %zero = arith.constant dense<0.0> : tensor<8xf32>
  %max0 = arith.constant dense<-1.0e30> : tensor<8xf32>
  %sum0 = arith.constant dense<0.0> : tensor<8x1xf32>
  %out0 = arith.constant dense<0.0> : tensor<8x128xf32>
  %max, %sum, %out = scf.for %token = %begin to %end step %c64
      iter_args(%m = %max0, %s = %sum0, %acc = %out0) -> (tensor<8xf32>, tensor<8x1xf32>, tensor<8x128xf32>) {
    %at_token = arith.addi %head_at, %token : index
    %at = arith.muli %at_token, %c128 : index
    %ats = tensor.splat %at : tensor<64xindex>
    %rows = arith.addi %ats, %run : tensor<64xindex>
    %k_half = kvq_tile.load %k[%rows] : !kvq_tile.ptr<f16>, tensor<64xindex> -> tensor<64x128xf16>
    %keys = arith.extf %k_half : tensor<64x128xf16> to tensor<64x128xf32>
    %scores = kvq_tile.dot %keys, %query acc %zeros contract 1
        : tensor<64x128xf32>, tensor<8x128xf32> -> tensor<8x64xf32>

    // As in attend: scores are multiplied where they become weights, and weights are rounded before they are added up.
    %largest = kvq_tile.reduce max %scores dim 1 : tensor<8x64xf32> -> tensor<8xf32>
    %next = arith.maxnumf %m, %largest : tensor<8xf32>
    %less = arith.subf %m, %next : tensor<8xf32>
    %scaled_less = arith.mulf %less, %scales : tensor<8xf32>
    %shrink = math.exp2 %scaled_less : tensor<8xf32>
    %scaled_max = arith.mulf %next, %scales : tensor<8xf32>
    %offset = arith.subf %zero, %scaled_max : tensor<8xf32>
    %offsets = kvq_tile.broadcast %offset dims [0] : tensor<8xf32> -> tensor<8x64xf32>
    %exponent = math.fma %scores, %scales_64, %offsets : tensor<8x64xf32>
    %exact = math.exp2 %exponent : tensor<8x64xf32>
    %weight_half = arith.truncf %exact : tensor<8x64xf32> to tensor<8x64xf16>
    %weights = arith.extf %weight_half : tensor<8x64xf16> to tensor<8x64xf32>
    %shrink_1 = kvq_tile.broadcast %shrink dims [0] : tensor<8xf32> -> tensor<8x1xf32>
    %less_sum = arith.mulf %s, %shrink_1 : tensor<8x1xf32>
    %next_sum = kvq_tile.dot %ones, %weights acc %less_sum contract 1
        : tensor<1x64xf32>, tensor<8x64xf32> -> tensor<8x1xf32>
    %shrink_128 = kvq_tile.broadcast %shrink dims [0] : tensor<8xf32> -> tensor<8x128xf32>
    %less_out = arith.mulf %acc, %shrink_128 : tensor<8x128xf32>

    %v_half = kvq_tile.load %v[%rows] : !kvq_tile.ptr<f16>, tensor<64xindex> -> tensor<64x128xf16>
    %values = arith.extf %v_half : tensor<64x128xf16> to tensor<64x128xf32>
    %next_out = kvq_tile.dot %values, %weights acc %less_out contract 0
        : tensor<64x128xf32>, tensor<8x64xf32> -> tensor<8x128xf32>
    scf.yield %next, %next_sum, %next_out : tensor<8xf32>, tensor<8x1xf32>, tensor<8x128xf32>
  }

  %place = arith.muli %head, %splits : index
  %part = arith.addi %place, %split : index
  %part_row = arith.muli %part, %c8 : index
  %part_rows = tensor.splat %part_row : tensor<8xindex>
  %o_row = arith.addi %part_rows, %row : tensor<8xindex>
  %o_at = arith.muli %o_row, %c128_8 : tensor<8xindex>
  kvq_tile.store %out, %o[%o_at] : tensor<8x128xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  %c2_8 = arith.constant dense<2> : tensor<8xindex>
  %c1_8 = arith.constant dense<1> : tensor<8xindex>
  %max_at = arith.muli %o_row, %c2_8 : tensor<8xindex>
  %sum_at = arith.addi %max_at, %c1_8 : tensor<8xindex>
  %max_scaled = arith.mulf %max, %scales : tensor<8xf32>
  %sum_row = kvq_tile.reduce add %sum dim 1 : tensor<8x1xf32> -> tensor<8xf32>
  kvq_tile.store %max_scaled, %statistics[%max_at] : tensor<8xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  kvq_tile.store %sum_row, %statistics[%sum_at] : tensor<8xf32>, !kvq_tile.ptr<f32>, tensor<8xindex>
  return
}
