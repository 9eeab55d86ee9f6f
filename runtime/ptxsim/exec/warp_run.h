// SPDX-License-Identifier: Apache-2.0
//
// One warp on its way through a kernel: which lanes stand where, and which of them runs next.
//
// Lanes that stand at one place and run together are a *split*. A divergent branch makes two splits of one. Under
// Schedule::Reconverge they meet again at a *join*, the immediate post-dominator of the branch, where a split waits
// until all lanes of the join are there or have left. Under Schedule::LowestPc there are no joins: the split with the
// lowest operation runs, and splits that stand at the same one become one. Either way a split that waits for others at
// a barrier or for the lanes of its member mask does not hold up the other splits.
#pragma once

#include "runtime/ptxsim/exec/warp.h"

#include <span>

namespace kvq::ptxsim {

struct Split {
  enum class State : uint8_t { Ready, Barrier, Collective, Aligned };
  uint32_t pc = 0;
  uint32_t mask = 0;
  int join = -1;
  State state = State::Ready;
  uint32_t member = 0; // Collective: the mask it waits for
  int barrier = 0;     // Barrier: its number
  bool alone = false;  // it has waited at an .aligned instruction in vain
};

class Barriers; // exec/barrier.h

class WarpRun {
public:
  enum class End : uint8_t { Done, Waiting, Paused, Trapped };

  void prepare(const LaunchState &launch, Worker &worker, Block &block, Warp &warp);
  // The first operation, all existing lanes.
  void start();
  // Runs until the warp has ended, waits, or `budget` operations have been executed.
  End run(Barriers &barriers, uint64_t &budget);
  Warp &warp() const { return *warp_; }
  std::vector<Split> &splits() { return splits_; }
  const Op &opAt(uint32_t pc) const { return operations_[pc]; }
  int trapLine() const { return trapLine_; }
  // "line 12 (bar.sync)" for each split.
  std::string where() const;

private:
  struct Join {
    uint32_t pc = 0, expected = 0, arrived = 0;
    int parent = -1;
  };
  enum class Stop : uint8_t { Reached, Diverged, Waits, Left, Budget, Trap };

  Stop runSplit(size_t index, uint32_t stopAt, bool stopBeyond, uint64_t &budget, Barriers &barriers);
  Stop step(Split &split, const Op &op, uint32_t active, Barriers &barriers);
  void execute(const Op &op, uint32_t active);
  void checkRead(const Op &op, uint32_t active);
  void checkGuard(const Op &op, uint32_t lanes);
  void branch(size_t index, const Op &op, uint32_t taken, uint32_t target);
  Stop branchTable(size_t index, const Op &op, uint32_t active);
  bool collective(size_t index, const Op &op, uint32_t active);
  uint32_t memberMask(const Op &op, uint32_t active);
  bool wakeCollectives();
  void exit(size_t index, uint32_t lanes);
  void arrive(size_t index);
  void settle(int join);
  int newJoin(uint32_t pc, uint32_t expected, int parent);
  int choose(uint32_t &stopAt, bool &stopBeyond, uint64_t &slice);
  bool mustWait(size_t index, const Op &op) const;
  bool wakeAligned();
  void mergeEqual();
  void refreshClocks(uint64_t now);
  void divide(size_t index, uint32_t lanes, uint32_t pc);

  const LaunchState *launch_ = nullptr;
  Worker *worker_ = nullptr;
  Warp *warp_ = nullptr;
  const Op *operations_ = nullptr;
  uint32_t count_ = 0;
  bool checkRegisters_ = true, reconverge_ = true;
  uint64_t executed_ = 0;
  int trapLine_ = 0;
  std::vector<Split> splits_;
  std::vector<Join> joins_;
  std::vector<int> freeJoins_;
};

} // namespace kvq::ptxsim
