// SPDX-License-Identifier: Apache-2.0
//
// Handlers out of functions on single values. `binary<uint32_t, [](auto a, auto b) { return a + b; }>` is the handler of
// add.u32: a loop over 32 lanes that the compiler vectorizes, and a blend where some lanes are inactive.
#pragma once

#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/exec/warp.h"

namespace kvq::ptxsim {

template <typename D, typename A, auto function> void unary(Warp &warp, const Op &op, uint32_t mask) {
  D *d = warp.at<D>(op.results[0]);
  const A *a = warp.at<A>(op.sources[0]);
  if (mask == kFull) {
    for (int lane = 0; lane < kLanes; ++lane)
      d[lane] = function(a[lane]);
    return;
  }
  for (int lane = 0; lane < kLanes; ++lane)
    d[lane] = mask >> lane & 1 ? D(function(a[lane])) : d[lane];
}

template <typename D, typename A, typename B, auto function> void binary(Warp &warp, const Op &op, uint32_t mask) {
  D *d = warp.at<D>(op.results[0]);
  const A *a = warp.at<A>(op.sources[0]);
  const B *b = warp.at<B>(op.sources[1]);
  if (mask == kFull) {
    for (int lane = 0; lane < kLanes; ++lane)
      d[lane] = function(a[lane], b[lane]);
    return;
  }
  for (int lane = 0; lane < kLanes; ++lane)
    d[lane] = mask >> lane & 1 ? D(function(a[lane], b[lane])) : d[lane];
}

template <typename D, typename A, typename B, typename C, auto function>
void ternary(Warp &warp, const Op &op, uint32_t mask) {
  D *d = warp.at<D>(op.results[0]);
  const A *a = warp.at<A>(op.sources[0]);
  const B *b = warp.at<B>(op.sources[1]);
  const C *c = warp.at<C>(op.sources[2]);
  if (mask == kFull) {
    for (int lane = 0; lane < kLanes; ++lane)
      d[lane] = function(a[lane], b[lane], c[lane]);
    return;
  }
  for (int lane = 0; lane < kLanes; ++lane)
    d[lane] = mask >> lane & 1 ? D(function(a[lane], b[lane], c[lane])) : d[lane];
}

} // namespace kvq::ptxsim
