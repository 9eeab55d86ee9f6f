// SPDX-License-Identifier: Apache-2.0
//
// Lanes of a warp exchange values (PTX ISA, "Data Movement and Conversion: shfl.sync, elect.sync", "Parallel
// Synchronization and Communication: vote.sync, match.sync, redux.sync, bar.warp.sync"). The executor has seen to it
// that all lanes of the member mask are in `mask`.
#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/memory/shared_memory.h"

#include <algorithm>

namespace kvq::ptxsim {

namespace {

enum ShuffleMode { Up, Down, Bfly, Idx };

// The lane that is read, and whether it is in range; ISA, "shfl.sync", the pseudocode.
template <int mode> int shuffleSource(int lane, uint32_t b, uint32_t c, bool &inRange) {
  const int distance = int(b & 31), segments = int(c >> 8 & 31), clamp = int(c & 31);
  const int most = (lane & segments) | (clamp & ~segments), least = lane & segments;
  int from = lane;
  if constexpr (mode == Up) {
    from = lane - distance;
    inRange = from >= most;
  } else if constexpr (mode == Down) {
    from = lane + distance;
    inRange = from <= most;
  } else if constexpr (mode == Bfly) {
    from = lane ^ distance;
    inRange = from <= most;
  } else {
    from = least | (distance & ~segments);
    inRange = from <= most;
  }
  return inRange ? from : lane;
}

template <int mode> void shuffle(Warp &warp, const Op &op, uint32_t mask) {
  uint32_t values[kLanes];
  std::copy_n(warp.at<uint32_t>(op.sources[0]), kLanes, values);
  const uint32_t *b = warp.at<uint32_t>(op.sources[1]), *c = warp.at<uint32_t>(op.sources[2]);
  uint32_t *d = warp.at<uint32_t>(op.results[0]);
  uint32_t reached = 0, inRange = 0, strangers = 0;
  forLanes(mask, [&](int lane) {
    bool within = false;
    const int from = shuffleSource<mode>(lane, b[lane], c[lane], within);
    d[lane] = values[from];
    inRange |= uint32_t(within) << lane;
    strangers |= uint32_t(!(mask >> from & 1)) << lane;
    reached |= 1u << from;
  });
  if (strangers)
    report(warp, op, Check::Mask, strangers,
           "reads from lane " + std::to_string(std::countr_zero(reached & ~mask)) + ", which does not take part");
  uint32_t &predicate = warp.predicate(op.results[1]);
  predicate = (predicate & ~mask) | (inRange & mask);
}

enum VoteMode { All, Any, Uni };

template <int mode> void vote(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t yes = warp.predicate(op.sources[0]) & mask;
  const bool holds = mode == All ? yes == mask : mode == Any ? yes != 0 : yes == 0 || yes == mask;
  uint32_t &to = warp.predicate(op.results[0]);
  to = holds ? to | mask : to & ~mask;
}

void ballot(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t yes = warp.predicate(op.sources[0]) & mask;
  uint32_t *d = warp.at<uint32_t>(op.results[0]);
  forLanes(mask, [&](int lane) { d[lane] = yes; });
}

template <typename T> void matchAny(Warp &warp, const Op &op, uint32_t mask) {
  const T *a = warp.at<T>(op.sources[0]);
  uint32_t equal[kLanes] = {};
  forLanes(mask, [&](int lane) {
    forLanes(mask, [&](int other) { equal[lane] |= uint32_t(a[other] == a[lane]) << other; });
  });
  uint32_t *d = warp.at<uint32_t>(op.results[0]);
  forLanes(mask, [&](int lane) { d[lane] = equal[lane]; });
}

template <typename T> void matchAll(Warp &warp, const Op &op, uint32_t mask) {
  const T *a = warp.at<T>(op.sources[0]);
  const T first = a[std::countr_zero(mask)];
  bool same = true;
  forLanes(mask, [&](int lane) { same &= a[lane] == first; });
  uint32_t *d = warp.at<uint32_t>(op.results[0]);
  forLanes(mask, [&](int lane) { d[lane] = same ? mask : 0; });
  uint32_t &predicate = warp.predicate(op.results[1]);
  predicate = same ? predicate | mask : predicate & ~mask;
}

template <typename T, auto combine> void reduce(Warp &warp, const Op &op, uint32_t mask) {
  const T *a = warp.at<T>(op.sources[0]);
  T total = a[std::countr_zero(mask)];
  forLanes(mask & (mask - 1), [&](int lane) { total = combine(total, a[lane]); });
  T *d = warp.at<T>(op.results[0]);
  forLanes(mask, [&](int lane) { d[lane] = total; });
}

// Which lane is elected is left open by the ISA; the hardware takes the lowest one.
void elect(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t leader = uint32_t(std::countr_zero(mask));
  uint32_t *d = warp.at<uint32_t>(op.results[0]);
  forLanes(mask, [&](int lane) { d[lane] = leader; });
  uint32_t &predicate = warp.predicate(op.results[1]);
  predicate = (predicate & ~mask) | 1u << leader;
}

void warpSync(Warp &warp, const Op &, uint32_t) { warp.block->shared->warpSync(warp.id); }

constexpr auto kAdd = [](auto a, auto b) { return decltype(a)(a + b); };
constexpr auto kMin = [](auto a, auto b) { return std::min(a, b); };
constexpr auto kMax = [](auto a, auto b) { return std::max(a, b); };
constexpr auto kAnd = [](uint32_t a, uint32_t b) { return a & b; };
constexpr auto kOr = [](uint32_t a, uint32_t b) { return a | b; };
constexpr auto kXor = [](uint32_t a, uint32_t b) { return a ^ b; };

void addReductions(Table &table) {
  auto add = [&](const char *name, const char *operands, Handler handler) {
    table.add(name, operands, OpClass::Warp, handler).flow(Flow::Collective, 1);
  };
  add("redux.sync.add.u32", "u32 = u32 b32", reduce<uint32_t, kAdd>);
  add("redux.sync.add.s32", "s32 = s32 b32", reduce<uint32_t, kAdd>);
  add("redux.sync.min.u32", "u32 = u32 b32", reduce<uint32_t, kMin>);
  add("redux.sync.min.s32", "s32 = s32 b32", reduce<int32_t, kMin>);
  add("redux.sync.max.u32", "u32 = u32 b32", reduce<uint32_t, kMax>);
  add("redux.sync.max.s32", "s32 = s32 b32", reduce<int32_t, kMax>);
  add("redux.sync.and.b32", "b32 = b32 b32", reduce<uint32_t, kAnd>);
  add("redux.sync.or.b32", "b32 = b32 b32", reduce<uint32_t, kOr>);
  add("redux.sync.xor.b32", "b32 = b32 b32", reduce<uint32_t, kXor>);
}

} // namespace

void addWarp(Table &table) {
  auto shfl = [&](const char *name, Handler handler) {
    table.add(name, "b32|pred = b32 b32 b32 b32", OpClass::Warp, handler).flow(Flow::Collective, 3);
  };
  shfl("shfl.sync.up.b32", shuffle<Up>);
  shfl("shfl.sync.down.b32", shuffle<Down>);
  shfl("shfl.sync.bfly.b32", shuffle<Bfly>);
  shfl("shfl.sync.idx.b32", shuffle<Idx>);
  table.add("vote.sync.all.pred", "pred = pred b32", OpClass::Warp, vote<All>).flow(Flow::Collective, 1);
  table.add("vote.sync.any.pred", "pred = pred b32", OpClass::Warp, vote<Any>).flow(Flow::Collective, 1);
  table.add("vote.sync.uni.pred", "pred = pred b32", OpClass::Warp, vote<Uni>).flow(Flow::Collective, 1);
  table.add("vote.sync.ballot.b32", "b32 = pred b32", OpClass::Warp, ballot).flow(Flow::Collective, 1);
  table.add("match.any.sync.b32", "b32 = b32 b32", OpClass::Warp, matchAny<uint32_t>).flow(Flow::Collective, 1);
  table.add("match.any.sync.b64", "b32 = b64 b32", OpClass::Warp, matchAny<uint64_t>).flow(Flow::Collective, 1);
  table.add("match.all.sync.b32", "b32|pred = b32 b32", OpClass::Warp, matchAll<uint32_t>).flow(Flow::Collective, 1);
  table.add("match.all.sync.b64", "b32|pred = b64 b32", OpClass::Warp, matchAll<uint64_t>).flow(Flow::Collective, 1);
  addReductions(table);
  table.add("elect.sync", "b32|pred = b32", OpClass::Warp, elect).flow(Flow::Collective, 0);
  table.add("bar.warp.sync", "= b32", OpClass::Barrier, warpSync).flow(Flow::WarpSync, 0);
}

} // namespace kvq::ptxsim
