// SPDX-License-Identifier: Apache-2.0
//
// Accesses to shared memory.
#include "runtime/ptxsim/memory/access.h"
#include "runtime/ptxsim/memory/lane_races.h"
#include "runtime/ptxsim/memory/shared_memory.h"

namespace kvq::ptxsim {

namespace {

// The access of this warp that is being made.
struct SharedAccess {
  Warp &warp;
  const Op &op;
  SharedMemory &shared;
  uint32_t bytes;
  const Intent &intent;
  const uint32_t *offsets;

  Place place(uint32_t offset) const {
    Place place{"shared", offset, ""};
    for (const Kernel::SharedVariable &variable : warp.worker->launch->kernel->sharedVariables)
      if (offset >= variable.offset && (variable.size < 0 || offset < variable.offset + variable.size)) {
        place.allocation = variable.name;
        break;
      }
    return place;
  }
  std::string what(uint32_t offset) const {
    const std::string name = place(offset).allocation;
    return nameOf(intent, bytes) + " at shared offset " + std::to_string(offset) +
           (name.empty() ? std::string() : " (in '" + name + "')");
  }

  uint32_t bounds(uint32_t mask, const Addresses &addresses) {
    const uint64_t size = uint64_t(shared.size());
    const uint32_t outside =
        lanesWhere(mask, [&](int lane) { return addresses[lane] > size || size - addresses[lane] < bytes; });
    if (outside && warp.worker->check(Check::Bounds)) {
      const uint64_t at = addresses[std::countr_zero(outside)];
      report(warp, op, Check::Bounds, outside,
             nameOf(intent, bytes) + " at shared offset " + std::to_string(at) + " leaves the block's " +
                 std::to_string(size) + " bytes",
             {"shared", at, ""});
    }
    return mask & ~outside;
  }

  void align(uint32_t mask) {
    if (!warp.worker->check(Check::Align))
      return;
    const uint32_t crooked = lanesWhere(mask, [&](int lane) { return offsets[lane] & (bytes - 1); });
    if (!crooked)
      return;
    const uint32_t at = offsets[std::countr_zero(crooked)];
    report(warp, op, Check::Align, crooked, what(at) + ", which is not a multiple of " + std::to_string(bytes),
           place(at));
  }

  // Some byte is not simply "written": unwritten, or being copied.
  void badState(uint32_t mask) {
    const uint8_t *state = shared.state();
    const auto some = [&](int lane, auto wrong) {
      for (uint32_t i = 0; i < bytes; ++i)
        if (wrong(state[offsets[lane] + i]))
          return true;
      return false;
    };
    const uint32_t flying =
        lanesWhere(mask, [&](int lane) { return some(lane, [](uint8_t s) { return s & SharedMemory::kInFlight; }); });
    if (flying && warp.worker->check(Check::InFlight)) {
      const uint32_t at = offsets[std::countr_zero(flying)];
      report(warp, op, Check::InFlight, flying, what(at) + " meets a cp.async that its thread has not waited for",
             place(at));
    }
    if (!intent.reads || !warp.worker->check(Check::UninitMemory))
      return;
    const uint32_t unwritten =
        lanesWhere(mask & ~flying, [&](int lane) { return some(lane, [](uint8_t s) { return s == 0; }); });
    if (unwritten) {
      const uint32_t at = offsets[std::countr_zero(unwritten)];
      report(warp, op, Check::UninitMemory, unwritten, what(at) + " that nobody wrote", place(at));
    }
  }

  void races(uint32_t mask, Pattern pattern) {
    SharedMemory::Conflict conflict;
    if (pattern == Pattern::Any)
      conflict = shared.lanes(warp.id, intent.kind, mask, offsets, bytes);
    else
      conflict = shared.range(warp.id, intent.kind, offsets[0],
                              pattern == Pattern::Same ? bytes : bytes * uint32_t(std::popcount(mask)));
    if (conflict.warp < 0)
      return;
    const uint32_t lanes = conflict.lanes & mask;
    const uint32_t at = offsets[std::countr_zero(lanes)];
    report(warp, op, Check::SharedRace, lanes,
           what(at) + ", which warp " + std::to_string(conflict.warp) + " " +
               (conflict.kind == AccessKind::Read    ? "read"
                : conflict.kind == AccessKind::Write ? "wrote"
                                                     : "updated") +
               " with no barrier between",
           place(at));
  }

  void laneRaces(uint32_t mask) {
    LaneRaces &races = *shared.laneRaces();
    races.begin();
    int other = -1;
    const uint32_t lanes = lanesWhere(mask, [&](int lane) {
      const int found = races.access(warp.id, lane, intent.kind, offsets[lane], bytes);
      if (found >= 0 && other < 0)
        other = found;
      return found >= 0;
    });
    if (!lanes)
      return;
    const uint32_t at = offsets[std::countr_zero(lanes)];
    report(warp, op, Check::WarpRace, lanes,
           what(at) + ", which lane " + std::to_string(other) + " of the warp accessed with no bar.warp.sync between",
           place(at));
  }

  // Whether the bytes of all lanes can be read (all written) or written (none in flight).
  bool stateIsGood(uint32_t mask, Pattern pattern) const {
    const uint8_t *state = shared.state();
    const uint32_t all = pattern == Pattern::Same ? bytes : bytes * uint32_t(std::popcount(mask));
    constexpr uint64_t kOnes = 0x0101010101010101;
    if (intent.reads)
      return pattern != Pattern::Any ? allWritten(state + offsets[0], all)
                                     : !differingFlags(state, offsets, mask, bytes, kOnes, ~uint64_t(0));
    return !shared.anyInFlight() || !differingFlags(state, offsets, mask, bytes, 0, kOnes * SharedMemory::kInFlight);
  }

  // `plain`: no byte is in flight.
  void markWritten(uint32_t mask, Pattern pattern, bool plain) {
    uint8_t *state = shared.state();
    if (plain && pattern != Pattern::Any) {
      std::memset(state + offsets[0], SharedMemory::kWritten,
                  pattern == Pattern::Same ? bytes : bytes * uint32_t(std::popcount(mask)));
    } else if (plain) {
      forLanes(mask, [&](int lane) { std::memset(state + offsets[lane], SharedMemory::kWritten, bytes); });
    } else {
      forLanes(mask, [&](int lane) {
        for (uint32_t i = 0; i < bytes; ++i)
          state[offsets[lane] + i] |= SharedMemory::kWritten;
      });
    }
  }
};

} // namespace

void accessShared(Warp &warp, const Op &op, uint32_t mask, Addresses &addresses, uint32_t bytes, const Intent &intent,
                  Access &out) {
  SharedMemory &shared = *warp.block->shared;
  uint32_t offsets[kLanes];
  uint64_t high = 0;
  uint32_t most = 0, low = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    high |= addresses[lane] >> 32;
    offsets[lane] = uint32_t(addresses[lane]);
    most = std::max(most, offsets[lane]);
    low |= offsets[lane];
  }
  SharedAccess access{warp, op, shared, bytes, intent, offsets};
  out.bytes = bytes;
  out.mask = mask;
  if (high || uint64_t(most) + bytes > uint64_t(shared.size())) {
    out.mask = access.bounds(mask, addresses);
    if (!out.mask)
      return;
    for (int lane = 0; lane < kLanes; ++lane)
      if (!(out.mask >> lane & 1))
        addresses[lane] = addresses[std::countr_zero(out.mask)];
    for (int lane = 0; lane < kLanes; ++lane)
      offsets[lane] = uint32_t(addresses[lane]);
  }
  if (low & (bytes - 1))
    access.align(out.mask);
  out.pattern = patternOf(addresses, out.mask, bytes);
  const bool looks = warp.worker->check(Check::UninitMemory) || shared.anyInFlight();
  const bool good = !looks || access.stateIsGood(out.mask, out.pattern);
  if (!good)
    access.badState(out.mask);
  if (intent.writes)
    access.markWritten(out.mask, out.pattern, !shared.anyInFlight() || good);
  if (shared.checksRaces())
    access.races(out.mask, out.pattern);
  if (shared.laneRaces())
    access.laneRaces(out.mask);
  // The lanes of a pass touch different banks where addresses are consecutive, and one word where they are equal.
  const bool isPlain = out.pattern == Pattern::Same || (out.pattern == Pattern::Consecutive && bytes >= 4);
  const uint32_t lanesOfPass = bytes <= 4 ? kLanes : uint32_t(kLanes) * 4 / bytes;
  const uint32_t passes =
      out.pattern == Pattern::Same ? 1 : (uint32_t(std::popcount(out.mask)) + lanesOfPass - 1) / lanesOfPass;
  const Wavefronts wavefronts = isPlain ? Wavefronts{passes, passes} : wavefrontsOf(offsets, out.mask, bytes);
  Counters &counters = warp.worker->counters;
  ++counters.sharedRequests;
  counters.sharedWavefronts += wavefronts.needed;
  counters.bankConflicts += wavefronts.needed - wavefronts.least;
  if (out.pattern != Pattern::Any)
    out.first = shared.data() + offsets[0];
  else
    for (int lane = 0; lane < kLanes; ++lane)
      out.at[lane] = shared.data() + offsets[lane];
}

} // namespace kvq::ptxsim
