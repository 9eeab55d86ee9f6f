// SPDX-License-Identifier: Apache-2.0
//
// The thread pool: every index once, whatever is going on.
#include "runtime/device/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

using namespace kvq;

namespace {

using Counts = std::vector<std::atomic<int>>;

void countUp(void *data, int64_t index) { (*static_cast<Counts *>(data))[index].fetch_add(1); }

void expectOnce(const Counts &counts) {
  for (size_t i = 0; i < counts.size(); ++i)
    ASSERT_EQ(counts[i].load(), 1) << i;
}

TEST(ThreadPool, EachIndexRunsOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t count : {0, 1, 2, 1000}) {
      Counts counts(count);
      pool.run(count, countUp, &counts);
      expectOnce(counts);
    }
  }
}

TEST(ThreadPool, ZeroTakesWhatTheProcessMayUse) { EXPECT_EQ(ThreadPool(0).threads(), usableThreads()); }

TEST(ThreadPool, ManySmallRunsFollowEachOther) {
  ThreadPool pool(3);
  for (int run = 0; run < 3000; ++run) {
    Counts counts(4);
    pool.run(4, countUp, &counts);
    expectOnce(counts);
  }
}

TEST(ThreadPool, WorkersTakePart) {
  ThreadPool pool(2);
  // Two tasks that each wait for the other: one thread alone would never finish.
  struct Meeting {
    std::mutex mutex;
    std::condition_variable changed;
    int arrived = 0;
  } meeting;
  pool.run(
      2,
      [](void *data, int64_t) {
        auto &meeting = *static_cast<Meeting *>(data);
        std::unique_lock<std::mutex> lock(meeting.mutex);
        ++meeting.arrived;
        meeting.changed.notify_all();
        meeting.changed.wait(lock, [&] { return meeting.arrived == 2; });
      },
      &meeting);
  EXPECT_EQ(meeting.arrived, 2);
}

TEST(ThreadPool, CallersAtOnceAndRunsWithinRunsFinish) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::vector<Counts> counts(4);
  for (Counts &mine : counts)
    mine = Counts(500);
  for (Counts &mine : counts)
    callers.emplace_back([&pool, &mine] { pool.run(500, countUp, &mine); });
  for (std::thread &caller : callers)
    caller.join();
  for (const Counts &mine : counts)
    expectOnce(mine);

  struct Nested {
    ThreadPool &pool;
    std::vector<Counts> counts;
  } nested{pool, std::vector<Counts>(8)};
  for (Counts &inner : nested.counts)
    inner = Counts(100);
  pool.run(
      8,
      [](void *data, int64_t index) {
        auto &nested = *static_cast<Nested *>(data);
        nested.pool.run(100, countUp, &nested.counts[index]);
      },
      &nested);
  for (const Counts &inner : nested.counts)
    expectOnce(inner);
}

TEST(ThreadPool, AForkedChildWorksAloneAndEnds) {
  auto pool = std::make_unique<ThreadPool>(3);
  Counts before(100);
  pool->run(100, countUp, &before);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(20); // a child that waits for threads which it does not have ends by this signal
    Counts counts(100);
    for (int run = 0; run < 3; ++run)
      pool->run(100, countUp, &counts);
    pool.reset();
    _exit(std::all_of(counts.begin(), counts.end(), [](const auto &count) { return count == 3; }) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  Counts after(100);
  pool->run(100, countUp, &after);
  expectOnce(after);
}

} // namespace
