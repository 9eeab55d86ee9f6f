// SPDX-License-Identifier: Apache-2.0
//
// Handlers out of functions on single values. `binary<uint32_t, uint32_t, uint32_t, [](auto a, auto b) { return a + b;
// }>` is the handler of add.u32: a loop over 32 lanes that the compiler vectorizes, and a blend where some lanes are
// inactive.
#pragma once

#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/isa/inline.h"

namespace kvq::ptxsim {

// In front of a loop over lanes. A result may be a source (add %r1, %r1, 1), which is harmless because lane i reads
// only lane i, but looks like a dependence to the test for overlap that the compiler would place before the vector
// loop.
#if defined(__clang__)
#define KVQ_LANES _Pragma("clang loop vectorize(assume_safety) interleave(disable)")
#else
#define KVQ_LANES _Pragma("GCC ivdep")
#endif

// Bit i in lane i: without a shift by the lane, which SSE2 has no vector instruction for.
struct LaneBits {
  uint32_t bit[kLanes];
  constexpr LaneBits() : bit() {
    for (int lane = 0; lane < kLanes; ++lane)
      bit[lane] = 1u << lane;
  }
};
alignas(64) inline constexpr LaneBits kLaneBits;

// d[lane] = body(lane) for the lanes of mask. The body runs for the others too and must not mind what it reads there.
template <typename D, typename Body> KVQ_INLINE void writeLanes(D *d, uint32_t mask, Body body) {
  if (mask == kFull) {
    KVQ_LANES
    for (int lane = 0; lane < kLanes; ++lane)
      d[lane] = D(body(lane));
    return;
  }
  KVQ_LANES
  for (int lane = 0; lane < kLanes; ++lane) {
    const D value = D(body(lane));
    const D old = d[lane];
    d[lane] = kLaneBits.bit[lane] & mask ? value : old;
  }
}

// The same for functions that are slow or no vectors: only the lanes of mask are computed.
template <typename D, typename Body> KVQ_INLINE void writeEachLane(D *d, uint32_t mask, Body body) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    d[lane] = D(body(lane));
  }
}

// The mask of the lanes where test(lane) holds.
template <typename Test> KVQ_INLINE uint32_t lanesWhere(Test test) {
  uint32_t bits = 0;
  KVQ_LANES
  for (int lane = 0; lane < kLanes; ++lane)
    bits |= test(lane) ? kLaneBits.bit[lane] : 0;
  return bits;
}

inline void writePredicate(Warp &warp, Slot slot, uint32_t mask, uint32_t value) {
  uint32_t &predicate = warp.predicate(slot);
  predicate = (predicate & ~mask) | (value & mask);
}

// Whether all lanes hold the same value: shift amounts and selectors mostly do, and then one scalar controls a vector
// loop.
template <typename T> inline bool uniform(const T *values) {
  T differing = 0;
  KVQ_LANES
  for (int lane = 0; lane < kLanes; ++lane)
    differing |= values[lane] ^ values[0];
  return differing == 0;
}

template <typename D, typename A, auto function> void unary(Warp &warp, const Op &op, uint32_t mask) {
  const A *a = warp.at<A>(op.sources[0]);
  writeLanes(warp.at<D>(op.results[0]), mask, [=](int lane) KVQ_INLINE_LAMBDA { return function(a[lane]); });
}

template <typename D, typename A, typename B, auto function> void binary(Warp &warp, const Op &op, uint32_t mask) {
  const A *a = warp.at<A>(op.sources[0]);
  const B *b = warp.at<B>(op.sources[1]);
  writeLanes(warp.at<D>(op.results[0]), mask, [=](int lane) KVQ_INLINE_LAMBDA { return function(a[lane], b[lane]); });
}

template <typename D, typename A, typename B, typename C, auto function>
void ternary(Warp &warp, const Op &op, uint32_t mask) {
  const A *a = warp.at<A>(op.sources[0]);
  const B *b = warp.at<B>(op.sources[1]);
  const C *c = warp.at<C>(op.sources[2]);
  writeLanes(warp.at<D>(op.results[0]), mask,
             [=](int lane) KVQ_INLINE_LAMBDA { return function(a[lane], b[lane], c[lane]); });
}

// unary and binary for functions that are slow or no vectors.
template <typename D, typename A, auto function> void unaryEach(Warp &warp, const Op &op, uint32_t mask) {
  const A *a = warp.at<A>(op.sources[0]);
  writeEachLane(warp.at<D>(op.results[0]), mask, [=](int lane) KVQ_INLINE_LAMBDA { return function(a[lane]); });
}

template <typename D, typename A, typename B, auto function> void binaryEach(Warp &warp, const Op &op, uint32_t mask) {
  const A *a = warp.at<A>(op.sources[0]);
  const B *b = warp.at<B>(op.sources[1]);
  writeEachLane(warp.at<D>(op.results[0]), mask,
                [=](int lane) KVQ_INLINE_LAMBDA { return function(a[lane], b[lane]); });
}

} // namespace kvq::ptxsim
