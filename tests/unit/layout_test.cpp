// SPDX-License-Identifier: Apache-2.0
//
// The laws of the layout algebra, and docs/format-spec.md section 3.
#include "runtime/format/layout.h"

#include <gtest/gtest.h>

#include <random>

using namespace kvq;

namespace {

LinearMap randomMap(std::mt19937_64 &random, int inputs, int outputs) {
  LinearMap map(inputs, outputs);
  for (int i = 0; i < inputs; ++i)
    map.setColumn(i, random() & ((uint64_t{1} << outputs) - 1));
  return map;
}

Layout layout(std::string_view text) {
  Result<Layout> parsed = parseLayout(text);
  EXPECT_TRUE(parsed.isOk()) << parsed.status().message();
  return parsed.isOk() ? parsed.value() : Layout();
}

std::string refusal(std::string_view text) {
  Result<Layout> parsed = parseLayout(text);
  EXPECT_FALSE(parsed.isOk());
  return parsed.status().message();
}

// Every layout that a legal page can have.
template <typename Function> void forEachLayout(Profile profile, Side side, Function function) {
  for (int bits : profile == Profile::Vnni ? std::vector<int>{1, 2, 4, 8} : std::vector<int>{2, 4, 8})
    for (int pageTokens = 32; pageTokens <= 256; pageTokens += 32)
      for (int headDim = 16; headDim <= 256; headDim += 16)
        function(makeLayout(profile, side, bits, pageTokens, headDim), bits, pageTokens, headDim);
}

template <typename Function> void forEachLayout(Function function) {
  for (Profile profile : {Profile::Vnni, Profile::Kivi, Profile::Mma})
    for (Side side : {Side::K, Side::V})
      forEachLayout(profile, side, function);
}

} // namespace

TEST(LinearMap, compose_applies_the_inner_map_first) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 100; ++round) {
    const LinearMap outer = randomMap(random, 6, 9), inner = randomMap(random, 4, 6);
    const LinearMap both = outer.compose(inner);
    EXPECT_EQ(both.inputs(), 4);
    EXPECT_EQ(both.outputs(), 9);
    for (uint64_t x = 0; x < 16; ++x)
      EXPECT_EQ(both.apply(x), outer.apply(inner.apply(x)));
  }
}

TEST(LinearMap, compose_is_associative_and_has_an_identity) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 100; ++round) {
    const LinearMap a = randomMap(random, 7, 3), b = randomMap(random, 5, 7), c = randomMap(random, 8, 5);
    EXPECT_EQ(a.compose(b).compose(c), a.compose(b.compose(c)));
    EXPECT_EQ(a.compose(LinearMap::identity(7)), a);
    EXPECT_EQ(LinearMap::identity(3).compose(a), a);
  }
}

TEST(LinearMap, apply_is_linear) {
  std::mt19937_64 random(3);
  const LinearMap map = randomMap(random, 10, 12);
  EXPECT_EQ(map.apply(0), 0u);
  for (int round = 0; round < 200; ++round) {
    const uint64_t x = random() & 1023, y = random() & 1023;
    EXPECT_EQ(map.apply(x ^ y), map.apply(x) ^ map.apply(y));
  }
}

TEST(LinearMap, rank_counts_the_image) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 200; ++round) {
    const LinearMap map = randomMap(random, static_cast<int>(random() % 7), static_cast<int>(1 + random() % 6));
    std::vector<bool> hit(64);
    int image = 0;
    for (uint64_t x = 0; x < uint64_t{1} << map.inputs(); ++x) {
      image += !hit[map.apply(x)];
      hit[map.apply(x)] = true;
    }
    EXPECT_EQ(image, 1 << map.rank());
  }
  EXPECT_EQ(LinearMap::identity(64).rank(), 64);
  EXPECT_EQ(LinearMap(5, 5).rank(), 0);
}

TEST(LinearMap, inverse_holds_on_both_sides) {
  std::mt19937_64 random(5);
  int bijective = 0;
  for (int round = 0; round < 300; ++round) {
    const LinearMap map = randomMap(random, 7, 7);
    Result<LinearMap> inverse = map.inverse();
    ASSERT_EQ(inverse.isOk(), map.isBijective());
    if (!inverse.isOk())
      continue;
    ++bijective;
    EXPECT_EQ(inverse.value().compose(map), LinearMap::identity(7));
    EXPECT_EQ(map.compose(inverse.value()), LinearMap::identity(7));
    for (uint64_t x = 0; x < 128; ++x)
      EXPECT_EQ(map.apply(inverse.value().apply(x)), x);
  }
  EXPECT_GT(bijective, 50); // some 29 % of random square maps are invertible
}

TEST(LinearMap, inverse_of_a_map_without_one_is_refused) {
  LinearMap singular(3, 3);
  singular.setColumn(0, 1);
  singular.setColumn(1, 3);
  singular.setColumn(2, 2);
  EXPECT_EQ(singular.rank(), 2);
  EXPECT_EQ(singular.inverse().status().message(),
            "the map from 3 to 3 bits has rank 2 and therefore no inverse: use as many independent bits on both sides");
  EXPECT_EQ(LinearMap(2, 3).inverse().status().code(), Code::InvalidArgument);
}

TEST(Layout, layout_c1_every_legal_page_is_a_bijection) {
  forEachLayout([](const Layout &map, int bits, int tokens, int channels) {
    const Status status = map.checkBijective(tokens, channels);
    ASSERT_TRUE(status.isOk()) << status.message();
    ASSERT_EQ(map.extent(Dim::Token), tokens);
    ASSERT_EQ(map.extent(Dim::Channel), channels);
    std::vector<bool> hit(static_cast<size_t>(tokens) * channels);
    for (int t = 0; t < tokens; ++t)
      for (int c = 0; c < channels; ++c) {
        const int64_t address = map.address(t, c);
        ASSERT_GE(address, 0);
        ASSERT_LT(address, int64_t{tokens} * channels) << map.toText();
        ASSERT_FALSE(hit[address]) << map.toText() << " hits " << address << " twice";
        hit[address] = true;
      }
  });
}

TEST(Layout, layout_c1_anything_else_is_refused) {
  EXPECT_EQ(
      layout("[tok.0 tok.0 ch.0] tok:16 ch:64").checkBijective(32, 64).message(),
      "layout '[tok.0 tok.0 ch.0] tok:16 ch:64' is not a bijection: its inner part maps 2 index bits to 3 address "
      "bits with rank 2; use each of the low index bits in independent address bits");
  // Bit 0 of the token is left out.
  EXPECT_FALSE(layout("[tok.1] tok:16 ch:64").checkBijective(64, 64).isOk());
  // Dependent although square.
  EXPECT_FALSE(layout("[tok.0^ch.0 ch.0^tok.0] tok:16 ch:32").checkBijective(32, 64).isOk());
  EXPECT_EQ(layout("[tok.0] tok:16 ch:64").checkBijective(64, 64).message(),
            "layout '[tok.0] tok:16 ch:64' covers 32 tokens x 64 channels, but the page has 64 x 64: change its loops");
  Layout empty = layout("[tok.0] tok:16 ch:64");
  empty.loops[1].count = 0;
  EXPECT_EQ(empty.checkBijective(32, 0).message(),
            "layout '[tok.0] tok:16 ch:0' has a loop of 0 iterations: use at least 1");
}

TEST(Layout, layout_c1_a_swizzle_is_a_bijection) {
  const Layout swizzle = layout("[tok.0 tok.1^ch.0 ch.0 ch.1^tok.0] tok:8 ch:4");
  ASSERT_TRUE(swizzle.checkBijective(32, 16).isOk());
  std::vector<bool> hit(32 * 16);
  for (int t = 0; t < 32; ++t)
    for (int c = 0; c < 16; ++c) {
      const int64_t address = swizzle.address(t, c);
      EXPECT_FALSE(hit[address]);
      hit[address] = true;
      EXPECT_EQ(swizzle.index(address), (std::array<int64_t, 2>{t, c}));
    }
}

TEST(Layout, layout_c2_words_of_vnni) {
  // K, 4 bits: the byte of channel c holds c in its low and c + 4 in its high half; 16 tokens are 16 words.
  const Layout k = makeLayout(Profile::Vnni, Side::K, 4, 64, 64);
  EXPECT_EQ(k.address(0, 0), 0);
  EXPECT_EQ(k.address(0, 4), 1);
  EXPECT_EQ(k.address(0, 1), 2);
  EXPECT_EQ(k.address(0, 7), 7);
  EXPECT_EQ(k.address(1, 0), 8);
  EXPECT_EQ(k.address(15, 0), 120);
  EXPECT_EQ(k.address(16, 0), 128); // the next tile of tokens
  EXPECT_EQ(k.address(0, 8), 512);  // after the 4 tiles of the panel
  EXPECT_EQ(k.address(63, 63), 4095);
  // V, 2 bits, D 80: no power of two of channels, one panel of five tiles.
  const Layout v = makeLayout(Profile::Vnni, Side::V, 2, 64, 80);
  EXPECT_EQ(v.address(0, 0), 0);
  EXPECT_EQ(v.address(4, 0), 1);
  EXPECT_EQ(v.address(12, 0), 3);
  EXPECT_EQ(v.address(1, 0), 4);
  EXPECT_EQ(v.address(0, 1), 16);
  EXPECT_EQ(v.address(0, 16), 256);
  EXPECT_EQ(v.address(16, 0), 1280);
}

TEST(Layout, layout_c3_index_is_the_inverse_of_address) {
  for (Profile profile : {Profile::Vnni, Profile::Kivi, Profile::Mma})
    for (Side side : {Side::K, Side::V})
      for (int bits : {2, 4, 8})
        for (int headDim : {64, 80, 96, 128}) {
          const Layout map = makeLayout(profile, side, bits, 96, headDim);
          for (int t = 0; t < 96; ++t)
            for (int c = 0; c < headDim; ++c)
              ASSERT_EQ(map.index(map.address(t, c)), (std::array<int64_t, 2>{t, c})) << map.toText();
        }
  EXPECT_EQ(layout("[tok.0 tok.0] ch:4").index(1), (std::array<int64_t, 2>{-1, -1}));
}

TEST(Layout, layout_c4_text) {
  EXPECT_EQ(makeLayout(Profile::Vnni, Side::K, 4, 64, 64).toText(),
            "[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8 tok:1");
  EXPECT_EQ(makeLayout(Profile::Vnni, Side::V, 2, 64, 128).toText(),
            "[tok.2 tok.3 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:4 ch:2");
  EXPECT_EQ(makeLayout(Profile::Vnni, Side::K, 8, 96, 80).toText(),
            "[ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:6 ch:20 tok:1");
  EXPECT_EQ(makeLayout(Profile::Kivi, Side::K, 4, 64, 64).toText(), "[tok.0 tok.1 tok.2] tok:8 ch:64");
  EXPECT_EQ(makeLayout(Profile::Kivi, Side::V, 2, 64, 64).toText(), "[ch.0 ch.1 ch.2 ch.3] ch:4 tok:64");
}

// Every kind of row of layout_c7: D with one, two and no bits above 16 channels, P with and without a second 32 tokens.
TEST(Layout, layout_c7_text_of_mma) {
  const auto text = [](Side side, int bits, int tokens, int channels) {
    return makeLayout(Profile::Mma, side, bits, tokens, channels).toText();
  };
  EXPECT_EQ(text(Side::K, 4, 128, 128), "[tok.1 ch.2 ch.0 ch.1 ch.5 ch.3 ch.4 tok.0 tok.3 tok.4 tok.2] ch:2 tok:4");
  EXPECT_EQ(text(Side::V, 4, 128, 128), "[ch.3 tok.2 tok.0 tok.1 tok.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:8 tok:2");
  EXPECT_EQ(text(Side::K, 2, 64, 64), "[tok.1 tok.2 ch.2 ch.0 ch.1 ch.5 ch.3 ch.4 tok.0 tok.3 tok.4] ch:1 tok:2");
  EXPECT_EQ(text(Side::V, 2, 64, 64), "[ch.3 ch.4 tok.2 tok.0 tok.1 tok.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:2 tok:1");
  EXPECT_EQ(text(Side::K, 8, 64, 64), "[ch.2 ch.0 tok.1 ch.1 ch.3 ch.4 tok.0 tok.3 tok.4 tok.2] ch:2 tok:2");
  EXPECT_EQ(text(Side::K, 8, 64, 80), "[ch.1 ch.0 tok.1 tok.2 ch.2 ch.3 tok.0 tok.3 tok.4] ch:5 tok:2");
  EXPECT_EQ(text(Side::V, 8, 64, 80), "[tok.2 tok.0 ch.3 tok.1 tok.3 tok.4 ch.0 ch.1 ch.2] ch:5 tok:2");
  EXPECT_EQ(text(Side::K, 4, 64, 96), "[tok.1 ch.2 ch.0 ch.1 tok.2 ch.3 ch.4 tok.0 tok.3 tok.4] ch:3 tok:2");
  EXPECT_EQ(text(Side::K, 4, 64, 80), "[tok.1 ch.1 ch.0 tok.2 tok.5 ch.2 ch.3 tok.0 tok.3 tok.4] ch:5 tok:1");
  EXPECT_EQ(text(Side::K, 4, 96, 80), "[tok.1 ch.1 ch.0 tok.2 ch.2 ch.3 tok.0 tok.3 tok.4] ch:5 tok:3");
  EXPECT_EQ(text(Side::K, 2, 64, 96), "[tok.1 tok.2 ch.2 ch.0 ch.1 tok.5 ch.3 ch.4 tok.0 tok.3 tok.4] ch:3 tok:1");
  EXPECT_EQ(text(Side::K, 2, 32, 80), "[tok.1 tok.2 ch.1 ch.0 ch.2 ch.3 tok.0 tok.3 tok.4] ch:5 tok:1");
  EXPECT_EQ(text(Side::V, 4, 32, 64), "[ch.3 tok.2 tok.0 tok.1 ch.4 tok.3 tok.4 ch.0 ch.1 ch.2] ch:2 tok:1");
  EXPECT_EQ(text(Side::V, 2, 96, 64), "[ch.3 ch.4 tok.2 tok.0 tok.1 ch.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:1 tok:3");
  EXPECT_EQ(text(Side::V, 2, 64, 80), "[ch.3 tok.1 tok.2 tok.0 tok.5 tok.3 tok.4 ch.0 ch.1 ch.2] ch:5 tok:1");
  EXPECT_EQ(text(Side::V, 2, 32, 48), "[ch.3 tok.1 tok.2 tok.0 tok.3 tok.4 ch.0 ch.1 ch.2] ch:3 tok:1");
}

// A map of the profile mma as the tensor cores see it: rows and steps, and which of them are m.0 .. m.3 and k.0 .. k.3.
struct MmaView {
  const Layout &map;
  Side side;
  int bits;
  int rows = map.extent(side == Side::K ? Dim::Token : Dim::Channel);
  int steps = map.extent(side == Side::K ? Dim::Channel : Dim::Token);
  std::array<int, 4> m = side == Side::K ? std::array<int, 4>{1, 8, 16, 2} : std::array<int, 4>{1, 2, 4, 8};
  std::array<int, 4> k = steps % 32 == 0 ? std::array<int, 4>{1, 8, 16, 4} : std::array<int, 4>{1, 4, 8, 2};
  int64_t wordFields = 32 / bits, laneFields = at(m[0], 0) / 4;

  int64_t at(int row, int step) const { return side == Side::K ? map.address(row, step) : map.address(step, row); }
  static int index(const std::array<int, 4> &places, int bits) {
    int index = 0;
    for (int i = 0; i < 4; ++i)
      index += (bits >> i & 1) * places[i];
    return index;
  }
  // Of one fragment: `row` and `step` are its first.
  int64_t inFragment(int row, int step, int m16, int k16) const {
    return at(row + index(m, m16), step + index(k, k16));
  }
};

template <typename Function> void forEachFragment(const MmaView &view, Function function) {
  for (int row = 0; row < view.rows; ++row)
    for (int step = 0; step < view.steps; ++step)
      if ((row & MmaView::index(view.m, 15)) == 0 && (step & MmaView::index(view.k, 15)) == 0)
        function(row, step);
}

// A register of a fragment of m16n8k16 (PTX ISA, mma.m16n8k16 for 16 bits): lane l's register r holds the row
// l / 4 + 8 * (r % 2) and the steps 2 * (l % 4) + 8 * (r / 2), and that + 1 in its upper half. One load gives a lane
// whole fragments: all four registers of a block of 16 x 16 are in its own bytes, both halves 16 bits apart in a word.
TEST(Layout, layout_c7_layout_c8_a_lane_has_the_registers_of_its_fragments) {
  for (Side side : {Side::K, Side::V})
    forEachLayout(Profile::Mma, side, [side](const Layout &map, int bits, int, int) {
      const MmaView view{map, side, bits};
      forEachFragment(view, [&](int row, int step) {
        const int64_t warp = view.at(row, step) / view.laneFields / 32;
        for (int lane = 0; lane < 32; ++lane)
          for (int r = 0; r < 4; ++r) {
            const int m = lane / 4 + 8 * (r % 2), k = 2 * (lane % 4) + 8 * (r / 2);
            const int64_t low = view.inFragment(row, step, m, k), high = view.inFragment(row, step, m, k + 1);
            ASSERT_EQ(low / view.laneFields, warp * 32 + lane) << map.toText();
            ASSERT_EQ(high, low + view.wordFields / 2) << map.toText();
            ASSERT_EQ(low % view.wordFields, low % (view.wordFields / 2)) << map.toText();
            const int64_t other = view.inFragment(row, step, m, k ^ 8); // k.3: another field of the word
            ASSERT_EQ(low / view.wordFields, other / view.wordFields) << map.toText();
          }
      });
    });
}

// So that a lane reads the scales and minima of its steps as one vector.
TEST(Layout, layout_c8_the_steps_of_a_lane_are_neighbours) {
  for (Side side : {Side::K, Side::V})
    forEachLayout(Profile::Mma, side, [side](const Layout &map, int bits, int, int channels) {
      const MmaView view{map, side, bits};
      const int run = side == Side::K && channels % 32 != 0 ? 4 : 8;
      for (int row = 0; row < view.rows; ++row)
        for (int step = 0; step < view.steps; ++step)
          ASSERT_EQ(view.at(row, step) / view.laneFields, view.at(row, step / run * run) / view.laneFields)
              << map.toText();
    });
}

// A result of K's product has its rows on lane bits 2 to 4; movmatrix moves the first of them to the halves of a
// register and the others to lane bits 0 and 1, which is where V's product has its steps.
TEST(Layout, layout_c7_the_rows_of_k_are_the_steps_of_v_transposed) {
  for (int kBits : {2, 4, 8})
    for (int vBits : {2, 4, 8})
      for (int tokens : {32, 64, 96})
        for (int channels : {16, 64, 80, 96}) {
          const Layout k = makeLayout(Profile::Mma, Side::K, kBits, tokens, channels);
          const Layout v = makeLayout(Profile::Mma, Side::V, vBits, tokens, channels);
          const MmaView kView{k, Side::K, kBits}, vView{v, Side::V, vBits};
          EXPECT_EQ(k.index(kView.laneFields * 4), v.index(vView.wordFields / 2)) << k.toText() << v.toText();
          EXPECT_EQ(k.index(kView.laneFields * 8), v.index(vView.laneFields)) << k.toText() << v.toText();
          EXPECT_EQ(k.index(kView.laneFields * 16), v.index(vView.laneFields * 2)) << k.toText() << v.toText();
        }
}

// The fields of a byte are rows of one step, so that what is multiplied together can be taken apart. Only 16 channels
// are not enough rows: of V's 2 bits, the upper half of a byte is the step 2 further.
TEST(Layout, layout_c7_the_fields_of_a_byte_are_rows) {
  for (Side side : {Side::K, Side::V})
    forEachLayout(Profile::Mma, side, [side](const Layout &map, int bits, int, int channels) {
      const MmaView view{map, side, bits};
      const bool hasRows = side == Side::K || bits != 2 || channels % 32 == 0;
      const int rowsApart = side == Side::K ? 2 : 8;
      for (int row = 0; row < view.rows; ++row)
        for (int step = 0; step < view.steps; ++step)
          if (const int64_t first = view.at(row, step); first % (8 / bits) == 0)
            for (int field = 1; field < 8 / bits; ++field) {
              const int64_t other = hasRows ? view.at(row + rowsApart * field, step)
                                            : view.at(row + rowsApart * (field % 2), step + 2 * (field / 2));
              ASSERT_EQ(other, first + field) << map.toText();
            }
    });
}

// Lanes follow each other without a gap: 512 bytes a warp where each has 16, of the rows and steps that a fragment has.
TEST(Layout, layout_c8_a_load_of_a_warp_is_one_run) {
  int whole = 0;
  for (Side side : {Side::K, Side::V})
    forEachLayout(Profile::Mma, side, [&](const Layout &map, int bits, int tokens, int channels) {
      const MmaView view{map, side, bits};
      const int laneBytes = static_cast<int>(view.laneFields * bits / 8);
      ASSERT_TRUE(laneBytes == 4 || laneBytes == 8 || laneBytes == 16) << map.toText();
      ASSERT_TRUE(laneBytes == 16 || tokens % 64 != 0 || channels % 64 != 0) << map.toText();
      whole += laneBytes == 16;
      const int row = side == Side::K ? 0 : 1;
      for (int64_t begin = 0; begin < int64_t{tokens} * channels; begin += 32 * view.laneFields) {
        const auto origin = map.index(begin);
        for (int lane = 0; lane < 32; ++lane) {
          const auto first = map.index(begin + lane * view.laneFields);
          ASSERT_EQ(first[row], origin[row] + MmaView::index(view.m, lane / 4)) << map.toText();
          ASSERT_EQ(first[1 - row], origin[1 - row] + MmaView::index(view.k, lane % 4 * 2)) << map.toText();
        }
      }
    });
  EXPECT_GT(whole, 300);
}

SectionLayout section(std::string_view text, int bits = 0) {
  Result<SectionLayout> parsed = parseSectionLayout(text, bits);
  EXPECT_TRUE(parsed.isOk()) << parsed.status().message();
  return parsed.isOk() ? parsed.value() : SectionLayout();
}

TEST(Layout, layout_c5_three_bits_are_a_plane_of_two_and_a_plane_of_one) {
  const SectionLayout k = makeSectionLayout(Profile::Vnni, Side::K, 3, 128, 80);
  EXPECT_EQ(k.toText(), "2:[ch.2 ch.3 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:5 tok:2 + "
                        "1:[ch.2 ch.3 tok.4 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:2 ch:5 tok:2");
  EXPECT_EQ(makeSectionLayout(Profile::Vnni, Side::V, 3, 96, 192).planes[1].map.toText(),
            "[tok.2 tok.3 tok.4 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:3 ch:3");
  EXPECT_EQ(section(k.toText(), 3), k);
  EXPECT_EQ(k.bits(), 3);
  EXPECT_EQ(k.planeShift(1), 2);
  EXPECT_EQ(k.planeOffset(1), 128 * 80 * 2 / 8); // layout_c2
  EXPECT_TRUE(k.checkBijective(128, 80).isOk());
  // The high plane: channels 8 further in the next bit but one, the token 16 further in the next, tokens in words.
  const Layout &high = k.planes[1].map;
  EXPECT_EQ(high.address(0, 4), 1);
  EXPECT_EQ(high.address(0, 8), 2);
  EXPECT_EQ(high.address(16, 0), 4);
  EXPECT_EQ(high.address(0, 1), 8);
  EXPECT_EQ(high.address(1, 0), 32);
  for (int bits : {2, 4, 8}) {
    const SectionLayout one = makeSectionLayout(Profile::Kivi, Side::V, bits, 64, 64);
    EXPECT_EQ(one.toText(), makeLayout(Profile::Kivi, Side::V, bits, 64, 64).toText());
    EXPECT_EQ(section(one.toText(), bits), one);
  }
}

TEST(Layout, layout_c1_layout_c4_layout_c5_planes_that_are_refused) {
  const auto refused = [](std::string_view text, int bits = 0) {
    Result<SectionLayout> parsed = parseSectionLayout(text, bits);
    EXPECT_FALSE(parsed.isOk()) << text;
    return parsed.status().message();
  };
  EXPECT_FALSE(section("2:[tok.0] tok:16 ch:64 + 1:[tok.0 tok.0] tok:16 ch:64").checkBijective(32, 64).isOk());
  EXPECT_EQ(refused("[tok.0] tok:16", 3), "layout '[tok.0] tok:16' is one plane, which codes of 3 bits are not: write "
                                          "planes of 1, 2, 4 or 8 bits, as in 2:[..] tok:4 + 1:[..] tok:2");
  EXPECT_EQ(refused("3:[tok.0] + 1:[tok.0]"),
            "plane '3:[tok.0]' is not legal: write 1, 2, 4 or 8 bits, a colon and a map, as in 2:[..]");
  EXPECT_EQ(refused("2:[tok.0] + "), "plane '' is not legal: write 1, 2, 4 or 8 bits, a colon and a map, as in 2:[..]");
  EXPECT_EQ(refused("2:[tok.0] tok:4 + 1:[tok.0] tok:2"),
            "the planes of layout '2:[tok.0] tok:4 + 1:[tok.0] tok:2' cover 8 and 4 indices of tok: make them as many");
  EXPECT_EQ(refused("2:[tok.0] + 1:[tok.0]", 4),
            "the planes of layout '2:[tok.0] + 1:[tok.0]' have 3 bits in all, not the 4 of a code: use others");
}

TEST(Layout, layout_c6_kivi_has_no_three_bits) {
  const PairFormat pair = parsePair("k4c32-v3t32").value();
  EXPECT_TRUE(checkProfile(Profile::Vnni, pair).isOk());
  EXPECT_EQ(checkProfile(Profile::Kivi, pair).message(),
            "width 3 of 'k4c32-v3t32' is not legal in the profile kivi: use "
            "2, 4 or 8 bits, or the profile vnni");
}

TEST(Layout, layout_c6_mma_has_no_three_bits) {
  EXPECT_TRUE(checkProfile(Profile::Mma, parsePair("k4c32-v8t32").value()).isOk());
  EXPECT_EQ(checkProfile(Profile::Mma, parsePair("k3c32-v4t32").value()).message(),
            "width 3 of 'k3c32-v4t32' is not legal in the profile mma: use 2, 4 or 8 bits, or the profile vnni");
}

TEST(Layout, layout_c4_every_text_round_trips) {
  forEachLayout([](const Layout &map, int, int, int) { EXPECT_EQ(layout(map.toText()), map); });
  for (std::string_view text : {"[]", "[] tok:32 ch:64", "[tok.0^ch.1^tok.3 ch.0]"})
    EXPECT_EQ(layout(text).toText(), text);
}

TEST(Layout, layout_c4_refusals) {
  EXPECT_EQ(refusal("tok:4"), "layout 'tok:4' does not begin with its inner bits: write [tok.0 ch.0] tok:4 ch:8");
  EXPECT_EQ(refusal("[tok.0"), "layout '[tok.0' does not begin with its inner bits: write [tok.0 ch.0] tok:4 ch:8");
  EXPECT_EQ(refusal("[tok.0]tok:4"), "layout '[tok.0]tok:4' has no space after its inner bits: write [..] tok:4");
  EXPECT_EQ(refusal("[row.0]"), "index bit 'row.0' is not legal: write tok.0 to tok.15 or ch.0 to ch.15");
  EXPECT_EQ(refusal("[tok.16]"), "index bit 'tok.16' is not legal: write tok.0 to tok.15 or ch.0 to ch.15");
  EXPECT_EQ(refusal("[tok.0  ch.0]"), "index bit '' is not legal: write tok.0 to tok.15 or ch.0 to ch.15");
  EXPECT_EQ(refusal("[tok.0^]"), "index bit '' is not legal: write tok.0 to tok.15 or ch.0 to ch.15");
  EXPECT_EQ(refusal("[tok.0] tok:0"),
            "loop 'tok:0' is not legal: write tok or ch, a colon and 1 to 65536, as in tok:4");
  EXPECT_EQ(refusal("[tok.0] tok:4 "), "loop '' is not legal: write tok or ch, a colon and 1 to 65536, as in tok:4");
  EXPECT_EQ(refusal("[] tok:65536 tok:65536 tok:65536"),
            "the layout covers more than 65536 indices of tok: use fewer or smaller loops");
  std::string many = "[]";
  for (int i = 0; i < 17; ++i)
    many += " tok:1";
  EXPECT_NE(refusal(many).find("has more than 16 inner bits or loops: use fewer"), std::string::npos);
}

TEST(Layout, profiles_have_names) {
  EXPECT_EQ(toText(parseProfile("vnni").value()), "vnni");
  EXPECT_EQ(toText(parseProfile("kivi").value()), "kivi");
  EXPECT_EQ(toText(parseProfile("mma").value()), "mma");
  EXPECT_EQ(parseProfile("row").status().message(), "layout profile 'row' is unknown: use vnni, kivi or mma");
}
