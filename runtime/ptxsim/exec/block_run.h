// SPDX-License-Identifier: Apache-2.0
//
// The blocks that one host thread executes, one after the other, in memory that is laid out once.
#pragma once

#include "runtime/ptxsim/exec/barrier.h"
#include "runtime/ptxsim/exec/warp_run.h"
#include "runtime/ptxsim/memory/async_copy.h"
#include "runtime/ptxsim/memory/local_memory.h"
#include "runtime/ptxsim/memory/shared_memory.h"

#include <atomic>
#include <deque>

namespace kvq::ptxsim {

// How the launch ended for this worker; the first of several blocks in natural order is kept.
struct BlockEnd {
  Report::End end = Report::End::Ok;
  uint64_t block = 0;
  std::string message;
};

class BlockRun {
public:
  explicit BlockRun(const LaunchState &launch);
  // `budget` is shared by the workers of a launch.
  BlockEnd run(uint64_t blockNumber, std::atomic<int64_t> &budget);
  Worker &worker() { return worker_; }

private:
  void reset(uint64_t blockNumber);
  void fillFrame(Warp &warp);
  void fillSpecials(Warp &warp);
  uint64_t special(Special special, int warp, int lane) const;
  bool ready(size_t warp);
  int pick();
  BlockEnd stuck(Report::End end, const std::string &why) const;

  const LaunchState &launch_;
  Worker worker_;
  Block block_;
  SharedMemory shared_;
  Barriers barriers_;
  std::vector<WarpRun> runs_;
  std::vector<char> runnable_;
  size_t turn_ = 0;
  std::deque<LocalMemory> local_;
  std::deque<WarpAsync> async_;
  uint32_t maskBytes_ = 0;               // of written registers, at the beginning of a frame
  std::vector<std::byte> masks_;         // as they are when a block starts
  std::unique_ptr<std::byte[]> storage_; // frames
};

} // namespace kvq::ptxsim
