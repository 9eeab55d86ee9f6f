// SPDX-License-Identifier: Apache-2.0
//
// Accesses to global memory.
#include "runtime/ptxsim/memory/access.h"
#include "runtime/ptxsim/memory/global_races.h"

#include <algorithm>

namespace kvq::ptxsim {

namespace {

const Region *regionAt(const Allocation &allocation, uint64_t offset) {
  const auto &regions = allocation.regions;
  const auto next = std::upper_bound(regions.begin(), regions.end(), int64_t(offset),
                                     [](int64_t at, const Region &region) { return at < region.end; });
  return next != regions.end() && int64_t(offset) >= next->begin ? &*next : nullptr;
}

// Whether [offset, offset + bytes) may be accessed at once.
bool isInside(const Allocation &allocation, uint64_t offset, uint64_t bytes) {
  const uint64_t size = uint64_t(allocation.size);
  if (offset > size || size - offset < bytes)
    return false;
  if (allocation.regions.empty())
    return true;
  const Region *region = regionAt(allocation, offset);
  return region && uint64_t(region->end) - offset >= bytes;
}

Place placeOf(const Allocation &allocation, uint64_t offset) {
  const Region *region = regionAt(allocation, offset);
  return {"global", allocation.base + offset, region ? region->name : allocation.name};
}

struct GlobalAccess {
  Warp &warp;
  const Op &op;
  uint32_t bytes;
  const Intent &intent;
  const Addresses &addresses;

  std::string what(const Allocation &allocation, uint64_t offset) const {
    const Region *region = regionAt(allocation, offset);
    if (region)
      return nameOf(intent, bytes) + " at offset " + std::to_string(offset - uint64_t(region->begin)) + " of '" +
             region->name + "' in '" + allocation.name + "'";
    return nameOf(intent, bytes) + " at offset " + std::to_string(offset) + " of '" + allocation.name + "'";
  }

  std::string whyOutside(const Allocation *allocation, uint64_t address) const {
    const std::string access = nameOf(intent, bytes);
    if (!allocation && address < 0x10000)
      return access + " through a null pointer (address " + hexadecimal(address) + ")";
    if (!allocation)
      return access + " at address " + hexadecimal(address) + ", where nothing is allocated";
    const uint64_t offset = address - allocation->base, size = uint64_t(allocation->size);
    if (offset > size || size - offset < bytes)
      return access + " at offset " + std::to_string(offset) + " leaves '" + allocation->name + "' of " +
             std::to_string(size) + " bytes";
    if (const Region *region = regionAt(*allocation, offset))
      return access + " at offset " + std::to_string(offset - uint64_t(region->begin)) + " leaves region '" +
             region->name + "' of " + std::to_string(region->end - region->begin) + " bytes in '" + allocation->name +
             "'";
    return access + " at offset " + std::to_string(offset) + " of '" + allocation->name + "' of " +
           std::to_string(size) + " bytes is in none of its regions";
  }

  // Reports the lanes that cannot go on; returns those of the rest that are in the first one's allocation.
  uint32_t sort(uint32_t mask, uint32_t &outside) {
    GlobalMemory &memory = *warp.worker->launch->memory;
    outside = lanesWhere(mask, [&](int lane) {
      const Allocation *allocation = memory.find(addresses[lane]);
      return !allocation || !isInside(*allocation, addresses[lane] - allocation->base, bytes);
    });
    if (outside && warp.worker->check(Check::Bounds)) {
      const uint64_t at = addresses[std::countr_zero(outside)];
      const Allocation *allocation = memory.find(at);
      report(warp, op, Check::Bounds, outside, whyOutside(allocation, at),
             allocation ? placeOf(*allocation, at - allocation->base) : Place{"global", at, ""});
    }
    const uint32_t readOnly =
        !intent.writes ? 0
                       : lanesWhere(mask & ~outside, [&](int lane) { return memory.find(addresses[lane])->readOnly; });
    if (readOnly && warp.worker->check(Check::Bounds)) {
      const uint64_t at = addresses[std::countr_zero(readOnly)];
      const Allocation &allocation = *memory.find(at);
      report(warp, op, Check::Bounds, readOnly, what(allocation, at - allocation.base) + ", which is read-only",
             placeOf(allocation, at - allocation.base));
    }
    outside |= readOnly;
    const uint32_t rest = mask & ~outside;
    if (!rest)
      return 0;
    const Allocation *first = memory.find(addresses[std::countr_zero(rest)]);
    return lanesWhere(rest, [&](int lane) { return memory.find(addresses[lane]) == first; });
  }

  // The lanes are in order as far as bounds go, and all in one allocation.
  void finish(Allocation &allocation, uint32_t mask, Pattern pattern, Access &out) {
    uint64_t offsets[kLanes];
    uint64_t low = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      offsets[lane] = addresses[lane] - allocation.base;
      low |= offsets[lane];
    }
    const Worker &worker = *warp.worker;
    if ((low & (bytes - 1)) && worker.check(Check::Align))
      align(allocation, mask, offsets);
    const uint64_t all = pattern == Pattern::Same ? bytes : bytes * uint64_t(std::popcount(mask));
    if (intent.reads && worker.check(Check::UninitMemory))
      written(allocation, mask, pattern, offsets, all);
    if (intent.writes)
      mark(allocation, mask, pattern, offsets, all);
    if (const GlobalRaces *races = warp.worker->launch->races; races && races->checks())
      checkRaces(allocation, mask, pattern, offsets, all);
    for (bool writes : {false, true}) {
      if (!(writes ? intent.writes : intent.reads))
        continue;
      const auto way = writes ? TouchedBytes::kWritten : TouchedBytes::kRead;
      if (pattern == Pattern::Any)
        warp.worker->touched.lanes(way, allocation.base, mask, offsets, bytes);
      else
        warp.worker->touched.range(way, allocation.base, offsets[0], all);
    }
    if (pattern != Pattern::Any)
      out.first = allocation.data.data() + offsets[0];
    else
      forLanes(mask, [&](int lane) { out.at[lane] = allocation.data.data() + offsets[lane]; });
  }

  void align(const Allocation &allocation, uint32_t mask, const uint64_t *offsets) {
    const uint32_t crooked = lanesWhere(mask, [&](int lane) { return offsets[lane] & (bytes - 1); });
    if (!crooked)
      return;
    const uint64_t at = offsets[std::countr_zero(crooked)];
    report(warp, op, Check::Align, crooked,
           what(allocation, at) + ", an address that is not a multiple of " + std::to_string(bytes),
           placeOf(allocation, at));
  }

  void written(const Allocation &allocation, uint32_t mask, Pattern pattern, const uint64_t *offsets, uint64_t all) {
    const uint8_t *flags = allocation.written.data();
    bool good = true;
    if (pattern != Pattern::Any)
      good = allWritten(flags + offsets[0], all);
    else
      forLanes(mask, [&](int lane) { good &= allWritten(flags + offsets[lane], bytes); });
    if (good)
      return;
    const uint32_t lanes = lanesWhere(mask, [&](int lane) { return !allWritten(flags + offsets[lane], bytes); });
    const uint64_t at = offsets[std::countr_zero(lanes)];
    report(warp, op, Check::UninitMemory, lanes, what(allocation, at) + " that nobody wrote", placeOf(allocation, at));
  }

  void mark(Allocation &allocation, uint32_t mask, Pattern pattern, const uint64_t *offsets, uint64_t all) {
    uint8_t *flags = allocation.written.data();
    if (pattern != Pattern::Any)
      std::memset(flags + offsets[0], 1, all);
    else
      forLanes(mask, [&](int lane) { std::memset(flags + offsets[lane], 1, bytes); });
  }

  void checkRaces(const Allocation &allocation, uint32_t mask, Pattern pattern, const uint64_t *offsets, uint64_t all) {
    GlobalRaces &races = *warp.worker->launch->races;
    const GlobalRaces::Conflict conflict = pattern == Pattern::Any
                                               ? races.lanes(*warp.block, allocation, intent.kind, mask, offsets, bytes)
                                               : races.range(*warp.block, allocation, intent.kind, offsets[0], all);
    const uint32_t lanes = conflict.lanes & mask;
    if (!lanes)
      return;
    const Dim grid = warp.worker->launch->launch->grid;
    const uint64_t block = conflict.block;
    const uint64_t at = offsets[std::countr_zero(lanes)];
    const char *did = conflict.kind == AccessKind::Read    ? "read"
                      : conflict.kind == AccessKind::Write ? "wrote"
                                                           : "updated";
    report(warp, op, Check::GlobalRace, lanes,
           what(allocation, at) + ", which block (" + std::to_string(block % grid.x) + "," +
               std::to_string(block / grid.x % grid.y) + "," + std::to_string(block / grid.x / grid.y) + ") " + did +
               " and nothing orders",
           placeOf(allocation, at));
  }
};

} // namespace

void accessGlobal(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                  Access &out) {
  GlobalAccess access{warp, op, bytes, intent, addresses};
  Counters &counters = warp.worker->counters;
  ++counters.globalRequests;
  out.bytes = bytes;
  out.mask = mask;
  Allocation *allocation = warp.worker->launch->memory->find(addresses[0]);
  out.pattern = patternOf(addresses, mask, bytes);
  if (allocation && !(intent.writes && allocation->readOnly)) {
    uint64_t begin = addresses[0] - allocation->base, end = begin + bytes;
    if (out.pattern == Pattern::Consecutive) {
      end = begin + bytes * uint64_t(std::popcount(mask));
    } else if (out.pattern == Pattern::Any) {
      uint64_t most = begin;
      for (int lane = 0; lane < kLanes; ++lane) {
        begin = std::min(begin, addresses[lane] - allocation->base);
        most = std::max(most, addresses[lane] - allocation->base);
      }
      end = most + bytes;
    }
    if (begin < end && isInside(*allocation, begin, end - begin)) {
      counters.globalSectors +=
          out.pattern == Pattern::Any ? sectorsOf(addresses, mask, bytes) : ((end - 1) >> 5) - (begin >> 5) + 1;
      counters.globalBytes +=
          out.pattern == Pattern::Any ? uint64_t(bytes) * differentAddresses(addresses, mask) : end - begin;
      access.finish(*allocation, mask, out.pattern, out);
      return;
    }
  }
  // Lanes that are out of bounds, or in several allocations or regions.
  out.pattern = Pattern::Any;
  out.mask = 0;
  for (uint32_t rest = mask; rest;) {
    uint32_t outside = 0;
    const uint32_t lanes = access.sort(rest, outside);
    rest &= ~(outside | lanes);
    if (!lanes)
      break;
    Addresses same;
    for (int lane = 0; lane < kLanes; ++lane)
      same[lane] = addresses[lanes >> lane & 1 ? lane : std::countr_zero(lanes)];
    counters.globalSectors += sectorsOf(same, lanes, bytes);
    counters.globalBytes += uint64_t(bytes) * differentAddresses(same, lanes);
    GlobalAccess part{warp, op, bytes, intent, same};
    part.finish(*warp.worker->launch->memory->find(same[std::countr_zero(lanes)]), lanes, Pattern::Any, out);
    out.mask |= lanes;
  }
}

} // namespace kvq::ptxsim
