// SPDX-License-Identifier: Apache-2.0
//
// kvq_tile.dot and kvq_tile.store_codes over every layout profile, width and contraction, against the definition in
// TileOps.td written as loops. Codes are placed by Layout::address, independently of how the compiler finds them.

#include "tests/unit/codegen/run_kernel.h"

#include "runtime/format/layout.h"

#include <random>
#include <tuple>

using namespace kvq_test;

namespace {

constexpr int64_t kTokens = 64;

struct Case {
  int bits;
  kvq::Profile profile;
  kvq::Side side;
  int contract; // dimension of [tokens, channels]
  int channels; // of the page
  int tokens;   // of the tile
  int rows;
  int sets;               // coefficient sets S
  int groups;             // result scale groups G; 0 for no scale
  std::string round = ""; // how coefficients may be rounded; then codes are centred
  double center() const { return round.empty() ? 0 : ((1 << bits) - 1) / 2.0; }
};

std::ostream &operator<<(std::ostream &os, const Case &c) {
  return os << "b" << c.bits << "_" << toText(c.profile) << (c.side == kvq::Side::K ? "_k" : "_v") << "_contract"
            << c.contract << "_d" << c.channels << "_t" << c.tokens << "_r" << c.rows << "_s" << c.sets << "_g"
            << c.groups << (c.round.empty() ? "" : "_") << c.round;
}

std::vector<Case> cases() {
  std::vector<Case> result;
  for (int bits : {2, 4, 8})
    for (auto profile : {kvq::Profile::Vnni, kvq::Profile::Kivi, kvq::Profile::Mma})
      for (auto side : {kvq::Side::K, kvq::Side::V}) {
        int contract = side == kvq::Side::K ? 1 : 0;
        result.push_back({bits, profile, side, contract, 64, 32, 3, 1, 0});
        result.push_back({bits, profile, side, contract, 80, 64, 5, 1, 1});
        result.push_back({bits, profile, side, contract, 128, 64, 4, 2, 0});
        result.push_back({bits, profile, side, contract, 64, 64, 8, 1, 2});
        result.push_back({bits, profile, side, 1 - contract, 64, 32, 2, 2, 2}); // against the grain: by unpacking
      }
  for (auto side : {kvq::Side::K, kvq::Side::V}) // a rounding that CPUs ignore: coefficients stay f32
    result.push_back({4, kvq::Profile::Vnni, side, side == kvq::Side::K ? 1 : 0, 80, 64, 5, 1, 2, "f16"});
  return result;
}

// Coefficients as integers: every rounding with every width on both sides; shapes with several sets, groups that are
// rolled, rows that are no multiple of a register tile's, and rows of several tiles, for which operands are cut once.
std::vector<Case> roundedCases() {
  std::vector<Case> result;
  int turn = 0;
  for (int bits : {2, 3, 4, 8})
    for (auto side : {kvq::Side::K, kvq::Side::V})
      for (const char *round : {"si8", "ui8", "si16", "ui16"}) {
        int first = (turn + turn / 4) % 4; // every width and rounding meets every shape
        ++turn;
        for (int shape : {first, (first + 2) % 4}) {
          Case c{bits, kvq::Profile::Vnni, side, side == kvq::Side::K ? 1 : 0, 0, 64, 0, 1, 0, round};
          std::tie(c.channels, c.rows, c.sets, c.groups) = std::array<std::tuple<int, int, int, int>, 4>{
              {{80, 5, 1, 0}, {128, 4, 2, 0}, {64, 12, 1, 2}, {256, 7, 1, 1}}}[shape];
          result.push_back(c);
        }
      }
  return result;
}

// The levels of this host, and in plain IR those that multiply in another way.
std::vector<const mlir::kvq::cpu::CpuLevel *> everyLevel() {
  auto levels = hostLevels();
  for (const char *name : {"x86-64-v3-vnni", "x86-64-v4", "x86-64-v4-vnni", "aarch64-dotprod"})
    levels.push_back(mlir::kvq::cpu::findLevel(std::string(name) + "@host"));
  return levels;
}

std::string type(std::initializer_list<int64_t> shape, const std::string &element) {
  std::string text = "tensor<";
  for (int64_t extent : shape)
    text += std::to_string(extent) + "x";
  return text + element + ">";
}

// Loads a whole row-major tile of f32 from `pointer`.
std::string loadTile(const std::string &name, int64_t rows, int64_t columns) {
  std::string r = std::to_string(rows), t = "tensor<" + r + "xindex>";
  return "  %" + name + "_i = kvq_tile.iota : " + t + "\n  %" + name + "_c = arith.constant dense<" +
         std::to_string(columns) + "> : " + t + "\n  %" + name + "_o = arith.muli %" + name + "_i, %" + name +
         "_c : " + t + "\n  %" + name + " = kvq_tile.load %" + name + "_p[%" + name + "_o] : !kvq_tile.ptr<f32>, " + t +
         " -> " + type({rows, columns}, "f32") + "\n";
}

// out = dot(codes, coeff(x, sets), acc [, scale]). With more than one set the coefficients are x times `factors`.
std::string dotProgram(const Case &c, const kvq::SectionLayout &layout) {
  int64_t contracted = c.contract == 1 ? c.channels : c.tokens, results = c.contract == 1 ? c.tokens : c.channels;
  std::string packed =
      type({c.tokens, c.channels}, "i" + std::to_string(c.bits) + ", #kvq_tile.layout<\"" + layout.toText() + "\">");
  std::string acc = type({c.rows, results}, "f32"), coeff = type({c.sets, c.rows, contracted}, "f32");
  std::string scale = type({c.groups, results}, "f32"), p = ": !kvq_tile.ptr<f32>";
  std::string text = "func.func @f(%codes_p: !kvq_tile.ptr<i8>, %x_p" + p + ", %factor_p" + p + ", %acc_p" + p +
                     ", %scale_p" + p + ", %out_p" + p +
                     ", %token: i64) attributes {kvq_tile.kernel} {\n"
                     "  %c0 = arith.constant 0 : index\n  %at = arith.index_cast %token : i64 to index\n"
                     "  %codes = kvq_tile.codes %codes_p[%at, %c0] : !kvq_tile.ptr<i8> -> " +
                     packed + "\n";
  text += loadTile("x", c.rows, contracted) + loadTile("factor", c.sets, contracted) + loadTile("acc", c.rows, results);
  text += "  %coeff = kvq_tile.coeff %x, %factor " + (c.round.empty() ? "" : "as " + c.round) + " : " +
          type({c.rows, contracted}, "f32") + ", " + type({c.sets, contracted}, "f32") + " -> " + coeff + "\n";
  if (c.groups)
    text += loadTile("scale", c.groups, results);
  text += "  %r = kvq_tile.dot %codes, %coeff acc %acc" + std::string(c.groups ? " scale %scale" : "") + " contract " +
          std::to_string(c.contract) + " center " + std::to_string(c.center()) + " : " + packed + ", " + coeff +
          (c.groups ? ", " + scale : "") + " -> " + acc + "\n  %out_i = kvq_tile.iota : " + type({c.rows}, "index") +
          "\n  %out_c = arith.constant dense<" + std::to_string(results) + "> : " + type({c.rows}, "index") +
          "\n  %out_o = arith.muli %out_i, %out_c : " + type({c.rows}, "index") +
          "\n  kvq_tile.store %r, %out_p[%out_o] : " + acc + ", !kvq_tile.ptr<f32>, " + type({c.rows}, "index") +
          "\n  return\n}\n";
  return text;
}

int codeAt(const std::vector<uint8_t> &page, const kvq::Layout &layout, int bits, int64_t token, int64_t channel) {
  int64_t bit = layout.address(token, channel) * bits;
  return (page[bit / 8] >> (bit % 8)) & ((1 << bits) - 1);
}

std::string levelText(const mlir::kvq::cpu::CpuLevel *level) {
  std::string name = level->name;
  std::replace_if(name.begin(), name.end(), [](char c) { return c == '-' || c == '@'; }, '_');
  return name;
}

int codeAt(const std::vector<uint8_t> &page, const kvq::SectionLayout &section, int64_t token, int64_t channel) {
  int code = 0;
  for (size_t i = 0; i < section.planes.size(); ++i) {
    const kvq::Plane &plane = section.planes[i];
    const std::vector<uint8_t> bytes(page.begin() + section.planeOffset(i), page.end());
    code |= codeAt(bytes, plane.map, plane.bits, token, channel) << section.planeShift(i);
  }
  return code;
}

class Dot : public testing::TestWithParam<std::tuple<const mlir::kvq::cpu::CpuLevel *, Case>> {};
static const auto dotName = [](const auto &info) {
  std::ostringstream os;
  os << std::get<1>(info.param);
  return levelText(std::get<0>(info.param)) + "_" + os.str();
};
INSTANTIATE_TEST_SUITE_P(All, Dot, testing::Combine(testing::ValuesIn(hostLevels()), testing::ValuesIn(cases())),
                         dotName);
INSTANTIATE_TEST_SUITE_P(Rounded, Dot,
                         testing::Combine(testing::ValuesIn(everyLevel()), testing::ValuesIn(roundedCases())), dotName);

TEST_P(Dot, dot_c1_equals_its_definition) {
  auto [level, c] = GetParam();
  kvq::SectionLayout layout = kvq::makeSectionLayout(c.profile, c.side, c.bits, kTokens, c.channels);
  int64_t contracted = c.contract == 1 ? c.channels : c.tokens, results = c.contract == 1 ? c.tokens : c.channels;
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(c.round.starts_with("u") ? 0 : -1, 1);
  auto fill = [&](int64_t count) {
    std::vector<float> values(count);
    for (float &v : values)
      v = uniform(random);
    return values;
  };
  std::vector<uint8_t> page(kTokens * c.channels * c.bits / 8);
  for (uint8_t &byte : page)
    byte = static_cast<uint8_t>(random());
  auto x = fill(c.rows * contracted), factor = fill(c.sets * contracted), acc = fill(c.rows * results);
  auto scale = fill(std::max(1, c.groups) * results);
  if (!c.round.empty() && c.channels == 256) { // the largest sums that there can be
    std::fill(page.begin(), page.end(), 0xff);
    std::fill(x.begin(), x.end(), 1.0f);
    std::fill(factor.begin(), factor.end(), 1.0f);
  }
  std::vector<float> out(c.rows * results);
  int64_t token = kTokens - c.tokens;
  run(dotProgram(c, layout), level,
      {word(page.data()), word(x.data()), word(factor.data()), word(acc.data()), word(scale.data()), word(out.data()),
       static_cast<uint64_t>(token)},
      1);
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t n = 0; n < results; ++n) {
      double expected = acc[r * results + n], size = std::fabs(expected), largest = 0, reach = 0;
      for (int64_t i = 0; i < contracted; ++i) {
        int code = c.contract == 1 ? codeAt(page, layout, token + n, i) : codeAt(page, layout, token + i, n);
        double coeff = static_cast<double>(x[r * contracted + i]) * factor[n * c.sets / results * contracted + i];
        double rest = code - c.center();
        if (c.groups)
          rest *= scale[i * c.groups / contracted * results + n];
        expected += rest * coeff;
        size += std::fabs(rest * coeff);
        largest = std::max(largest, std::fabs(coeff));
        reach += std::fabs(rest);
      }
      // Half a unit of each coefficient, of which the largest has at least 7 or 14 bits (coeff's description).
      double units = c.round.empty() || c.round == "f16" ? INFINITY : c.round.ends_with("16") ? 16383 : 127;
      double tolerance = 1e-6 * size + reach * largest / units / 2;
      ASSERT_NEAR(out[r * results + n], expected, tolerance) << "row " << r << " result " << n;
    }
}

class StoreCodes
    : public testing::TestWithParam<std::tuple<const mlir::kvq::cpu::CpuLevel *, int, kvq::Profile, kvq::Side>> {};
std::string storeName(const testing::TestParamInfo<StoreCodes::ParamType> &info) {
  std::string level = levelText(std::get<0>(info.param));
  const std::string profile(toText(std::get<2>(info.param)));
  const char *side = std::get<3>(info.param) == kvq::Side::K ? "_k" : "_v";
  return level + "_b" + std::to_string(std::get<1>(info.param)) + "_" + profile + side;
}
INSTANTIATE_TEST_SUITE_P(OnePlane, StoreCodes,
                         testing::Combine(testing::ValuesIn(hostLevels()), testing::Values(2, 4, 8),
                                          testing::Values(kvq::Profile::Vnni, kvq::Profile::Kivi, kvq::Profile::Mma),
                                          testing::Values(kvq::Side::K, kvq::Side::V)),
                         storeName);
INSTANTIATE_TEST_SUITE_P(TwoPlanes, StoreCodes,
                         testing::Combine(testing::ValuesIn(hostLevels()), testing::Values(3),
                                          testing::Values(kvq::Profile::Vnni),
                                          testing::Values(kvq::Side::K, kvq::Side::V)),
                         storeName);

TEST_P(StoreCodes, layout_c3_packs_the_named_rows_and_keeps_all_other_bits) {
  auto [level, bits, profile, side] = GetParam();
  constexpr int64_t kChannels = 80, kRows = 32;
  kvq::SectionLayout layout = kvq::makeSectionLayout(profile, side, bits, kTokens, kChannels);
  std::string codes = type({kRows, kChannels}, "i32");
  std::string text = "func.func @f(%codes_p: !kvq_tile.ptr<i32>, %page: !kvq_tile.ptr<i8>, %token: i64, %b: i64, "
                     "%e: i64) attributes {kvq_tile.kernel} {\n"
                     "  %i = kvq_tile.iota : tensor<32xindex>\n  %c = arith.constant dense<80> : tensor<32xindex>\n"
                     "  %o = arith.muli %i, %c : tensor<32xindex>\n  %q = kvq_tile.load %codes_p[%o] : "
                     "!kvq_tile.ptr<i32>, tensor<32xindex> -> " +
                     codes +
                     "\n"
                     "  %at = arith.index_cast %token : i64 to index\n  %begin = arith.index_cast %b : i64 to index\n"
                     "  %end = arith.index_cast %e : i64 to index\n"
                     "  kvq_tile.store_codes %q, %page[%at] rows %begin, %end {bits = " +
                     std::to_string(bits) + ", layout = #kvq_tile.layout<\"" + layout.toText() + "\">} : " + codes +
                     ", !kvq_tile.ptr<i8>\n  return\n}\n";
  std::mt19937 random(11);
  std::vector<int32_t> values(kRows * kChannels);
  for (int32_t &v : values)
    v = static_cast<int32_t>(random() & ((1u << bits) - 1));
  std::vector<uint8_t> before(kTokens * kChannels * bits / 8);
  for (uint8_t &byte : before)
    byte = static_cast<uint8_t>(random());
  for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, 32}, {5, 6}, {3, 29}, {7, 7}}) {
    std::vector<uint8_t> page = before;
    run(text, level,
        {word(values.data()), word(page.data()), 32, static_cast<uint64_t>(begin), static_cast<uint64_t>(end)}, 1);
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t ch = 0; ch < kChannels; ++ch) {
        bool written = t >= 32 + begin && t < 32 + end;
        int expected = written ? values[(t - 32) * kChannels + ch] : codeAt(before, layout, t, ch);
        ASSERT_EQ(codeAt(page, layout, t, ch), expected) << "token " << t << " channel " << ch;
      }
  }
}

// A strip of 16 channels of every row: no row's validity is in question, and no other channel is touched.
TEST_P(StoreCodes, store_codes_c1_packs_a_strip_of_channels) {
  auto [level, bits, profile, side] = GetParam();
  constexpr int64_t kChannels = 80, kRows = 32, kStrip = 16;
  kvq::SectionLayout layout = kvq::makeSectionLayout(profile, side, bits, kTokens, kChannels);
  std::string codes = type({kRows, kStrip}, "i32");
  std::string text =
      "func.func @f(%codes_p: !kvq_tile.ptr<i32>, %page: !kvq_tile.ptr<i8>, %t: i64, %c: i64) attributes "
      "{kvq_tile.kernel} {\n"
      "  %i = kvq_tile.iota : tensor<32xindex>\n  %s = arith.constant dense<16> : tensor<32xindex>\n"
      "  %o = arith.muli %i, %s : tensor<32xindex>\n  %q = kvq_tile.load %codes_p[%o] : "
      "!kvq_tile.ptr<i32>, tensor<32xindex> -> " +
      codes +
      "\n  %token = arith.index_cast %t : i64 to index\n  %ch = arith.index_cast %c : i64 to index\n"
      "  %c0 = arith.constant 0 : index\n  %c32 = arith.constant 32 : index\n"
      "  kvq_tile.store_codes %q, %page[%token, %ch] rows %c0, %c32 {bits = " +
      std::to_string(bits) + ", layout = #kvq_tile.layout<\"" + layout.toText() + "\">} : " + codes +
      ", !kvq_tile.ptr<i8>\n  return\n}\n";
  std::mt19937 random(12);
  std::vector<int32_t> values(kRows * kStrip);
  for (int32_t &v : values)
    v = static_cast<int32_t>(random() & ((1u << bits) - 1));
  std::vector<uint8_t> before(kTokens * kChannels * bits / 8);
  for (uint8_t &byte : before)
    byte = static_cast<uint8_t>(random());
  for (int64_t token : {0, 32})
    for (int64_t channel = 0; channel < kChannels; channel += kStrip) {
      std::vector<uint8_t> page = before;
      run(text, level,
          {word(values.data()), word(page.data()), static_cast<uint64_t>(token), static_cast<uint64_t>(channel)}, 1);
      for (int64_t t = 0; t < kTokens; ++t)
        for (int64_t ch = 0; ch < kChannels; ++ch) {
          bool written = t >= token && t < token + kRows && ch >= channel && ch < channel + kStrip;
          int expected = written ? values[(t - token) * kStrip + ch - channel] : codeAt(before, layout, t, ch);
          ASSERT_EQ(codeAt(page, layout, t, ch), expected) << "token " << t << " channel " << ch;
        }
    }
}

} // namespace
