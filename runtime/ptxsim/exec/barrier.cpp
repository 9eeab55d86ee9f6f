// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/exec/barrier.h"

#include "runtime/ptxsim/decode/registry.h"

namespace kvq::ptxsim {

BarrierKind barrierKind(const Op &op) { return BarrierKind(op.form->tag); }

bool barrierAligned(const Op &op) { return op.form->choice[0] == 0 || op.form->has("aligned"); }

namespace {

// bar.red has its predicate last; what is left are the number and, where it is given, the count of threads.
int countSource(const Op &op) {
  const bool reduces = barrierKind(op) > BarrierKind::Arrive;
  return op.sourceCount - int(reduces) > 1 ? 1 : -1;
}

uint32_t ofLowestLane(const Warp &warp, Slot slot, uint32_t mask) {
  return warp.at<uint32_t>(slot)[std::countr_zero(mask)];
}

} // namespace

void Barriers::reset(std::span<WarpRun> warps) {
  warps_ = warps;
  named_ = {};
  tokens_ = {};
  completed_ = 0;
}

void Barriers::checkArrival(const Named &barrier, WarpRun &run, const Split &split, const Op &op,
                            uint32_t threads) const {
  Warp &warp = run.warp();
  if (barrierAligned(op) && split.mask != warp.alive)
    report(warp, op, Check::Barrier, warp.alive & ~split.mask,
           "this lane is in other code while its warp executes an aligned barrier");
  if (threads % kLanes != 0)
    report(warp, op, Check::Barrier, split.mask,
           "the barrier's count of " + std::to_string(threads) + " threads is not a multiple of 32");
  if (barrier.used && barrier.threads != threads)
    report(warp, op, Check::Barrier, split.mask,
           "the barrier's count of " + std::to_string(threads) + " threads differs from the " +
               std::to_string(barrier.threads) + " of the warp that came first (0: the whole block)");
}

bool Barriers::arrive(WarpRun &run, Split &split, const Op &op) {
  Warp &warp = run.warp();
  const uint32_t number = ofLowestLane(warp, op.sources[0], split.mask);
  if (number >= named_.size()) {
    report(warp, op, Check::Barrier, split.mask, "barrier " + std::to_string(number) + " is beyond the last one, 15");
    return true;
  }
  Named &barrier = named_[number];
  const int count = countSource(op);
  const uint32_t threads = count < 0 ? 0 : ofLowestLane(warp, op.sources[count], split.mask);
  checkArrival(barrier, run, split, op, threads);
  if (barrier.lanes[warp.id] & split.mask) {
    report(warp, op, Check::Barrier, split.mask,
           "the warp arrives at barrier " + std::to_string(number) + " again before it is complete");
    return true;
  }
  const BarrierKind kind = barrierKind(op);
  if (!barrier.used)
    barrier.threads = threads;
  barrier.used = true;
  barrier.lanes[warp.id] |= split.mask;
  if (kind > BarrierKind::Arrive)
    barrier.values[warp.id] |= warp.predicate(op.sources[op.sourceCount - 1]) & split.mask;
  if (kind == BarrierKind::Arrive) {
    warp.block->shared->release(warp.id, tokens_[number]);
  } else {
    barrier.syncing |= 1u << warp.id;
    split.state = Split::State::Barrier;
    split.barrier = int(number);
  }
  if (isComplete(barrier))
    release(int(number)); // moves this split on as well
  return kind == BarrierKind::Arrive;
}

bool Barriers::isComplete(const Named &barrier) const {
  uint32_t arrived = 0, missing = 0;
  for (const WarpRun &run : warps_) {
    const Warp &warp = run.warp();
    const bool there = barrier.lanes[warp.id] && !(warp.alive & ~barrier.lanes[warp.id]);
    arrived += there;
    missing += !there && warp.alive;
  }
  return barrier.threads ? arrived * kLanes >= barrier.threads : missing == 0;
}

void Barriers::deliver(const Named &barrier, WarpRun &run, const Split &split) const {
  const Op &op = run.opAt(split.pc);
  const BarrierKind kind = barrierKind(op);
  if (kind <= BarrierKind::Arrive)
    return;
  uint32_t count = 0, total = 0;
  for (size_t i = 0; i < barrier.lanes.size(); ++i) {
    count += uint32_t(std::popcount(barrier.values[i]));
    total += uint32_t(std::popcount(barrier.lanes[i]));
  }
  Warp &warp = run.warp();
  if (kind == BarrierKind::Popc) {
    forLanes(split.mask, [&](int lane) { warp.at<uint32_t>(op.results[0])[lane] = count; });
  } else {
    const bool holds = kind == BarrierKind::And ? count == total : count > 0;
    uint32_t &predicate = warp.predicate(op.results[0]);
    predicate = holds ? predicate | split.mask : predicate & ~split.mask;
  }
  warp.written(op.results[0]) |= split.mask;
}

void Barriers::release(int number) {
  const Named barrier = named_[number];
  named_[number] = {};
  ++completed_;
  SharedMemory &shared = *warps_[0].warp().block->shared;
  uint32_t arrivedOnly = 0;
  for (size_t i = 0; i < barrier.lanes.size(); ++i)
    arrivedOnly |= uint32_t(barrier.lanes[i] && !(barrier.syncing >> i & 1)) << i;
  shared.barrier(barrier.syncing);
  for (WarpRun &run : warps_) {
    for (Split &split : run.splits()) {
      if (split.state != Split::State::Barrier || split.barrier != number)
        continue;
      deliver(barrier, run, split);
      split.state = Split::State::Ready;
      ++split.pc;
    }
    if (arrivedOnly && barrier.syncing >> run.warp().id & 1)
      shared.acquire(run.warp().id, tokens_[number]);
  }
  if (arrivedOnly)
    tokens_[number] = {};
}

void Barriers::settle() {
  for (int number = 0; number < int(named_.size()); ++number)
    if (named_[number].used && isComplete(named_[number]))
      release(number);
}

} // namespace kvq::ptxsim
