// SPDX-License-Identifier: Apache-2.0
//
// The texts of schedules and of the lists of legal ones.
#include "runtime/format/schedule.h"

#include <gtest/gtest.h>

using namespace kvq;

namespace {

constexpr const char *kExample = "tile_tokens=64,rows=8,vectors=8,prefetch=1";

TEST(Schedule, EveryTextRoundTrips) {
  EXPECT_EQ(toText(Schedule()), kExample);
  for (int tokens : {16, 256})
    for (int rows : {1, 16})
      for (int vectors : {2, 8})
        for (int prefetch : {0, 4})
          for (int blocks : {0, 3})
            for (int warps : {1, 4}) {
              const Schedule schedule{tokens, rows, vectors, prefetch, blocks, warps};
              auto parsed = parseSchedule(toText(schedule));
              ASSERT_TRUE(parsed.isOk()) << parsed.status().message();
              EXPECT_EQ(parsed.value(), schedule);
            }
  EXPECT_EQ(toText(Schedule{64, 8, 8, 1, 3}), kExample + std::string(",blocks=3"));
  EXPECT_EQ(toText(Schedule{64, 8, 8, 1, 0, 4}), kExample + std::string(",warps=4"));
}

TEST(Schedule, OneTextEachAndASentenceForOthers) {
  const auto refusal = [](std::string_view text) {
    auto parsed = parseSchedule(text);
    EXPECT_FALSE(parsed.isOk()) << text;
    EXPECT_EQ(parsed.status().code(), Code::InvalidArgument);
    return parsed.status().message();
  };
  EXPECT_EQ(refusal("tile_tokens=64,rows=8,prefetch=1"),
            "the schedule 'tile_tokens=64,rows=8,prefetch=1' has no knob vectors in place 3: write it as in "
            "tile_tokens=64,rows=8,vectors=8,prefetch=1");
  EXPECT_NE(refusal("").find("no knob tile_tokens in place 1"), std::string::npos);
  EXPECT_NE(refusal("rows=8,tile_tokens=64,vectors=8,prefetch=1").find("in place 1"), std::string::npos);
  for (const char *value : {"", "x", "-1", "064", "64 ", "1234567890"})
    EXPECT_NE(refusal("tile_tokens=" + std::string(value) + ",rows=8,vectors=8,prefetch=1").find("which is no number"),
              std::string::npos)
        << value;
  EXPECT_NE(refusal("tile_tokens,rows=8,vectors=8,prefetch=1").find("which is no number"), std::string::npos);
  EXPECT_NE(refusal(kExample + std::string(",blocks=0")).find("has blocks=0, which is left out"), std::string::npos);
  EXPECT_NE(refusal(kExample + std::string(",warps=1")).find("has warps=1, which is left out"), std::string::npos);
  for (const char *before : {"", ",blocks=3", ",warps=4", ",blocks=3,warps=4"})
    EXPECT_NE(refusal(kExample + std::string(before) + ",unroll=2").find("has 'unroll=2' behind its last knob"),
              std::string::npos);
  EXPECT_NE(refusal(kExample + std::string(",warps=4,blocks=3")).find("has 'blocks=3' behind its last knob"),
            std::string::npos);
}

TEST(ScheduleSpace, ListsRoundTrip) {
  const ScheduleSpace space{{32, 8, 8, 1}, {{16, 8, 8, 1}, {32, 8, 8, 1}}};
  const std::string text = toText(space);
  EXPECT_EQ(text, "tile_tokens=16,rows=8,vectors=8,prefetch=1\n"
                  "tile_tokens=32,rows=8,vectors=8,prefetch=1 (default)\n");
  auto parsed = parseScheduleSpace(text);
  ASSERT_TRUE(parsed.isOk()) << parsed.status().message();
  EXPECT_EQ(parsed.value().standard, space.standard);
  EXPECT_EQ(parsed.value().schedules, space.schedules);
  for (const char *other : {"", kExample, "tile_tokens=16 (default)\n"})
    EXPECT_EQ(parseScheduleSpace(other).status().code(), Code::InvalidArgument) << other;
  EXPECT_FALSE(parseScheduleSpace(text + kExample + " (default)").isOk());
}

TEST(ScheduleSpace, AnIllegalScheduleIsToldTheNearestOne) {
  const ScheduleSpace space{{32, 8, 8, 1}, {{16, 8, 8, 0}, {32, 8, 8, 1}, {32, 4, 8, 2}}};
  for (const Schedule &schedule : space.schedules)
    EXPECT_TRUE(checkSchedule(space, schedule).isOk());
  EXPECT_EQ(checkSchedule(space, {48, 8, 8, 1}).message(),
            "the schedule tile_tokens=48,rows=8,vectors=8,prefetch=1 has tile_tokens 48, which can be 16, 32 here: the "
            "nearest that fits is tile_tokens=32,rows=8,vectors=8,prefetch=1");
  // Knobs depend on each other: with 4 rows 2 pages ahead alone.
  const Status status = checkSchedule(space, {32, 4, 8, 1});
  EXPECT_EQ(status.code(), Code::InvalidArgument);
  EXPECT_NE(status.message().find("has prefetch 1, which can be 2 here"), std::string::npos) << status.message();
}

} // namespace
