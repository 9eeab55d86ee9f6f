// SPDX-License-Identifier: Apache-2.0
//
// Sectors of global memory and bank conflicts of shared memory.
#include "runtime/ptxsim/memory/access.h"

#include <algorithm>

namespace kvq::ptxsim {

uint32_t sectorsOf(const Addresses &addresses, uint32_t mask, uint32_t bytes) {
  // Addresses mostly ascend: then a sector is new where it differs from the last one.
  uint64_t last = ~uint64_t(0);
  uint32_t count = 0;
  bool ascends = true;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const uint64_t address = addresses[std::countr_zero(rest)];
    const uint64_t begin = address >> 5, end = (address + bytes - 1) >> 5;
    ascends &= last == ~uint64_t(0) || begin >= last;
    count += uint32_t(end - begin) + (begin != last);
    last = end;
  }
  if (ascends)
    return count;
  uint64_t places[128]; // at most 64 of them are taken
  std::fill(std::begin(places), std::end(places), ~uint64_t(0));
  count = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const uint64_t address = addresses[std::countr_zero(rest)];
    for (uint64_t sector = address >> 5; sector <= (address + bytes - 1) >> 5; ++sector) {
      uint32_t at = uint32_t(sector * 0x9e3779b97f4a7c15 >> 57);
      while (places[at] != sector && places[at] != ~uint64_t(0))
        at = (at + 1) & 127;
      count += places[at] != sector;
      places[at] = sector;
    }
  }
  return count;
}

uint32_t differentAddresses(const Addresses &addresses, uint32_t mask) {
  // They mostly ascend, here too.
  uint64_t last = 0;
  uint32_t count = 0;
  bool ascends = true;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const uint64_t address = addresses[std::countr_zero(rest)];
    ascends &= address >= last;
    count += count == 0 || address != last;
    last = address;
  }
  if (ascends)
    return count;
  uint64_t sorted[kLanes];
  count = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1)
    sorted[count++] = addresses[std::countr_zero(rest)];
  std::sort(sorted, sorted + count);
  return static_cast<uint32_t>(std::unique(sorted, sorted + count) - sorted);
}

namespace {

// Passes for the given lanes: the most different units that one of `groups` groups of banks has to give. A unit is what
// a lane accesses, at least a word; being aligned it fills its group.
uint32_t passesOf(const uint32_t *units, uint32_t mask, uint32_t groups) {
  uint32_t taken = 0, clashes = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const uint32_t group = 1u << (units[std::countr_zero(rest)] & (groups - 1));
    clashes |= taken & group;
    taken |= group;
  }
  if (!clashes)
    return 1;
  uint32_t seen[32][32];
  uint32_t counts[32] = {};
  uint32_t most = 1;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const uint32_t unit = units[std::countr_zero(rest)], group = unit & (groups - 1);
    uint32_t &count = counts[group];
    uint32_t at = 0;
    while (at < count && seen[group][at] != unit)
      ++at;
    if (at == count)
      seen[group][count++] = unit;
    most = std::max(most, count);
  }
  return most;
}

} // namespace

Wavefronts wavefrontsOf(const uint32_t *offsets, uint32_t mask, uint32_t bytes) {
  const uint32_t words = std::max(1u, bytes / 4), lanes = kLanes / words;
  const uint32_t shift = uint32_t(std::countr_zero(words)) + 2;
  uint32_t units[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    units[lane] = offsets[lane] >> shift;
  Wavefronts result;
  for (uint32_t begin = 0; begin < kLanes; begin += lanes) {
    const uint32_t part = mask & (lanes == kLanes ? kFull : ((1u << lanes) - 1) << begin);
    if (!part)
      continue;
    result.needed += passesOf(units, part, lanes);
    ++result.least;
  }
  return result;
}

} // namespace kvq::ptxsim
