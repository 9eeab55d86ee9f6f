// SPDX-License-Identifier: Apache-2.0
//
// The parked thread pool.
#include "runtime/device/cpu/thread_pool.h"

#include <sched.h>
#include <system_error>
#include <unistd.h>

namespace kvq {

// 40 to 140 cycles each on x86-64, by generation: at most about ten microseconds in all.
static constexpr int kSpins = 200;

static void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb"); // `yield` takes no time on most cores
#endif
}

int usableThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0)
    return CPU_COUNT(&set);
  unsigned count = std::thread::hardware_concurrency();
  return count ? static_cast<int>(count) : 1;
}

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()), process_(::getpid()) {
  if (threads <= 0)
    threads = usableThreads();
  for (int i = 1; i < threads; ++i) {
    // A system that refuses another thread leaves a smaller pool: slower, never wrong.
    try {
      state_->workers.emplace_back([state = state_.get()] { state->worker(); });
    } catch (const std::system_error &) {
      break;
    }
  }
}

bool ThreadPool::forked() const { return ::getpid() != process_; }

ThreadPool::~ThreadPool() {
  if (forked()) {
    // Joining threads that are not there, or destroying what they waited on, would wait for ever.
    (void)state_.release();
    return;
  }
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (std::thread &thread : state_->workers)
    thread.join();
}

void ThreadPool::State::drain() {
  for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
    task(data, i);
}

void ThreadPool::State::worker() {
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    // A worker that wakes up after the run has ended does not join it: the caller never waits for a sleeping thread.
    wake.wait(lock, [&] { return stop || (open && generation != seen); });
    if (stop)
      return;
    seen = generation;
    active.fetch_add(1, std::memory_order_relaxed);
    lock.unlock();
    drain();
    lock.lock();
    if (active.fetch_sub(1, std::memory_order_release) == 1 && !open)
      done.notify_one();
  }
}

void ThreadPool::run(int64_t count, ParallelTask task, void *data) {
  State &state = *state_;
  if (state.workers.empty() || count <= 1 || forked() || state.running.exchange(true, std::memory_order_acquire)) {
    for (int64_t i = 0; i < count; ++i)
      task(data, i);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(state.mutex);
    state.task = task, state.data = data, state.count = count;
    state.next.store(0, std::memory_order_relaxed);
    state.open = true;
    ++state.generation;
  }
  // No more than can find an index: the others would wake up for nothing.
  if (const auto workers = static_cast<int64_t>(state.workers.size()); count - 1 >= workers)
    state.wake.notify_all();
  else
    for (int64_t i = 1; i < count; ++i)
      state.wake.notify_one();
  state.drain();
  {
    std::lock_guard<std::mutex> lock(state.mutex);
    state.open = false;
  }
  // Some microseconds: below the cost of going to sleep and being woken.
  for (int spin = 0; spin < kSpins && state.active.load(std::memory_order_acquire) != 0; ++spin)
    pause();
  if (state.active.load(std::memory_order_acquire) != 0) {
    std::unique_lock<std::mutex> lock(state.mutex);
    state.done.wait(lock, [&] { return state.active.load(std::memory_order_acquire) == 0; });
  }
  state.running.store(false, std::memory_order_release);
}

} // namespace kvq
