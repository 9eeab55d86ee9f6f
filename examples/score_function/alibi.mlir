// SPDX-License-Identifier: Apache-2.0
//
// ALiBi: a key loses 2^-(head + 1) for every token that it stands before the query.

func.func @alibi(%score: f32, %batch: index, %head: index, %query: index, %key: index) -> f32 {
  %distance = arith.subi %key, %query : index
  %number = arith.index_cast %distance : index to i32
  %tokens = arith.sitofp %number : i32 to f32
  %one = arith.constant 1 : index
  %next = arith.addi %head, %one : index
  %h = arith.index_cast %next : index to i32
  %h_float = arith.sitofp %h : i32 to f32
  %zero = arith.constant 0.0 : f32
  %power = arith.subf %zero, %h_float : f32
  %slope = math.exp2 %power : f32
  %bias = arith.mulf %tokens, %slope : f32
  %biased = arith.addf %score, %bias : f32
  return %biased : f32
}
