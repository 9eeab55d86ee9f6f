// SPDX-License-Identifier: Apache-2.0
//
// A parallel-for over the caller's thread and parked workers. Workers sleep between runs and never spin; the caller
// spins for a few microseconds at the end of a run, where the last worker is about to finish, and then sleeps too.
// A child of fork() has a copy of the pool without its threads: there the caller works off all indices itself.
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
  int threads() const { return static_cast<int>(state_->workers.size()) + 1; }
  int stride() const override { return threads(); }

private:
  struct State {
    void worker();
    void drain();

    std::vector<std::thread> workers;
    std::atomic<bool> running{false}; // whether a run is in progress; its own tasks may ask, so it is no mutex
    std::mutex mutex;                 // guards generation, open and stop
    std::condition_variable wake, done;
    uint64_t generation = 0;
    bool open = false; // workers may join the run
    bool stop = false;
    ParallelTask task = nullptr;
    void *data = nullptr;
    int64_t count = 0;
    std::atomic<int64_t> next{0};
    std::atomic<int> active{0}; // workers inside the run
  };
  bool forked() const;

  std::unique_ptr<State> state_;
  int64_t process_; // the one that has the threads
};

// Threads that this process may use (its affinity mask).
int usableThreads();

} // namespace kvq
