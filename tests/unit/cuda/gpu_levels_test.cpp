// SPDX-License-Identifier: Apache-2.0
//
// What is compiled for which GPU.
#include "runtime/device/accelerator_device.h"

#include <gtest/gtest.h>

namespace kvq {
namespace {

TEST(GpuLevels, TheNewestThatAGpuRuns) {
  const std::tuple<int, int, const char *> expected[] = {
      {8, 0, "nvptx:sm_80"},   {8, 6, "nvptx:sm_86"},   {8, 7, "nvptx:sm_86"},   {8, 9, "nvptx:sm_89"},
      {9, 0, "nvptx:sm_90"},   {10, 0, "nvptx:sm_100"}, {10, 3, "nvptx:sm_100"}, {11, 0, "nvptx:sm_100"},
      {12, 0, "nvptx:sm_120"}, {12, 1, "nvptx:sm_120"}, {13, 5, "nvptx:sm_120"}};
  for (const auto &[major, minor, level] : expected)
    EXPECT_EQ(acceleratorLevel(major, minor, nullptr).value(), level);
  EXPECT_EQ(acceleratorLevels(8, 9), "nvptx:sm_80 nvptx:sm_86 nvptx:sm_89");
}

TEST(GpuLevels, Refused) {
  const Status old = acceleratorLevel(7, 5, nullptr).status();
  EXPECT_EQ(old.code(), Code::Unsupported);
  EXPECT_NE(old.message().find("compute capability 7.5"), std::string::npos) << old.message();
  EXPECT_EQ(acceleratorLevel(9, 0, "sm_80").value(), "nvptx:sm_80");
  EXPECT_EQ(acceleratorLevel(9, 0, "nvptx:sm_90").value(), "nvptx:sm_90");
  for (const char *level : {"sm_100", "nvptx:sm_100", "sm_8", "", "nvptx:", "avx512", "nvptx:sm_80 nvptx:sm_86"}) {
    const Status status = acceleratorLevel(9, 0, level).status();
    EXPECT_EQ(status.code(), Code::InvalidArgument) << level;
    EXPECT_NE(status.message().find("use one of nvptx:sm_80 nvptx:sm_86 nvptx:sm_89 nvptx:sm_90"), std::string::npos);
  }
}

} // namespace
} // namespace kvq
