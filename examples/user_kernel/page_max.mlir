// SPDX-License-Identifier: Apache-2.0
//
// The largest score of a query in each page, read from packed K (k4c32, 64 tokens a page, head size 64): what a method
// that skips unimportant pages asks for first. One program works on one page of one KV head.
//
//   out[page, head] = max over the page's committed tokens t of sum_c q[head, c] * K'[t, c]
//
// A K section of 64 x 64 codes of 4 bits takes 2048 bytes; its scales [2 groups][64 channels] in f16 take 256 and
// begin there, its minima follow at 2304; where the pages lie: page_c4 (docs/format-spec.md section 4).

func.func @page_max(%q: !kvq_tile.ptr<f32>, %pages: !kvq_tile.ptr<i8>, %table: !kvq_tile.ptr<i32>,
                    %block_stride: i64, %head_stride: i64, %heads: i64, %committed: i64, %out: !kvq_tile.ptr<f32>)
    attributes {kvq_tile.kernel} {
  %c0 = arith.constant 0 : index
  %c64 = arith.constant 64 : index
  %page = kvq_tile.program_id 0
  %head = kvq_tile.program_id 1

  // Where this head's page lies.
  %stride = arith.index_cast %block_stride : i64 to index
  %head_step = arith.index_cast %head_stride : i64 to index
  %block = kvq_tile.page %pages, %table[%page], %stride : !kvq_tile.ptr<i8>, !kvq_tile.ptr<i32>
  %head_offset = arith.muli %head, %head_step : index
  %base = kvq_tile.advance %block, %head_offset : !kvq_tile.ptr<i8> -> !kvq_tile.ptr<i8>

  // K of the page: codes, scales, minima.
  %codes = kvq_tile.codes %base[%c0, %c0] : !kvq_tile.ptr<i8>
      -> tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>
  %c2048 = arith.constant 2048 : index
  %c2304 = arith.constant 2304 : index
  %scale_at = kvq_tile.advance %base, %c2048 : !kvq_tile.ptr<i8> -> !kvq_tile.ptr<f16>
  %min_at = kvq_tile.advance %base, %c2304 : !kvq_tile.ptr<i8> -> !kvq_tile.ptr<f16>
  %groups = kvq_tile.iota : tensor<2xindex>
  %sixtyfour = arith.constant dense<64> : tensor<2xindex>
  %rows = arith.muli %groups, %sixtyfour : tensor<2xindex>
  %scale_h = kvq_tile.load %scale_at[%rows] : !kvq_tile.ptr<f16>, tensor<2xindex> -> tensor<2x64xf16>
  %min_h = kvq_tile.load %min_at[%rows] : !kvq_tile.ptr<f16>, tensor<2xindex> -> tensor<2x64xf16>
  %scale = arith.extf %scale_h : tensor<2x64xf16> to tensor<2x64xf32>
  %min = arith.extf %min_h : tensor<2x64xf16> to tensor<2x64xf32>
  %k = kvq_tile.dequantize %codes, %scale, %min axis "channel"
      : tensor<64x64xi4, #kvq_tile.layout<"[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1">>,
        tensor<2x64xf32> -> tensor<64x64xf32>

  // Scores of the 64 tokens: the compiler folds the scales into q and multiplies the codes as they are.
  %q_at = arith.muli %head, %c64 : index
  %q_offset = tensor.splat %q_at : tensor<1xindex>
  %q_row = kvq_tile.load %q[%q_offset] : !kvq_tile.ptr<f32>, tensor<1xindex> -> tensor<1x64xf32>
  %zero = arith.constant dense<0.0> : tensor<1x64xf32>
  %scores = kvq_tile.dot %k, %q_row acc %zero contract 1
      : tensor<64x64xf32>, tensor<1x64xf32> -> tensor<1x64xf32>

  // The last page may be filled in part.
  %first = arith.muli %page, %c64 : index
  %end = arith.index_cast %committed : i64 to index
  %left = arith.subi %end, %first : index
  %number = kvq_tile.iota : tensor<64xindex>
  %limit = tensor.splat %left : tensor<64xindex>
  %inside = arith.cmpi slt, %number, %limit : tensor<64xindex>
  %inside_row = kvq_tile.broadcast %inside dims [1] : tensor<64xi1> -> tensor<1x64xi1>
  %least = arith.constant dense<0xFF800000> : tensor<1x64xf32>
  %masked = arith.select %inside_row, %scores, %least : tensor<1x64xi1>, tensor<1x64xf32>
  %row_max = kvq_tile.reduce max %masked dim 1 : tensor<1x64xf32> -> tensor<1xf32>

  %n = arith.index_cast %heads : i64 to index
  %out_row = arith.muli %page, %n : index
  %out_at = arith.addi %out_row, %head : index
  kvq_tile.store %row_max, %out[%out_at] : tensor<1xf32>, !kvq_tile.ptr<f32>, index
  return
}
