// SPDX-License-Identifier: Apache-2.0
//
// A parallel-for over the caller's thread and parked workers. Workers sleep between runs and never spin; the caller
// spins for a few microseconds at the end of a run, where the last worker is about to finish, and then sleeps too.
#pragma once

#include "runtime/device/device.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace kvq {

class ThreadPool : public ParallelFor {
public:
  // threads includes the caller's; 0: all that the process may use.
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  // Indices are handed out one by one. While another thread runs something here, the caller works off all indices
  // itself: two callers never wait for each other.
  void run(int64_t count, ParallelTask task, void *data) override;
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

private:
  void worker();
  void drain();

  std::vector<std::thread> workers_;
  std::mutex running_; // held by the caller of the run in progress
  std::mutex mutex_;   // guards generation_, open_ and stop_
  std::condition_variable wake_, done_;
  uint64_t generation_ = 0;
  bool open_ = false; // workers may join the run
  bool stop_ = false;
  ParallelTask task_ = nullptr;
  void *data_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<int> active_{0}; // workers inside the run
};

// Threads that this process may use (its affinity mask).
int usableThreads();

} // namespace kvq
