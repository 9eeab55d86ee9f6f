// SPDX-License-Identifier: Apache-2.0
//
// The parked thread pool.
#include "runtime/device/cpu/thread_pool.h"

#include <sched.h>
#include <system_error>

namespace kvq {

int usableThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0)
    return CPU_COUNT(&set);
  unsigned count = std::thread::hardware_concurrency();
  return count ? static_cast<int>(count) : 1;
}

ThreadPool::ThreadPool(int threads) {
  if (threads <= 0)
    threads = usableThreads();
  for (int i = 1; i < threads; ++i) {
    // A system that refuses another thread leaves a smaller pool: slower, never wrong.
    try {
      workers_.emplace_back([this] { worker(); });
    } catch (const std::system_error &) {
      break;
    }
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread &thread : workers_)
    thread.join();
}

void ThreadPool::drain() {
  for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;)
    task_(data_, i);
}

void ThreadPool::worker() {
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    // A worker that wakes up after the run has ended does not join it: the caller never waits for a sleeping thread.
    wake_.wait(lock, [&] { return stop_ || (open_ && generation_ != seen); });
    if (stop_)
      return;
    seen = generation_;
    active_.fetch_add(1, std::memory_order_relaxed);
    lock.unlock();
    drain();
    lock.lock();
    if (active_.fetch_sub(1, std::memory_order_release) == 1 && !open_)
      done_.notify_one();
  }
}

void ThreadPool::run(int64_t count, ParallelTask task, void *data) {
  std::unique_lock<std::mutex> exclusive(running_, std::try_to_lock);
  if (!exclusive.owns_lock() || workers_.empty() || count <= 1) {
    for (int64_t i = 0; i < count; ++i)
      task(data, i);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    task_ = task, data_ = data, count_ = count;
    next_.store(0, std::memory_order_relaxed);
    open_ = true;
    ++generation_;
  }
  wake_.notify_all();
  drain();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = false;
  }
  // Some microseconds: below the cost of going to sleep and being woken.
  for (int spin = 0; spin < 200 && active_.load(std::memory_order_acquire) != 0; ++spin)
    __builtin_ia32_pause();
  if (active_.load(std::memory_order_acquire) != 0) {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return active_.load(std::memory_order_acquire) == 0; });
  }
}

} // namespace kvq
