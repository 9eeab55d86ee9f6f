// SPDX-License-Identifier: Apache-2.0
//
// Global memory as the host sees it, and the counting of bytes.
#include "runtime/ptxsim/memory/global_memory.h"
#include "runtime/ptxsim/memory/local_memory.h"
#include "runtime/ptxsim/memory/touched_bytes.h"

#include <gtest/gtest.h>

using namespace kvq;
using namespace kvq::ptxsim;

namespace {

uint64_t make(GlobalMemory &memory, int64_t bytes, const char *name = "x") {
  const Result<uint64_t> base = memory.allocate(bytes, name);
  EXPECT_TRUE(base.isOk()) << base.status().message();
  return base.value();
}

TEST(GlobalMemory, AllocationsHaveWindowsOfTheirOwn) {
  GlobalMemory memory;
  const uint64_t a = make(memory, 100, "a"), b = make(memory, 1, "b");
  EXPECT_EQ(a % 256, 0u);
  EXPECT_NE(a >> 32, b >> 32);
  EXPECT_EQ(memory.find(a + 1000)->name, "a"); // beyond its end, and nobody else's
  EXPECT_EQ(memory.find(0), nullptr);
  EXPECT_EQ(memory.find(~uint64_t(0)), nullptr);
  EXPECT_EQ(memory.bytesInUse(), 101);
}

TEST(GlobalMemory, WritesAndReads) {
  GlobalMemory memory;
  const uint64_t a = make(memory, 16);
  const std::vector<uint8_t> bytes = {1, 2, 3, 4};
  ASSERT_TRUE(memory.write(a + 12, bytes).isOk());
  std::vector<uint8_t> back(4);
  ASSERT_TRUE(memory.read(a + 12, back).isOk());
  EXPECT_EQ(back, bytes);
  EXPECT_EQ(memory.find(a)->written, (std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1}));
  const Status beyond = memory.write(a + 13, bytes);
  EXPECT_EQ(beyond.code(), Code::InvalidArgument);
  EXPECT_NE(beyond.message().find("leave allocation 'x' of 16 bytes"), std::string::npos) << beyond.message();
  EXPECT_FALSE(memory.read(8, back).isOk());
  EXPECT_FALSE(memory.fill(a, 17, 0).isOk());
  EXPECT_TRUE(memory.fill(a, 16, 9).isOk());
}

TEST(GlobalMemory, CopyKeepsWhatIsWritten) {
  GlobalMemory memory;
  const uint64_t a = make(memory, 8);
  ASSERT_TRUE(memory.fill(a, 4, 7).isOk());
  ASSERT_TRUE(memory.copy(a + 2, a, 6).isOk()); // overlapping
  EXPECT_EQ(memory.find(a)->written, (std::vector<uint8_t>{1, 1, 1, 1, 1, 1, 0, 0}));
}

TEST(GlobalMemory, ReleaseTakesOnlyBases) {
  GlobalMemory memory;
  const uint64_t a = make(memory, 8);
  EXPECT_EQ(memory.release(a + 1).code(), Code::InvalidArgument);
  ASSERT_TRUE(memory.release(a).isOk());
  EXPECT_EQ(memory.find(a), nullptr);
  EXPECT_EQ(memory.release(a).code(), Code::InvalidArgument);
  EXPECT_EQ(memory.bytesInUse(), 0);
  EXPECT_NE(make(memory, 8), a); // a pointer to released memory finds nothing
}

TEST(GlobalMemory, RefusesWhatDoesNotFit) {
  GlobalMemory memory;
  EXPECT_EQ(memory.allocate(int64_t(65) << 30, "big").status().code(), Code::ResourceExhausted);
  EXPECT_EQ(memory.allocate(0, "none").status().code(), Code::InvalidArgument);
  EXPECT_EQ(memory.allocate(-1, "none").status().code(), Code::InvalidArgument);
}

TEST(GlobalMemory, RegionsAreDisjointAndSorted) {
  GlobalMemory memory;
  const uint64_t a = make(memory, 100);
  ASSERT_TRUE(memory.addRegion(a + 50, 10, "second").isOk());
  ASSERT_TRUE(memory.addRegion(a, 50, "first").isOk());
  EXPECT_FALSE(memory.addRegion(a + 59, 2, "overlaps").isOk());
  EXPECT_FALSE(memory.addRegion(a + 49, 1, "overlaps").isOk());
  EXPECT_FALSE(memory.addRegion(a + 90, 11, "leaves").isOk());
  ASSERT_EQ(memory.find(a)->regions.size(), 2u);
  EXPECT_EQ(memory.find(a)->regions[0].name, "first");
}

TEST(TouchedBytes, CountsTheUnionOfWorkers) {
  TouchedBytes one, two;
  const uint64_t base = uint64_t(0x7000) << 32;
  one.range(TouchedBytes::kRead, base, 0, 100);
  two.range(TouchedBytes::kRead, base, 90, 20);
  two.range(TouchedBytes::kWritten, base, 65530, 12); // over the end of a page
  uint64_t offsets[32];
  for (uint64_t lane = 0; lane < 32; ++lane)
    offsets[lane] = 1000 + lane * 8;
  one.lanes(TouchedBytes::kRead, base, 0xff, offsets, 4);
  const TouchedBytes *const all[] = {&one, &two};
  EXPECT_EQ(TouchedBytes::count(all), (std::pair<uint64_t, uint64_t>(110 + 32, 12)));
}

TEST(LocalMemory, LanesAreApart) {
  LocalMemory local(24);
  std::memset(local.data(3), 5, 24);
  std::memset(local.written(3), 1, 24);
  EXPECT_EQ(local.written(2)[23], 0);
  EXPECT_EQ(local.written(4)[0], 0);
  local.reset();
  EXPECT_EQ(local.written(3)[0], 0);
}

} // namespace
