// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/exec/block_run.h"

#include "runtime/ptxsim/memory/global_races.h"

#include <algorithm>
#include <cstring>

namespace kvq::ptxsim {

namespace {

// Operations of a warp before the next one gets its turn, where nothing else ends it. Seeded launches take random
// turns.
constexpr uint64_t kTurn = 1 << 16;
constexpr uint32_t kSeededTurn = 256;
constexpr size_t kAlignment = 64;

} // namespace

BlockRun::BlockRun(const LaunchState &launch) : launch_(launch) {
  const Kernel &kernel = *launch.kernel;
  worker_.launch = &launch;
  worker_.warpExecutions.assign(kernel.operations.size() + 1, 0);
  worker_.threadExecutions.assign(kernel.operations.size() + 1, 0);
  const uint64_t threads = launch.launch->block.count();
  const size_t warps = size_t((threads + kLanes - 1) / kLanes);
  storage_ = std::make_unique<std::byte[]>(warps * kernel.frameBytes + kAlignment);
  auto *frames = reinterpret_cast<std::byte *>((reinterpret_cast<uintptr_t>(storage_.get()) + kAlignment - 1) /
                                               kAlignment * kAlignment);
  block_.shared = &shared_;
  block_.warps.resize(warps);
  runs_.resize(warps);
  maskBytes_ = kernel.maskBytes;
  masks_.assign(maskBytes_, std::byte{0});
  auto mark = [&](const Slot &slot) { std::memset(masks_.data() + slot.written, 0xff, sizeof(uint32_t)); };
  for (const Constant &constant : kernel.constants)
    mark(constant.slot);
  for (const SpecialUse &use : kernel.specials)
    mark(use.slot);
  for (size_t i = 0; i < warps; ++i) {
    Warp &warp = block_.warps[i];
    warp.frame = frames + i * kernel.frameBytes;
    warp.id = int(i);
    const uint64_t left = threads - i * kLanes;
    warp.existing = left >= kLanes ? kFull : (1u << left) - 1;
    local_.emplace_back(kernel.attributes.localBytes);
    warp.local = &local_.back();
    async_.emplace_back();
    warp.async = &async_.back();
    fillFrame(warp);
    runs_[i].prepare(launch, worker_, block_, warp);
  }
}

// What stays the same from block to block: immediates, and a pattern where nobody has written yet.
void BlockRun::fillFrame(Warp &warp) {
  std::memset(warp.frame, 0xa5, launch_.kernel->frameBytes);
  for (const Constant &constant : launch_.kernel->constants) {
    if (constant.type == Type::Pred) {
      warp.predicate(constant.slot) = constant.bits ? kFull : 0;
      continue;
    }
    const int bytes = bytesOf(constant.type);
    for (int lane = 0; lane < kLanes; ++lane)
      std::memcpy(warp.at<std::byte>(constant.slot) + lane * bytes, &constant.bits, size_t(bytes));
  }
}

uint64_t BlockRun::special(Special special, int warp, int lane) const {
  const Dim &block = launch_.launch->block, &grid = launch_.launch->grid;
  const uint32_t thread = uint32_t(warp * kLanes + lane);
  switch (special) {
  case Special::TidX:
    return thread % block.x;
  case Special::TidY:
    return thread / block.x % block.y;
  case Special::TidZ:
    return thread / block.x / block.y;
  case Special::NtidX:
    return block.x;
  case Special::NtidY:
    return block.y;
  case Special::NtidZ:
    return block.z;
  case Special::CtaidX:
  case Special::CtaidY:
  case Special::CtaidZ:
    return block_.index[int(special) - int(Special::CtaidX)];
  case Special::NctaidX:
    return grid.x;
  case Special::NctaidY:
    return grid.y;
  case Special::NctaidZ:
    return grid.z;
  case Special::Laneid:
    return uint64_t(lane);
  case Special::Warpid:
    return uint64_t(warp);
  case Special::Nwarpid:
    return block_.warps.size();
  case Special::LanemaskEq:
    return 1u << lane;
  case Special::LanemaskLt:
    return (1u << lane) - 1;
  case Special::LanemaskLe:
    return (2u << lane) - 1;
  case Special::LanemaskGe:
    return ~((1u << lane) - 1);
  case Special::LanemaskGt:
    return ~((2u << lane) - 1);
  case Special::DynamicSmemSize:
    return uint64_t(launch_.launch->dynamicShared);
  case Special::TotalSmemSize:
    return uint64_t(launch_.sharedBytes);
  case Special::Nsmid:
    return 1;
  default: // one multiprocessor, one grid; clocks are brought up to date where they are read
    return 0;
  }
}

void BlockRun::fillSpecials(Warp &warp) {
  for (const SpecialUse &use : launch_.kernel->specials)
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint64_t value = special(use.special, warp.id, lane);
      std::memcpy(warp.at<std::byte>(use.slot) + lane * use.bytes, &value, size_t(use.bytes));
    }
}

void BlockRun::reset(uint64_t blockNumber) {
  const Dim &grid = launch_.launch->grid;
  block_.number = blockNumber;
  block_.index[0] = uint32_t(blockNumber % grid.x);
  block_.index[1] = uint32_t(blockNumber / grid.x % grid.y);
  block_.index[2] = uint32_t(blockNumber / grid.x / grid.y);
  worker_.random = Random(launch_.options.seed ^ (blockNumber + 1) * 0xd1b54a32d192ed03);
  const uint32_t all = block_.warps.size() == 32 ? kFull : (1u << block_.warps.size()) - 1;
  shared_.reset(launch_.sharedBytes, all, launch_.options);
  for (size_t i = 0; i < runs_.size(); ++i) {
    std::memcpy(block_.warps[i].frame, masks_.data(), maskBytes_);
    fillSpecials(block_.warps[i]);
    block_.warps[i].local->reset();
    block_.warps[i].async->reset();
    runs_[i].start();
  }
  barriers_.reset(runs_);
}

bool BlockRun::ready(size_t warp) {
  for (const Split &split : runs_[warp].splits())
    if (split.state == Split::State::Ready)
      return true;
  return false;
}

// The next warp that can go on: in order from the one that ran last, or at random where the launch is seeded; -1: none.
int BlockRun::pick() {
  const size_t count = runs_.size();
  const size_t first = launch_.options.seed ? worker_.random.below(uint32_t(count)) : turn_;
  for (size_t i = 0; i < count; ++i)
    if (const size_t warp = (first + i) % count; runnable_[warp])
      return int(warp);
  return -1;
}

BlockEnd BlockRun::stuck(Report::End end, const std::string &why) const {
  std::string message = "block (" + std::to_string(block_.index[0]) + ", " + std::to_string(block_.index[1]) + ", " +
                        std::to_string(block_.index[2]) + ") " + why;
  for (const WarpRun &run : runs_)
    message += "\n  " + run.where();
  return {end, block_.number, message};
}

BlockEnd BlockRun::run(uint64_t blockNumber, std::atomic<int64_t> &budget) {
  reset(blockNumber);
  runnable_.assign(runs_.size(), 1);
  turn_ = 0;
  size_t left = runs_.size();
  while (left > 0) {
    const int next = pick();
    if (next < 0)
      return stuck(Report::End::Deadlock, "cannot go on; every warp waits:");
    const int64_t available = budget.load(std::memory_order_relaxed);
    if (available <= 0)
      return stuck(Report::End::Limit,
                   "was given up at the limit of " + std::to_string(launch_.options.limit) + " warp instructions:");
    const uint64_t granted =
        std::min(uint64_t(available), launch_.options.seed ? 1 + worker_.random.below(kSeededTurn) : kTurn);
    uint64_t unused = granted;
    const uint64_t barriersBefore = barriers_.completed();
    const WarpRun::End end = runs_[next].run(barriers_, unused);
    budget.fetch_sub(int64_t(granted - unused), std::memory_order_relaxed);
    if (end == WarpRun::End::Trapped)
      return stuck(Report::End::Trap, "executed trap at line " + std::to_string(runs_[next].trapLine()) + ":");
    runnable_[next] = end == WarpRun::End::Paused;
    turn_ = size_t(next) + (end == WarpRun::End::Paused ? 1 : 0);
    left -= end == WarpRun::End::Done;
    barriers_.settle();
    if (barriers_.completed() != barriersBefore)
      for (size_t i = 0; i < runs_.size(); ++i)
        runnable_[i] = runnable_[i] || ready(i);
  }
  worker_.counters.barriers += barriers_.completed();
  return {};
}

} // namespace kvq::ptxsim
