// SPDX-License-Identifier: Apache-2.0
//
// What a GPU has besides kernels: streams and events, architectures, lists of checks.
#include "runtime/ptxsim/gpu/arch.h"
#include "runtime/ptxsim/gpu/option_text.h"
#include "runtime/ptxsim/gpu/work_queue.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kvq::ptxsim {
namespace {

struct Queue : WorkQueue {
  explicit Queue(uint64_t seed = 0) : WorkQueue(seed) {}
  void add(StreamId stream, int number) {
    push(stream, [this, number] {
      done_.push_back(number);
      return Status::ok();
    });
  }
  std::vector<int> done_;
};

TEST(PtxsimWorkQueue, NothingBeforeSomebodyWaits) {
  Queue queue;
  const StreamId a = queue.createStream(false), b = queue.createStream(false);
  queue.add(a, 1);
  queue.add(b, 2);
  queue.add(a, 3);
  EXPECT_FALSE(queue.done(a));
  EXPECT_TRUE(queue.run(a).isOk());
  EXPECT_EQ(queue.done_, (std::vector<int>{1, 3}));
  EXPECT_TRUE(queue.runAll().isOk());
  EXPECT_EQ(queue.done_, (std::vector<int>{1, 3, 2}));
}

TEST(PtxsimWorkQueue, Events) {
  Queue queue;
  const StreamId a = queue.createStream(false), b = queue.createStream(false);
  const EventId event = queue.createEvent();
  EXPECT_TRUE(queue.eventDone(event));
  queue.wait(b, event); // never recorded
  queue.add(a, 1);
  queue.record(event, a);
  queue.add(a, 2);
  queue.wait(b, event);
  queue.add(b, 3);
  EXPECT_FALSE(queue.eventDone(event));
  EXPECT_TRUE(queue.run(b).isOk());
  EXPECT_EQ(queue.done_, (std::vector<int>{1, 3}));
  EXPECT_TRUE(queue.eventDone(event));
  queue.destroyStream(a);
  EXPECT_TRUE(queue.runEvent(event).isOk());
}

TEST(PtxsimWorkQueue, LongChainsOfWaits) {
  Queue queue;
  const StreamId streams[2] = {queue.createStream(false), queue.createStream(false)};
  constexpr int kLinks = 100000;
  const EventId event = queue.createEvent();
  for (int i = 0; i < kLinks; ++i) {
    queue.add(streams[i % 2], i);
    queue.record(event, streams[i % 2]);
    queue.wait(streams[(i + 1) % 2], event);
  }
  EXPECT_TRUE(queue.runEvent(event).isOk());
  EXPECT_EQ(queue.done_.size(), size_t(kLinks));
  EXPECT_TRUE(std::is_sorted(queue.done_.begin(), queue.done_.end()));
}

TEST(PtxsimWorkQueue, DefaultStream) {
  Queue queue;
  const StreamId blocking = queue.createStream(true), free = queue.createStream(false);
  queue.add(blocking, 1);
  queue.add(free, 2);
  queue.add(WorkQueue::kDefaultStream, 3);
  queue.add(blocking, 4);
  EXPECT_TRUE(queue.run(blocking).isOk());
  EXPECT_EQ(queue.done_, (std::vector<int>{1, 3, 4}));
}

TEST(PtxsimWorkQueue, PollingComesToAnEnd) {
  Queue queue;
  const StreamId a = queue.createStream(false);
  queue.add(a, 1);
  queue.add(a, 2);
  EXPECT_TRUE(queue.step(a).isOk());
  EXPECT_FALSE(queue.done(a));
  EXPECT_TRUE(queue.step(a).isOk());
  EXPECT_TRUE(queue.done(a));
  EXPECT_TRUE(queue.step(a).isOk());
}

TEST(PtxsimWorkQueue, AnErrorEndsAllWork) {
  Queue queue;
  const StreamId a = queue.createStream(false), b = queue.createStream(false);
  queue.push(a, [] { return Status(Code::Internal, "broken"); });
  queue.add(a, 1);
  queue.add(b, 2);
  EXPECT_EQ(queue.run(a).message(), "broken");
  EXPECT_TRUE(queue.runAll().isOk());
  EXPECT_TRUE(queue.done_.empty() && queue.done(b));
}

TEST(PtxsimWorkQueue, TheSeedChoosesAnOrder) {
  const auto order = [](uint64_t seed) {
    Queue queue(seed);
    for (int i = 0; i < 6; ++i) {
      const StreamId stream = queue.createStream(false);
      queue.add(stream, 2 * i);
      queue.add(stream, 2 * i + 1);
    }
    EXPECT_TRUE(queue.runAll().isOk());
    return queue.done_;
  };
  EXPECT_EQ(order(3), order(3));
  EXPECT_NE(order(3), order(4));
  const std::vector<int> natural = order(0);
  EXPECT_TRUE(std::is_sorted(natural.begin(), natural.end()));
}

TEST(PtxsimArch, Occupancy) {
  const Arch &a100 = *findArch("sm_80"), &ada = *findArch("sm_89");
  EXPECT_EQ(occupancy(a100, 1024, 0), 2);
  EXPECT_EQ(occupancy(ada, 1024, 0), 1);
  EXPECT_EQ(occupancy(a100, 32, 0), 32);
  EXPECT_EQ(occupancy(a100, 128, 48 << 10), 3);
  EXPECT_EQ(occupancy(a100, 128, 163 << 10), 1);
  EXPECT_EQ(occupancy(a100, 128, 164 << 10), 0);
  EXPECT_EQ(occupancy(a100, 1025, 0), 0);
  EXPECT_EQ(findArch("sm_35"), nullptr);
}

TEST(PtxsimOptions, Checks) {
  const uint32_t all = Options().checks, bounds = 1u << int(Check::Bounds), warp = 1u << int(Check::WarpRace);
  EXPECT_EQ(parseChecks("all").value(), all);
  EXPECT_EQ(parseChecks("none").value(), 0u);
  EXPECT_EQ(parseChecks("bounds").value(), bounds);
  EXPECT_EQ(parseChecks("-bounds").value(), all & ~bounds);
  EXPECT_EQ(parseChecks("all,warp-race,-bounds").value(), (all | warp) & ~bounds);
  EXPECT_FALSE(parseChecks("").isOk() || parseChecks("bounds,,").isOk() || parseChecks("-").isOk());
  Options options;
  EXPECT_FALSE(setOption(options, "checks", "bond").isOk() || setOption(options, "speed", "1").isOk());
  EXPECT_EQ(options.checks, all);
}

} // namespace
} // namespace kvq::ptxsim
