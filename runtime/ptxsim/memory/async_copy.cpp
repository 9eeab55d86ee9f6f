// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/memory/async_copy.h"
#include "runtime/ptxsim/memory/shared_memory.h"

#include <cstring>

namespace kvq::ptxsim {

namespace {

void deliver(SharedMemory &shared, AsyncCopy &copy, uint32_t lanes) {
  forLanes(lanes & ~copy.delivered, [&](int lane) {
    uint8_t *to = shared.data() + copy.to[lane];
    std::memcpy(to, copy.from[lane], copy.fromBytes[lane]);
    std::memset(to + copy.fromBytes[lane], 0, copy.bytes - copy.fromBytes[lane]);
  });
  copy.delivered |= lanes;
}

// For the race check: this warp writes the bytes now. Whoever touched them meanwhile was found in flight.
void markWrite(Warp &warp, const AsyncCopy &copy, uint32_t lanes) {
  SharedMemory &shared = *warp.block->shared;
  if (shared.checksRaces())
    shared.lanes(warp.id, AccessKind::Write, lanes, copy.to, copy.bytes);
}

void complete(Warp &warp, AsyncCopy &copy, uint32_t lanes) {
  SharedMemory &shared = *warp.block->shared;
  deliver(shared, copy, lanes);
  forLanes(lanes, [&](int lane) { shared.endCopy(copy.to[lane], copy.bytes); });
  copy.lanes &= ~lanes;
}

// Completes copies of the lanes where isDone(copy, lane).
template <typename IsDone>
void completeWhere(Warp &warp, std::vector<AsyncCopy> &copies, uint32_t lanes, IsDone isDone) {
  bool finished = false;
  for (AsyncCopy &copy : copies) {
    uint32_t done = 0;
    forLanes(copy.lanes & lanes, [&](int lane) { done |= uint32_t(isDone(copy, lane)) << lane; });
    if (const uint32_t written = done & ~copy.arrived)
      markWrite(warp, copy, written);
    if (done)
      complete(warp, copy, done);
    finished |= copy.lanes == 0;
  }
  if (finished)
    std::erase_if(copies, [](const AsyncCopy &copy) { return copy.lanes == 0; });
}

} // namespace

void WarpAsync::reset() {
  copies.clear();
  std::memset(group, 0, sizeof group);
}

void WarpAsync::issue(Warp &warp, const AsyncCopy &copy) {
  SharedMemory &shared = *warp.block->shared;
  const Options &options = warp.worker->launch->options;
  forLanes(copy.lanes, [&](int lane) { shared.beginCopy(copy.to[lane], copy.bytes); });
  for (uint32_t rest = copy.lanes; rest;) { // lanes may be at different groups
    const uint32_t number = group[std::countr_zero(rest)];
    AsyncCopy part = copy;
    part.lanes = 0;
    forLanes(rest, [&](int lane) { part.lanes |= uint32_t(group[lane] == number) << lane; });
    part.group = number;
    part.serial = ++serial;
    rest &= ~part.lanes;
    if (options.cpAsync == CpAsyncMode::Earliest ||
        (options.cpAsync == CpAsyncMode::Random && (warp.worker->random.next() & 1)))
      deliver(shared, part, part.lanes);
    copies.push_back(part);
  }
}

void WarpAsync::commit(uint32_t lanes) {
  forLanes(lanes, [&](int lane) { ++group[lane]; });
}

void WarpAsync::waitGroups(Warp &warp, uint32_t lanes, uint32_t left) {
  completeWhere(warp, copies, lanes,
                [&](const AsyncCopy &copy, int lane) { return uint64_t(copy.group) + left < group[lane]; });
}

void WarpAsync::waitAll(Warp &warp, uint32_t lanes) {
  completeWhere(warp, copies, lanes, [](const AsyncCopy &, int) { return true; });
}

void WarpAsync::arrive(Warp &warp, uint32_t lanes) {
  for (AsyncCopy &copy : copies)
    if (const uint32_t arriving = copy.lanes & lanes & ~copy.arrived) {
      markWrite(warp, copy, arriving);
      copy.arrived |= arriving;
    }
}

void WarpAsync::completeArrived(Warp &warp, uint32_t lanes, uint64_t before) {
  completeWhere(warp, copies, lanes, [&](const AsyncCopy &copy, int) { return copy.serial < before; });
}

} // namespace kvq::ptxsim
