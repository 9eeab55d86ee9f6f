// SPDX-License-Identifier: Apache-2.0
//
// Texts of formats, the commit rules and the sizes that follow: docs/format-spec.md sections 1, 4, 5 and 6.
#include "runtime/format/format.h"
#include "runtime/format/layout.h"

#include <gtest/gtest.h>

using namespace kvq;

namespace {

CacheFormat cache(std::string_view text) {
  Result<CacheFormat> format = parseCache(text);
  EXPECT_TRUE(format.isOk()) << format.status().message();
  return format.isOk() ? format.value() : CacheFormat();
}

template <typename T> std::string messageOf(const Result<T> &result) {
  EXPECT_FALSE(result.isOk());
  EXPECT_EQ(result.status().code(), Code::InvalidArgument);
  return result.status().message();
}

std::vector<SideFormat> allSides() {
  std::vector<SideFormat> sides;
  for (int bits : {2, 3, 4, 8}) {
    for (int group : {32, 64, 128, 256})
      sides.push_back({bits, Axis::Channel, group});
    for (int group = 16; group <= 256; group += 16)
      sides.push_back({bits, Axis::Token, group});
    sides.push_back({bits, Axis::Token, kWholeHead});
  }
  return sides;
}

} // namespace

// text_c8, text_c5.
TEST(Format, text_c8_kept_tokens_stand_between_window_and_rule) {
  EXPECT_EQ(toText(cache("kivi-4")), "k4c32-v4t32/w128,sliding");
  EXPECT_EQ(cache("k4c32-v4t32/w128,keep4,sliding").keep, 4);
  EXPECT_EQ(toText(cache("k4c32-v4t32/w128,keep4")), "k4c32-v4t32/w128,keep4,block");
  EXPECT_EQ(toText(cache("k4c32-v4t32/w128,keep0,flush")), "k4c32-v4t32/w128,flush");
  for (const char *text : {"k4c32-v4t32/w128,keep", "k4c32-v4t32/w128,keep1025", "k4c32-v4t32/w128,keep04"})
    EXPECT_NE(parseCache(text).status().message().find("keep and 0 to 1024"), std::string::npos) << text;
  EXPECT_NE(parseCache("k4c32-v4t32/w128,block,keep4").status().message().find("too many"), std::string::npos);
}

// text_c4: the window of `flush` holds whole per-channel groups.
TEST(Format, text_c4_flush_needs_whole_groups) {
  EXPECT_TRUE(parseCache("k4t32-v4t32/w0,flush").isOk());
  EXPECT_TRUE(parseCache("k4c64-v4c32/w64,flush").isOk());
  for (const char *text : {"k4c32-v4t32/w0,flush", "k4c64-v4t32/w96,flush", "k4t32-v4c64/w32,flush"})
    EXPECT_NE(parseCache(text).status().message().find("which flush needs"), std::string::npos) << text;
}

// text_c7: a name that is nearly right is answered with what was meant.
TEST(Format, text_c7_unknown_preset_names_the_nearest) {
  EXPECT_NE(parseCache("kiwi-4").status().message().find("did you mean kivi-4"), std::string::npos);
  EXPECT_NE(parseCache("kvq4").status().message().find("did you mean kvq-4"), std::string::npos);
  EXPECT_EQ(parseCache("something else").status().message().find("did you mean"), std::string::npos);
}

// commit_c7, commit_c8, tail_c1.
TEST(Format, commit_c7_commit_c8_body_tokens_and_whole_windows) {
  const CacheFormat flush = cache("k4t32-v4t32/w5,keep3,flush");
  for (const auto &[tokens, packed] : {std::pair(0, 0), {7, 0}, {8, 5}, {12, 5}, {13, 10}})
    EXPECT_EQ(frontier(flush, tokens), (Frontier{packed, packed})) << tokens;
  EXPECT_EQ(frontier(cache("k4t32-v4t32/w0,flush"), 7), (Frontier{7, 7}));
  EXPECT_EQ(tailCapacity(flush), 48);
  EXPECT_EQ(tailRows(flush), 64);
  EXPECT_EQ(cutUnits(flush), (Frontier{1, 1}));
  EXPECT_EQ(cutUnits(cache("k4c64-v4t32/w64,flush")), (Frontier{64, 64}));
  EXPECT_EQ(cutUnits(cache("k4c64-v4t32/w64,sliding")), (Frontier{64, 1}));
  EXPECT_EQ(cutUnits(cache("k4t32-v4t32/w7,block")), (Frontier{32, 32}));
}

TEST(Format, text_c1_axis_says_what_a_group_is) {
  const CacheFormat format = cache("k4c64-v2t32");
  EXPECT_EQ(format.pair.k, (SideFormat{4, Axis::Channel, 64}));
  EXPECT_EQ(format.pair.v, (SideFormat{2, Axis::Token, 32}));
  EXPECT_EQ(format.pair.k.levels(), 15);
  EXPECT_EQ(format.pair.v.levels(), 3);
}

TEST(Format, text_c2_groups) {
  EXPECT_EQ(messageOf(parseSide("4c16")),
            "group '16' of '4c16' is not legal: a per-channel group is 32, 64, 128 or 256 tokens");
  EXPECT_EQ(messageOf(parseSide("4c512")),
            "group '512' of '4c512' is not legal: a per-channel group is 32, 64, 128 or 256 tokens");
  EXPECT_EQ(messageOf(parseSide("2t40")),
            "group '40' of '2t40' is not legal: a per-token group is h or a multiple of 16 channels, at most 256");
  EXPECT_EQ(messageOf(parseSide("2t272")),
            "group '272' of '2t272' is not legal: a per-token group is h or a multiple of 16 channels, at most 256");
  EXPECT_EQ(messageOf(parseSide("2t0")),
            "group '0' of '2t0' is not legal: a per-token group is h or a multiple of 16 channels, at most 256");
}

TEST(Format, text_c9_the_whole_head_is_a_number_as_soon_as_a_head_has_one) {
  const PairFormat pair = cache("k8th-v4th").pair;
  EXPECT_EQ(toText(cache("k8th-v4th")), "k8th-v4th/w128,block");
  EXPECT_EQ(toText(resolve(pair, 80, 256)), "k8t80-v4t256");
  EXPECT_EQ(resolve(resolve(pair, 80, 256), 64, 64), resolve(pair, 80, 256));
  EXPECT_TRUE(checkShape(pair, 80, 256, 64).isOk());
  EXPECT_EQ(checkShape(pair, 72, 64, 64).message(),
            "K's head size 72 is not legal: use a multiple of 16 from 16 to 256");
  const PageMap whole = pageMap(pair, 64, 80, 256), number = pageMap(resolve(pair, 80, 256), 64, 80, 256);
  EXPECT_EQ(whole.vScale, number.vScale);
  EXPECT_EQ(whole.bytes, number.bytes);
  EXPECT_EQ(messageOf(parseSide("4ch")), "group 'h' of '4ch' is not legal: the whole head is a group per token only, a "
                                         "per-channel group is 32, 64, 128 or 256 tokens");
  for (const char *text : {"4tH", "4th16", "4t16h", "4thh"})
    EXPECT_NE(messageOf(parseSide(text)).find("a per-token group is h or a multiple of 16"), std::string::npos) << text;
}

TEST(Format, text_c3_defaults) {
  EXPECT_EQ(toText(cache("k4c32-v4t32")), "k4c32-v4t32/w128,block");
  EXPECT_EQ(toText(cache("k4c32-v4t32/w64")), "k4c32-v4t32/w64,block");
  EXPECT_EQ(cache("k4c32-v4t32/w0").window, 0);
  EXPECT_EQ(cache("k4c32-v4t32/w65536").window, 65536);
  EXPECT_EQ(messageOf(parseCache("k4c32-v4t32/w65537")),
            "window 'w65537' is not legal: write w and 0 to 65536 tokens, as in w128");
}

TEST(Format, text_c4_sliding) {
  EXPECT_EQ(messageOf(parseCache("k4c32-v4t32/w0,sliding")),
            "window 0 of 'k4c32-v4t32/w0,sliding' is not legal with sliding: use at least w1, or block");
  EXPECT_EQ(messageOf(parseCache("k4t32-v4t32/w128,sliding")),
            "K of 'k4t32-v4t32/w128,sliding' is per token, but sliding needs K per channel: use 'c' for K, or block");
  EXPECT_EQ(messageOf(parseCache("k4c64-v4t32/w96,sliding")),
            "window 96 of 'k4c64-v4t32/w96,sliding' is not a multiple of K's group of 64 tokens, which sliding needs: "
            "change one of the two, or use block");
  EXPECT_EQ(messageOf(parseCache("k4c32-v4c32/w128,sliding")),
            "V of 'k4c32-v4c32/w128,sliding' is per channel, but sliding needs V per token: use 't' for V, or block");
  EXPECT_EQ(cache("k4c32-v4t32/w96,sliding").rule, CommitRule::Sliding);
}

TEST(Format, text_c5_every_canonical_text_round_trips) {
  const std::vector<SideFormat> sides = allSides();
  for (const SideFormat &k : sides)
    for (const SideFormat &v : sides) {
      const PairFormat pair{k, v};
      Result<PairFormat> again = parsePair(toText(pair));
      ASSERT_TRUE(again.isOk()) << again.status().message();
      EXPECT_EQ(again.value(), pair);
    }
  for (int window : {0, 1, 31, 128, 65536})
    for (const SideFormat &k : sides)
      for (CommitRule rule : {CommitRule::Block, CommitRule::Sliding, CommitRule::Flush}) {
        const CacheFormat format{{k, {2, Axis::Token, 32}}, window, window % 5, rule};
        const bool whole = window >= 1 && k.perChannel() && window % k.group == 0;
        const bool legal = rule == CommitRule::Block || whole || (rule == CommitRule::Flush && !k.perChannel());
        Result<CacheFormat> again = parseCache(toText(format));
        ASSERT_EQ(again.isOk(), legal) << toText(format);
        if (legal) {
          EXPECT_EQ(toText(again.value()), toText(format));
        }
      }
}

TEST(Format, text_c6_presets_are_names_of_texts) {
  EXPECT_EQ(toText(cache("kivi-2")), "k2c32-v2t32/w128,sliding");
  EXPECT_EQ(toText(cache("kivi-4")), "k4c32-v4t32/w128,sliding");
  EXPECT_EQ(toText(cache("kvq-8")), "k8c32-v8t32/w128,block");
  EXPECT_EQ(toText(cache("kvq-4")), "k4c32-v4t32/w128,block");
  EXPECT_EQ(toText(cache("kvq-k4v2")), "k4c32-v2t32/w128,block");
  EXPECT_EQ(toText(cache("kvq-3")), "k3c32-v3t32/w128,block");
  EXPECT_EQ(toText(cache("kvq-2")), "k2c32-v2t32/w128,block");
  EXPECT_EQ(presets().size(), 7u);
  for (const Preset &preset : presets())
    EXPECT_EQ(toText(cache(preset.text)), preset.text);
}

TEST(Format, text_c7_refusals_name_part_value_and_remedy) {
  EXPECT_EQ(messageOf(parseSide("5c32")), "width '5' of '5c32' is not legal: use 2, 3, 4 or 8 bits");
  EXPECT_EQ(messageOf(parseSide("")), "width '' of '' is not legal: use 2, 3, 4 or 8 bits");
  EXPECT_EQ(messageOf(parseSide("4x32")), "axis 'x' of '4x32' is not legal: use 'c' (per channel) or 't' (per token)");
  EXPECT_EQ(messageOf(parseSide("4")), "axis '' of '4' is not legal: use 'c' (per channel) or 't' (per token)");
  for (const char *group : {"", "032", "32 ", "+32", "-32", "99999999999999999999", "32x"})
    EXPECT_EQ(messageOf(parseSide("4c" + std::string(group))),
              "group '" + std::string(group) + "' of '4c" + group +
                  "' is not legal: a per-channel group is 32, 64, 128 or 256 tokens");
  EXPECT_EQ(messageOf(parsePair("k4c32")), "format 'k4c32' is not a pair: write K and V as in k4c32-v4t32");
  EXPECT_EQ(messageOf(parsePair("k4c32-w4t32")), "format 'k4c32-w4t32' is not a pair: write K and V as in k4c32-v4t32");
  EXPECT_EQ(messageOf(parsePair("k4c32-v5t32")),
            "V of 'k4c32-v5t32': width '5' of '5t32' is not legal: use 2, 3, 4 or 8 bits");
  EXPECT_EQ(messageOf(parsePair("k4q32-v4t32")),
            "K of 'k4q32-v4t32': axis 'q' of '4q32' is not legal: use 'c' (per channel) or 't' (per token)");
  EXPECT_EQ(messageOf(parseCache("kivi-3")),
            "cache format 'kivi-3' is neither a preset (kivi-2, kivi-4, kvq-8, kvq-4, kvq-k4v2, kvq-3, kvq-2) nor a "
            "text like k4c32-v4t32/w128,sliding; did you mean kivi-2 or kivi-4?");
  EXPECT_EQ(messageOf(parseCache("k4c32-v4t32/128")),
            "window '128' is not legal: write w and 0 to 65536 tokens, as in w128");
  EXPECT_EQ(messageOf(parseCache("k4c32-v4t32/")), "window '' is not legal: write w and 0 to 65536 tokens, as in w128");
  EXPECT_EQ(messageOf(parseCache("k4c32-v4t32/w128,flash")),
            "commit rule 'flash' is not legal: use block, sliding or flush");
  EXPECT_EQ(messageOf(parseCache("k4c32-v4t32/w128,block,")),
            "part '' is too many: write a window, keep and a rule, as in w128,keep4,sliding");
}

TEST(Format, text_c7_quoted_values_stay_on_one_short_line) {
  const std::string message = messageOf(parseCache("\n\x01" + std::string(5000, 'x')));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_NE(message.find("'??" + std::string(78, 'x') + "...'"), std::string::npos) << message;
  EXPECT_LT(message.size(), 300u);
}

TEST(Format, commit_c1_group) {
  EXPECT_EQ(commitGroup(cache("k4c32-v4t32").pair), 32);
  EXPECT_EQ(commitGroup(cache("k4t64-v4t128").pair), 32);
  EXPECT_EQ(commitGroup(cache("k4c64-v4c128").pair), 128);
  EXPECT_EQ(commitGroup(cache("k4c128-v4c32").pair), 128);
}

TEST(Format, commit_c2_block) {
  const CacheFormat format = cache("k4c64-v4t32/w100,block");
  EXPECT_EQ(frontier(format, 0), (Frontier{0, 0}));
  EXPECT_EQ(frontier(format, 163), (Frontier{0, 0}));
  EXPECT_EQ(frontier(format, 164), (Frontier{64, 64}));
  EXPECT_EQ(frontier(format, 227), (Frontier{64, 64}));
  EXPECT_EQ(frontier(format, 228), (Frontier{128, 128}));
  EXPECT_EQ(frontier(cache("k4c32-v4t32/w0"), 32), (Frontier{32, 32}));
}

TEST(Format, commit_c3_sliding) {
  const CacheFormat format = cache("k4c32-v4t32/w64,sliding");
  EXPECT_EQ(frontier(format, 0), (Frontier{0, 0}));
  EXPECT_EQ(frontier(format, 63), (Frontier{0, 0}));
  EXPECT_EQ(frontier(format, 64), (Frontier{64, 0}));
  EXPECT_EQ(frontier(format, 65), (Frontier{64, 1}));
  EXPECT_EQ(frontier(format, 127), (Frontier{64, 63}));
  EXPECT_EQ(frontier(format, 128), (Frontier{128, 64}));
}

TEST(Format, commit_c5_frontiers_only_grow_and_fit_the_tail) {
  for (std::string_view text : {"k4c32-v4t32/w0,block", "k4c64-v4t32/w17,block", "k2t16-v2c128/w128,block",
                                "k4c32-v4t32/w32,sliding", "k4c128-v4t32/w256,sliding"}) {
    const CacheFormat format = cache(text);
    Frontier last;
    for (int64_t n = 1; n <= 2000; ++n) {
      const Frontier now = frontier(format, n);
      EXPECT_GE(now.k, last.k) << text << " " << n;
      EXPECT_GE(now.v, last.v) << text << " " << n;
      EXPECT_LE(now.v, now.k) << text << " " << n;
      EXPECT_LE(now.k, n);
      // What one chunk of a step needs at once, from the oldest token kept before it to its newest (tail_c1).
      EXPECT_LE(n - 1 + kChunkTokens - last.v, tailCapacity(format)) << text << " " << n;
      last = now;
    }
  }
}

TEST(Format, commit_c6_kivi_state_machine) {
  const CacheFormat format = cache("kivi-4");
  const Frontier prompt = frontier(format, 300);
  EXPECT_EQ(300 - prompt.k, 44);
  EXPECT_EQ(300 - prompt.v, 128);
  const Frontier later = frontier(format, 384);
  EXPECT_EQ(384 - later.k, 0);
  EXPECT_EQ(384 - later.v, 128);
}

TEST(Format, tail_c1_capacity) {
  EXPECT_EQ(tailCapacity(cache("k4c32-v4t32/w128,block")), 192);
  EXPECT_EQ(tailCapacity(cache("k4c128-v4t32/w128,block")), 288);
  EXPECT_EQ(tailCapacity(cache("k4c32-v4t32/w1,block")), 80);
  EXPECT_EQ(tailCapacity(cache("kivi-2")), 160);
}

TEST(Format, page_c1_legal_sizes) {
  EXPECT_EQ(legalPageTokens(cache("k4c32-v4t32").pair), (std::vector<int>{32, 64, 96, 128, 160, 192, 224, 256}));
  EXPECT_EQ(legalPageTokens(cache("k4c64-v4c32").pair), (std::vector<int>{64, 128, 192, 256}));
  EXPECT_EQ(legalPageTokens(cache("k4c64-v4c128").pair), (std::vector<int>{128, 256}));
  EXPECT_EQ(legalPageTokens(cache("k4c256-v4th").pair), (std::vector<int>{256}));
  EXPECT_EQ(defaultPageTokens(cache("k4c32-v4c256").pair), 256);
  EXPECT_EQ(defaultPageTokens(cache("k4c32-v4t32").pair), 64);
  EXPECT_EQ(defaultPageTokens(cache("k4c32-v4c128").pair), 128);
}

TEST(Format, page_c1_shape_is_checked) {
  const PairFormat pair = cache("k4c32-v4t32").pair;
  EXPECT_TRUE(checkShape(pair, 64, 64).isOk());
  EXPECT_EQ(checkShape(pair, 64, 48).message(), "page size 48 is not legal for k4c32-v4t32: use one of 32, 64, 96, "
                                                "128, 160, 192, 224, 256 tokens");
  EXPECT_EQ(checkShape(pair, 80, 64).message(), "V's head size 80 is not a multiple of its per-token group of 32 "
                                                "channels: use a group that divides it");
  EXPECT_TRUE(checkShape(pair, 80, 64, 64).isOk());
  EXPECT_EQ(checkShape(pair, 72, 64, 64).message(),
            "K's head size 72 is not legal: use a multiple of 16 from 16 to 256");
  EXPECT_EQ(checkShape(pair, 64, 272, 64).message(),
            "V's head size 272 is not legal: use a multiple of 16 from 16 to 256");
  EXPECT_EQ(checkShape(pair, -16, 64, 64).code(), Code::InvalidArgument);
}

TEST(Format, page_c2_sections_are_aligned_and_do_not_overlap) {
  for (const SideFormat &k : allSides())
    for (const SideFormat &v : allSides())
      for (int pageTokens : legalPageTokens({k, v}))
        for (int dk : {64, 80, 96, 128}) {
          const PairFormat pair{k, v};
          const int dv = 128;
          if (!checkShape(pair, dk, dv, pageTokens).isOk())
            continue;
          const PageMap map = pageMap(pair, pageTokens, dk, dv);
          const int64_t begin[] = {map.kCodes, map.kScale, map.kMin, map.vCodes, map.vScale, map.vMin, map.bytes};
          const int64_t kGroups = int64_t{pageTokens} * dk / resolve(k, dk).group;
          const int64_t vGroups = int64_t{pageTokens} * dv / resolve(v, dv).group;
          const int64_t bytes[] = {pageTokens * dk * k.bits / 8, kGroups * 2, kGroups * 2,
                                   pageTokens * dv * v.bits / 8, vGroups * 2, vGroups * 2};
          ASSERT_EQ(begin[0], 0);
          for (int section = 0; section < 6; ++section) {
            ASSERT_EQ(begin[section + 1] % 64, 0);
            ASSERT_GE(begin[section + 1], begin[section] + bytes[section]);
            ASSERT_LT(begin[section + 1], begin[section] + bytes[section] + 64);
          }
        }
}

TEST(Format, page_c3_scales_and_minima) {
  const SideFormat perChannel{4, Axis::Channel, 32}, perToken{4, Axis::Token, 16};
  EXPECT_EQ(groupIndex(perChannel, 64, 80, 31, 79), 79);
  EXPECT_EQ(groupIndex(perChannel, 64, 80, 32, 0), 80);
  EXPECT_EQ(groupIndex(perToken, 64, 80, 63, 15), 63);
  EXPECT_EQ(groupIndex(perToken, 64, 80, 5, 16), 69);
}

TEST(Format, page_c5_bits_an_element) {
  auto bits = [](std::string_view text) {
    return 8.0 * pageMap(cache(text).pair, 64, 64, 64).bytes / (64 * (64 + 64));
  };
  EXPECT_EQ(bits("k4c32-v4t32"), 5.0);
  EXPECT_EQ(bits("k3c32-v3t32"), 4.0);
  EXPECT_EQ(bits("k2c32-v2t32"), 3.0);
  EXPECT_EQ(bits("k8c32-v8t32"), 9.0);
  EXPECT_EQ(bits("k4c32-v2t32"), 4.0);
  EXPECT_EQ(pageMap(cache("k4c32-v4t32").pair, 64, 64, 64).bytes, 5120);
}
