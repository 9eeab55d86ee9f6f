// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/exec/warp_run.h"

#include "runtime/ptxsim/decode/registry.h"
#include "runtime/ptxsim/exec/barrier.h"

#include <algorithm>
#include <cstdio>

namespace kvq::ptxsim {

namespace {
constexpr uint32_t kNever = ~0u;
constexpr uint64_t kUnlimited = ~uint64_t(0);
} // namespace

void WarpRun::prepare(const LaunchState &launch, Worker &worker, Block &block, Warp &warp) {
  launch_ = &launch;
  worker_ = &worker;
  warp_ = &warp;
  operations_ = launch.kernel->operations.data();
  count_ = uint32_t(launch.kernel->operations.size());
  checkRegisters_ = launch.options.has(Check::UninitRegister);
  reconverge_ = launch.options.schedule == Schedule::Reconverge;
  warp.block = &block;
  warp.worker = &worker;
}

void WarpRun::start() {
  warp_->alive = warp_->existing;
  warp_->carry = 0;
  executed_ = 0;
  splits_.assign(1, {0, warp_->existing, -1, Split::State::Ready, 0, 0, false});
  joins_.clear();
  freeJoins_.clear();
}

WarpRun::End WarpRun::run(Barriers &barriers, uint64_t &budget) {
  while (!splits_.empty()) {
    uint32_t stopAt = kNever;
    bool stopBeyond = false;
    uint64_t slice = kUnlimited;
    const int index = choose(stopAt, stopBeyond, slice);
    if (index < 0) {
      if (wakeCollectives() || wakeAligned())
        continue;
      return End::Waiting;
    }
    uint64_t limit = std::min(slice, budget);
    const uint64_t before = limit;
    const Stop stop = runSplit(size_t(index), stopAt, stopBeyond, limit, barriers);
    budget -= before - limit;
    if (stop == Stop::Trap)
      return End::Trapped;
    if (stop == Stop::Reached && reconverge_)
      arrive(size_t(index));
    if (stop == Stop::Budget && budget == 0) {
      // The other splits come first next time: one of them may be what this one waits for in a loop.
      std::rotate(splits_.begin(), splits_.begin() + index, splits_.begin() + index + 1);
      wakeCollectives();
      return End::Paused;
    }
  }
  return End::Done;
}

// The split that runs next and how far; -1: none can.
int WarpRun::choose(uint32_t &stopAt, bool &stopBeyond, uint64_t &slice) {
  Random &random = worker_->random;
  const bool seeded = launch_->options.seed != 0;
  if (splits_.size() == 1) {
    if (splits_[0].state != Split::State::Ready)
      return -1;
    if (reconverge_ && splits_[0].join >= 0)
      stopAt = joins_[splits_[0].join].pc;
    return 0;
  }
  if (!reconverge_)
    mergeEqual();
  int best = -1;
  uint32_t ready = 0;
  for (size_t i = 0; i < splits_.size(); ++i) {
    if (splits_[i].state != Split::State::Ready)
      continue;
    ++ready;
    if (seeded && reconverge_) {
      if (random.below(ready) == 0)
        best = int(i);
    } else if (best < 0 || reconverge_ || splits_[i].pc < splits_[best].pc) {
      best = int(i);
    }
  }
  if (best < 0)
    return best;
  if (reconverge_) {
    if (splits_[best].join >= 0)
      stopAt = joins_[splits_[best].join].pc;
    return best;
  }
  if (seeded && random.below(4) == 0) { // a split runs ahead without waiting for anybody
    uint32_t pick = random.below(ready);
    for (size_t i = 0; i < splits_.size(); ++i)
      if (splits_[i].state == Split::State::Ready && pick-- == 0)
        best = int(i);
    slice = 1 + random.below(64);
    return best;
  }
  for (const Split &split : splits_)
    if (split.state == Split::State::Ready && split.pc > splits_[best].pc)
      stopAt = std::min(stopAt, split.pc);
  stopBeyond = true;
  return best;
}

// Whether the hardware would let lanes that have not met yet meet here: the instruction is .aligned, and other lanes
// can go on, perhaps to this place.
bool WarpRun::mustWait(size_t index, const Op &op) const {
  const bool aligned = op.flow == Flow::Barrier ? barrierAligned(op) : op.flow == Flow::Collective && op.member < 0;
  if (!aligned || splits_[index].alone)
    return false;
  for (size_t i = 0; i < splits_.size(); ++i)
    if (i != index && (splits_[i].state == Split::State::Ready || splits_[i].state == Split::State::Aligned))
      return true;
  return false;
}

// Nobody else comes: those that stand at one place go on together, and whoever is still missing is a finding.
bool WarpRun::wakeAligned() {
  bool any = false;
  for (Split &split : splits_)
    if (split.state == Split::State::Aligned) {
      split.state = Split::State::Ready;
      any = split.alone = true;
    }
  return any;
}

void WarpRun::mergeEqual() {
  for (size_t i = 0; i < splits_.size(); ++i)
    for (size_t j = splits_.size() - 1; j > i; --j)
      if (splits_[i].state == Split::State::Ready && splits_[j].state == Split::State::Ready &&
          splits_[i].pc == splits_[j].pc) {
        splits_[i].mask |= splits_[j].mask;
        splits_.erase(splits_.begin() + long(j));
      }
}

WarpRun::Stop WarpRun::runSplit(size_t index, uint32_t stopAt, bool stopBeyond, uint64_t &budget, Barriers &barriers) {
  uint64_t *const warpExecutions = worker_->warpExecutions.data();
  uint64_t *const threadExecutions = worker_->threadExecutions.data();
  Split *split = &splits_[index];
  uint32_t pc = split->pc;
  const uint32_t mask = split->mask;
  Stop stop = Stop::Reached;
  while (true) {
    if (pc == stopAt || (stopBeyond && pc > stopAt))
      break;
    if (budget == 0) {
      stop = Stop::Budget;
      break;
    }
    if (pc == count_) { // the end of the body is a return
      exit(index, mask);
      return Stop::Left;
    }
    const Op &op = operations_[pc];
    if (op.flow >= Flow::Barrier && !reconverge_ && mask != warp_->alive && mustWait(index, op)) {
      split->state = Split::State::Aligned;
      stop = Stop::Waits;
      break;
    }
    uint32_t active = mask;
    if (op.guarded) {
      if (checkRegisters_ && (mask & ~warp_->written(op.guard)))
        checkGuard(op, mask);
      const uint32_t guard = warp_->predicate(op.guard);
      active &= op.guardNegated ? ~guard : guard;
    }
    --budget;
    ++executed_;
    ++warpExecutions[pc];
    threadExecutions[pc] += uint64_t(std::popcount(active));
    if (op.flow == Flow::None) {
      if (active)
        execute(op, active);
      ++pc;
      continue;
    }
    if (op.flow == Flow::Branch && (active == 0 || active == mask)) {
      if (op.guarded)
        ++worker_->counters.branches;
      pc = active ? op.target : pc + 1;
      continue;
    }
    if (op.flow == Flow::Clock) {
      refreshClocks(executed_);
      if (active)
        execute(op, active);
      ++pc;
      continue;
    }
    split->pc = pc;
    if (active == 0) {
      ++pc;
      continue;
    }
    const size_t splitsBefore = splits_.size();
    stop = step(*split, op, active, barriers);
    if (stop != Stop::Reached)
      return stop;
    split = &splits_[index];
    pc = split->pc;
    if (splits_.size() != splitsBefore || split->mask != mask || split->state != Split::State::Ready)
      return Stop::Diverged;
  }
  split->pc = pc;
  return stop;
}

// Everything that is not a plain operation. Reached: goes on at split.pc.
WarpRun::Stop WarpRun::step(Split &split, const Op &op, uint32_t active, Barriers &barriers) {
  const size_t index = size_t(&split - splits_.data());
  split.alone = false;
  switch (op.flow) {
  case Flow::Branch:
    branch(index, op, active, op.target);
    return Stop::Diverged;
  case Flow::BranchTable:
    return branchTable(index, op, active);
  case Flow::Exit:
    exit(index, active);
    return Stop::Left;
  case Flow::Trap:
    trapLine_ = op.line;
    return Stop::Trap;
  case Flow::Collective:
  case Flow::WarpSync:
    return collective(index, op, active) ? Stop::Reached : Stop::Waits;
  case Flow::Barrier:
    if (active != split.mask)
      divide(index, active, split.pc + 1);
    if (checkRegisters_)
      checkRead(op, active);
    if (barriers.arrive(*this, splits_[index], op))
      ++splits_[index].pc;
    return splits_[index].state == Split::State::Ready ? Stop::Reached : Stop::Waits;
  default:
    return Stop::Reached;
  }
}

void WarpRun::execute(const Op &op, uint32_t active) {
  if (op.propagates) {
    uint32_t known = active;
    for (int i = 0; i < op.sourceCount; ++i)
      known &= warp_->written(op.sources[i]);
    op.run(*warp_, op, active);
    for (int i = 0; i < op.resultCount; ++i) {
      uint32_t &written = warp_->written(op.results[i]);
      written = (written & ~active) | known;
    }
    return;
  }
  if (checkRegisters_)
    checkRead(op, active);
  op.run(*warp_, op, active);
  for (int i = 0; i < op.resultCount; ++i)
    warp_->written(op.results[i]) |= active;
}

void WarpRun::checkRead(const Op &op, uint32_t active) {
  uint32_t missing = 0;
  for (int i = 0; i < op.sourceCount; ++i)
    missing |= active & ~warp_->written(op.sources[i]);
  missing &= op.readers;
  if (missing)
    report(*warp_, op, Check::UninitRegister, missing, "reads a register that this thread has not written");
}

void WarpRun::checkGuard(const Op &op, uint32_t lanes) {
  report(*warp_, op, Check::UninitRegister, lanes & ~warp_->written(op.guard),
         "its predicate is a register that this thread has not written");
}

// Lanes of a split go on at pc as a split of their own; the others stay where they are.
void WarpRun::divide(size_t index, uint32_t lanes, uint32_t pc) {
  Split other = splits_[index];
  other.mask &= ~lanes;
  other.pc = pc;
  splits_[index].mask = lanes;
  splits_.push_back(other);
}

void WarpRun::branch(size_t index, const Op &op, uint32_t taken, uint32_t target) {
  ++worker_->counters.branches;
  ++worker_->counters.divergentBranches;
  Split &split = splits_[index];
  if (reconverge_ && op.reconverge < count_ && !(split.join >= 0 && joins_[split.join].pc == op.reconverge)) {
    const int join = newJoin(op.reconverge, split.mask, split.join);
    splits_[index].join = join;
  }
  Split other = splits_[index];
  other.mask = taken;
  other.pc = target;
  splits_[index].mask &= ~taken;
  ++splits_[index].pc;
  splits_.push_back(other);
}

WarpRun::Stop WarpRun::branchTable(size_t index, const Op &op, uint32_t active) {
  if (checkRegisters_)
    checkRead(op, active);
  const uint32_t *values = warp_->at<uint32_t>(op.sources[0]);
  const std::vector<uint32_t> &targets = *op.targets;
  // The lanes with the value of the lowest lane go now, the others come here again.
  const uint32_t value = values[std::countr_zero(active)];
  uint32_t same = 0;
  forLanes(active, [&](int lane) { same |= uint32_t(values[lane] == value) << lane; });
  if (value >= targets.size()) {
    report(*warp_, op, Check::Bounds, same,
           "the index " + std::to_string(value) + " is beyond a list of " + std::to_string(targets.size()) + " labels");
    const bool last = same == splits_[index].mask;
    exit(index, same);
    if (!last)
      --splits_[index].pc;
    return Stop::Left;
  }
  if (same == splits_[index].mask) {
    ++worker_->counters.branches;
    splits_[index].pc = targets[value];
    return Stop::Reached;
  }
  branch(index, op, same, targets[value]);
  splits_[index].pc -= same == active ? 0 : 1;
  return Stop::Diverged;
}

uint32_t WarpRun::memberMask(const Op &op, uint32_t active) {
  if (op.member < 0) {
    if (active != kFull)
      report(*warp_, op, Check::Collective, ~active,
             "an .aligned instruction is executed without this lane, which is in other code, predicated off or gone");
    return active;
  }
  const uint32_t *masks = warp_->at<uint32_t>(op.sources[op.member]);
  const uint32_t member = masks[std::countr_zero(active)];
  uint32_t differ = 0;
  forLanes(active, [&](int lane) { differ |= uint32_t(masks[lane] != member) << lane; });
  if (differ)
    report(*warp_, op, Check::Mask, differ, "the lanes that execute this do not agree on the member mask");
  if (active & ~member)
    report(*warp_, op, Check::Mask, active & ~member, "the member mask leaves out a lane that executes this");
  if (member & ~warp_->alive)
    report(*warp_, op, Check::Mask, member & ~warp_->alive,
           "the member mask names a lane that does not exist or has left the kernel");
  return (member & warp_->alive) | active;
}

// Whether the split goes on at once. Otherwise it waits for the other lanes of its member mask.
bool WarpRun::collective(size_t index, const Op &op, uint32_t active) {
  const uint32_t member = memberMask(op, active);
  if (member == active) {
    if (op.run)
      execute(op, active);
    ++splits_[index].pc;
    return true;
  }
  if (active != splits_[index].mask)
    divide(index, active, splits_[index].pc + 1);
  splits_[index].state = Split::State::Collective;
  splits_[index].member = member;
  return false;
}

// Runs a collective whose lanes have all arrived, in several splits.
bool WarpRun::wakeCollectives() {
  for (const Split &first : splits_) {
    if (first.state != Split::State::Collective)
      continue;
    const Op &op = operations_[first.pc];
    const uint32_t member = first.member & warp_->alive;
    uint32_t present = 0;
    auto together = [&](const Split &split) {
      const bool samePlace =
          split.pc == first.pc || (op.flow == Flow::WarpSync && operations_[split.pc].flow == op.flow);
      return split.state == Split::State::Collective && samePlace && split.member == first.member;
    };
    for (const Split &split : splits_)
      present |= together(split) ? split.mask : 0;
    if (member & ~present)
      continue;
    if (op.run)
      execute(op, present);
    const Split key = first;
    for (Split &split : splits_)
      if (split.state == Split::State::Collective && split.member == key.member && (split.mask & present)) {
        split.state = Split::State::Ready;
        ++split.pc;
      }
    return true;
  }
  return false;
}

void WarpRun::exit(size_t index, uint32_t lanes) {
  warp_->alive &= ~lanes;
  const int join = splits_[index].join;
  splits_[index].mask &= ~lanes;
  if (splits_[index].mask == 0)
    splits_.erase(splits_.begin() + long(index));
  else
    ++splits_[index].pc;
  for (int at = join; at >= 0;) {
    const int parent = joins_[at].parent;
    joins_[at].expected &= ~lanes;
    settle(at);
    at = parent;
  }
}

void WarpRun::arrive(size_t index) {
  const int join = splits_[index].join;
  joins_[join].arrived |= splits_[index].mask;
  splits_.erase(splits_.begin() + long(index));
  settle(join);
}

// Lets the lanes of a join go on together once all of them are there.
void WarpRun::settle(int index) {
  const Join join = joins_[index];
  if (join.arrived != join.expected)
    return;
  freeJoins_.push_back(index);
  if (join.arrived)
    splits_.push_back({join.pc, join.arrived, join.parent, Split::State::Ready, 0, 0, false});
}

int WarpRun::newJoin(uint32_t pc, uint32_t expected, int parent) {
  if (freeJoins_.empty()) {
    joins_.push_back({pc, expected, 0, parent});
    return int(joins_.size()) - 1;
  }
  const int index = freeJoins_.back();
  freeJoins_.pop_back();
  joins_[index] = {pc, expected, 0, parent};
  return index;
}

void WarpRun::refreshClocks(uint64_t now) {
  for (const SpecialUse &use : launch_->kernel->specials) {
    uint64_t value = now;
    switch (use.special) {
    case Special::ClockHi:
    case Special::GlobaltimerHi:
      value = now >> 32;
      break;
    case Special::Clock:
    case Special::Clock64:
    case Special::Globaltimer:
    case Special::GlobaltimerLo:
      break;
    default:
      continue;
    }
    for (int lane = 0; lane < kLanes; ++lane)
      if (use.bytes == 8)
        warp_->at<uint64_t>(use.slot)[lane] = value;
      else if (use.bytes == 4)
        warp_->at<uint32_t>(use.slot)[lane] = uint32_t(value);
  }
}

std::string WarpRun::where() const {
  std::string text = "warp " + std::to_string(warp_->id) + ": ";
  for (size_t i = 0; i < splits_.size(); ++i) {
    const Split &split = splits_[i];
    if (i)
      text += ", ";
    char lanes[16];
    std::snprintf(lanes, sizeof lanes, "%08x", split.mask);
    if (split.pc < count_) {
      const Op &op = operations_[split.pc];
      text += "line " + std::to_string(op.line) + " (" + (op.form ? op.form->name : std::string("bra")) + ", lanes " +
              lanes + ")";
    } else {
      text += std::string("at the end (lanes ") + lanes + ")";
    }
  }
  return splits_.empty() ? text + "has ended" : text;
}

} // namespace kvq::ptxsim
