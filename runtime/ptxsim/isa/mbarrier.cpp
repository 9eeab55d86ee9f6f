// SPDX-License-Identifier: Apache-2.0
//
// mbarrier (PTX ISA, "Parallel Synchronization and Communication Instructions: mbarrier") and the arrival of cp.async.
// What programs see of the 8 bytes: phase, pending and expected arrivals; their layout is the simulator's own.
//
// cp.async.mbarrier.arrive releases everything that the warp did before it, the hardware only the copies.
#include "runtime/ptxsim/memory/mbarrier.h"
#include "runtime/ptxsim/isa/ordering.h"
#include "runtime/ptxsim/memory/async_copy.h"

namespace kvq::ptxsim {

namespace {

constexpr uint32_t kPhaseMask = (1u << 20) - 1;
constexpr Intent kInit{AccessKind::Write, false, true, "mbarrier.init"};
constexpr Intent kUse{AccessKind::Atomic, true, true, "mbarrier operation"};

uint64_t encode(const MbarrierWord &word) {
  return uint64_t(word.phase & kPhaseMask) << 40 | uint64_t(word.pending) << 20 | word.expected;
}

// Each lane's mbarrier after the checks: body(lane, offset, state). Lanes without one are reported.
template <typename Body> void forBarriers(Warp &warp, const Op &op, uint32_t mask, Body body) {
  Addresses addresses;
  readAddresses(warp, op, op.sources[0], mask, addresses);
  Access made;
  if (op.space == Space::Shared)
    accessShared(warp, op, mask, addresses, 8, kUse, made);
  else
    accessGeneric(warp, op, mask, addresses, 8, kUse, made);
  Mbarriers &all = warp.block->shared->mbarriers();
  const auto find = [&](int lane) { return all.find(uint32_t(addresses[lane])); };
  const uint32_t none = lanesWhere(made.mask, [&](int lane) { return !find(lane); });
  if (none) {
    const uint64_t at = uint32_t(addresses[std::countr_zero(none)]);
    report(warp, op, Check::UninitMemory, none,
           "mbarrier operation at shared offset " + std::to_string(at) + ", where no mbarrier was initialised",
           {"shared", at, ""});
  }
  forLanes(made.mask & ~none, [&](int lane) {
    Mbarriers::State &state = *find(lane);
    body(lane, state);
    const uint64_t bits = encode(state.word);
    std::memcpy(made.of(lane), &bits, sizeof bits);
  });
}

void settle(Mbarriers::State &state) {
  MbarrierWord &word = state.word;
  if (word.pending > 0 || word.bytes != 0)
    return;
  ++word.phase;
  word.pending = word.expected;
  state.completed = state.current;
  state.current = {};
  state.completedCopies.insert(state.completedCopies.end(), state.copies.begin(), state.copies.end());
  state.copies.clear();
}

void arrive(Warp &warp, const Op &op, int lane, Mbarriers::State &state, uint32_t count, bool drops, bool releases) {
  MbarrierWord &word = state.word;
  if (count == 0 || count > word.pending) {
    report(warp, op, Check::Barrier, 1u << lane,
           "arrives at an mbarrier with a count of " + std::to_string(count) + " where " +
               std::to_string(word.pending) + " arrivals are pending");
    count = std::min(count, word.pending);
  }
  if (releases)
    warp.block->shared->release(warp.id, state.current);
  word.pending -= count;
  if (drops)
    word.expected -= std::min(word.expected, count);
  settle(state);
}

void init(Warp &warp, const Op &op, uint32_t mask) {
  Addresses addresses;
  readAddresses(warp, op, op.sources[0], mask, addresses);
  Access made;
  if (op.space == Space::Shared)
    accessShared(warp, op, mask, addresses, 8, kInit, made);
  else
    accessGeneric(warp, op, mask, addresses, 8, kInit, made);
  const uint32_t *counts = warp.at<uint32_t>(op.sources[1]);
  forLanes(made.mask, [&](int lane) {
    if (counts[lane] == 0 || counts[lane] > MbarrierWord::kMaxCount)
      report(warp, op, Check::Barrier, 1u << lane,
             "mbarrier.init with a count of " + std::to_string(counts[lane]) + "; it must be 1 to 1048575");
    const Mbarriers::State &state =
        warp.block->shared->mbarriers().init(uint32_t(addresses[lane]), counts[lane] & MbarrierWord::kMaxCount);
    const uint64_t bits = encode(state.word);
    std::memcpy(made.of(lane), &bits, sizeof bits);
  });
}

void invalidate(Warp &warp, const Op &op, uint32_t mask) {
  Addresses addresses;
  readAddresses(warp, op, op.sources[0], mask, addresses);
  forBarriers(warp, op, mask, [](int, Mbarriers::State &) {});
  forLanes(mask, [&](int lane) { warp.block->shared->mbarriers().inval(uint32_t(addresses[lane])); });
}

// [addr]{, count}
template <bool drops> void runArrive(Warp &warp, const Op &op, uint32_t mask) {
  uint64_t *to = warp.at<uint64_t>(op.results[0]);
  const uint32_t *counts = op.sourceCount > 1 ? warp.at<uint32_t>(op.sources[1]) : nullptr;
  const bool releases = !op.form->has("relaxed");
  forBarriers(warp, op, mask, [&](int lane, Mbarriers::State &state) {
    to[lane] = encode(state.word);
    arrive(warp, op, lane, state, counts ? counts[lane] : 1, drops, releases);
  });
}

// [addr], bytes: expects them, then arrives.
template <bool drops> void arriveExpect(Warp &warp, const Op &op, uint32_t mask) {
  uint64_t *to = warp.at<uint64_t>(op.results[0]);
  const uint32_t *bytes = warp.at<uint32_t>(op.sources[1]);
  const bool releases = !op.form->has("relaxed");
  forBarriers(warp, op, mask, [&](int lane, Mbarriers::State &state) {
    to[lane] = encode(state.word);
    state.word.bytes += int32_t(bytes[lane]);
    arrive(warp, op, lane, state, 1, drops, releases);
  });
}

template <int sign> void expectBytes(Warp &warp, const Op &op, uint32_t mask) {
  const uint32_t *bytes = warp.at<uint32_t>(op.sources[1]);
  forBarriers(warp, op, mask, [&](int lane, Mbarriers::State &state) {
    state.word.bytes += sign * int32_t(bytes[lane]);
    settle(state);
  });
}

// test_wait and try_wait: [addr], state or parity. Neither waits; a program calls them in a loop.
template <bool parity> void wait(Warp &warp, const Op &op, uint32_t mask) {
  uint32_t &to = warp.predicate(op.results[0]);
  const bool acquires = !op.form->has("relaxed");
  uint32_t complete = 0;
  forBarriers(warp, op, mask, [&](int lane, Mbarriers::State &state) {
    const uint32_t phase = state.word.phase;
    if constexpr (parity) {
      if ((phase & 1) == (warp.at<uint32_t>(op.sources[1])[lane] & 1))
        return;
    } else if ((phase & kPhaseMask) == (warp.at<uint64_t>(op.sources[1])[lane] >> 40 & kPhaseMask)) {
      return;
    }
    complete |= 1u << lane;
    for (const Mbarriers::Copies &copies : state.completedCopies)
      copies.warp->async->completeArrived(*copies.warp, copies.lanes, copies.before);
    state.completedCopies.clear();
    if (acquires)
      warp.block->shared->acquire(warp.id, state.completed);
  });
  to = (to & ~mask) | complete;
}

void pendingCount(Warp &warp, const Op &op, uint32_t mask) {
  uint32_t *to = warp.at<uint32_t>(op.results[0]);
  const uint64_t *states = warp.at<uint64_t>(op.sources[0]);
  forLanes(mask, [&](int lane) { to[lane] = uint32_t(states[lane] >> 20) & MbarrierWord::kMaxCount; });
}

// The arrival of the lane's copies so far. Without .noinc it expects one more arrival first, so that it changes nothing
// in the count.
void arriveCopies(Warp &warp, const Op &op, uint32_t mask) {
  const bool counts = op.form->has("noinc");
  forBarriers(warp, op, mask, [&](int lane, Mbarriers::State &state) {
    warp.async->arrive(warp, 1u << lane);
    state.copies.push_back({&warp, 1u << lane, warp.async->serial + 1});
    if (!counts)
      ++state.word.pending;
    arrive(warp, op, lane, state, 1, false, true);
  });
}

} // namespace

void addMbarriers(Table &table) {
  const auto add = [&](const std::string &front, const std::string &orders, const char *operands, Handler handler) {
    table
        .add((front + orders + "{.shared|.shared::cta|.shared::cluster}.b64").c_str(), operands, OpClass::Barrier,
             handler)
        .space(Space::Shared);
    table.add((front + orders + ".b64").c_str(), operands, OpClass::Barrier, handler).space(Space::Generic);
  };
  add("mbarrier.init", "", "= addr b32", init);
  add("mbarrier.inval", "", "= addr", invalidate);
  for (const char *order : {"", "{.release|.relaxed}{.cta|.cluster}"}) {
    add("mbarrier.arrive", order, "b64 = addr b32?", runArrive<false>);
    add("mbarrier.arrive_drop", order, "b64 = addr b32?", runArrive<true>);
    add("mbarrier.arrive.noComplete", order, "b64 = addr b32", runArrive<false>);
    add("mbarrier.arrive_drop.noComplete", order, "b64 = addr b32", runArrive<true>);
    if (*order) {
      add("mbarrier.arrive", std::string(order) + ".noComplete", "b64 = addr b32", runArrive<false>);
      add("mbarrier.arrive_drop", std::string(order) + ".noComplete", "b64 = addr b32", runArrive<true>);
    }
    add("mbarrier.arrive.expect_tx", order, "b64 = addr b32", arriveExpect<false>);
    add("mbarrier.arrive_drop.expect_tx", order, "b64 = addr b32", arriveExpect<true>);
  }
  for (const char *order : {"", ".relaxed{.cta|.cluster}"}) {
    add("mbarrier.expect_tx", order, "= addr b32", expectBytes<1>);
    add("mbarrier.complete_tx", order, "= addr b32", expectBytes<-1>);
  }
  for (const char *order : {"", "{.acquire|.relaxed}{.cta|.cluster}"}) {
    add("mbarrier.test_wait", order, "pred = addr b64", wait<false>);
    add("mbarrier.test_wait.parity", order, "pred = addr b32", wait<true>);
    add("mbarrier.try_wait", order, "pred = addr b64 b32?", wait<false>);
    add("mbarrier.try_wait.parity", order, "pred = addr b32 b32?", wait<true>);
  }
  table.add("mbarrier.pending_count.b64", "b32 = b64", OpClass::Barrier, pendingCount);
  add("cp.async.mbarrier.arrive[.noinc]", "", "= addr", arriveCopies);
}

} // namespace kvq::ptxsim
