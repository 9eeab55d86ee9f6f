// SPDX-License-Identifier: Apache-2.0
//
// The text of a split policy and its bounds.
#include "runtime/format/split_policy.h"

#include <gtest/gtest.h>

using namespace kvq;

namespace {

TEST(SplitPolicy, EveryTextRoundTrips) {
  EXPECT_EQ(toText(SplitPolicy()), "tokens=1024,programs=128,least=16,most=64");
  for (int tokens : {16, 100, 1 << 20})
    for (int programs : {1, 65536})
      for (int least : {1, 512})
        for (int most : {least, 512}) {
          const SplitPolicy policy{tokens, programs, least, most};
          auto parsed = parseSplitPolicy(toText(policy));
          ASSERT_TRUE(parsed.isOk()) << parsed.status().message();
          EXPECT_EQ(parsed.value(), policy);
          EXPECT_LT(toText(policy).size(), 64u); // kvq.h: 64 bytes are enough
        }
}

TEST(SplitPolicy, OneTextEachAndASentenceForOthers) {
  const auto refusal = [](std::string_view text) {
    auto parsed = parseSplitPolicy(text);
    EXPECT_FALSE(parsed.isOk()) << text;
    EXPECT_EQ(parsed.status().code(), Code::InvalidArgument);
    return parsed.status().message();
  };
  EXPECT_EQ(refusal("tokens=1024,programs=128"),
            "the split policy 'tokens=1024,programs=128' has no knob least in place "
            "3: write it as in tokens=1024,programs=128,least=16,most=64");
  EXPECT_EQ(refusal("tokens=8,programs=128,least=16,most=64"),
            "the split policy 'tokens=8,programs=128,least=16,most=64' has tokens 8: it can be 16 to 1048576");
  EXPECT_NE(refusal("").find("no knob tokens"), std::string::npos);
  EXPECT_NE(refusal("tokens=x,programs=128,least=16,most=64").find("which is no number"), std::string::npos);
  for (const auto &[text, part] : {std::pair("tokens=1048577,programs=128,least=16,most=64", "has tokens 1048577"),
                                   {"tokens=64,programs=0,least=16,most=64", "has programs 0: it can be 1 to 65536"},
                                   {"tokens=64,programs=65537,least=16,most=64", "has programs 65537"},
                                   {"tokens=64,programs=1,least=0,most=64", "has least 0: it can be 1 to 512"},
                                   {"tokens=64,programs=1,least=513,most=513", "has least 513"},
                                   {"tokens=64,programs=1,least=16,most=15", "has most 15: it can be 16 to 512"},
                                   {"tokens=64,programs=1,least=16,most=513", "has most 513"},
                                   {"tokens=64,programs=1,least=16,most=64,more=1", "behind its last knob"}})
    EXPECT_NE(refusal(text).find(part), std::string::npos) << text;
}

} // namespace
