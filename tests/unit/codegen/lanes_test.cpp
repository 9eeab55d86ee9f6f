// SPDX-License-Identifier: Apache-2.0
//
// Laws of lane layouts: text, bits of a shape, which lane and register holds which element; fragments against a table
// of the PTX ISA; words of packed codes against the layouts of runtime/format.

#include "codegen/nvptx/Fragment.h"
#include "codegen/nvptx/Words.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Parser/Parser.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

using namespace mlir;
using namespace mlir::kvq;
using tile::LaneLayout;
using tile::RegisterFile;
using tile::TileBit;

namespace {

using Index = std::vector<int64_t>;

Index toIndex(ArrayRef<int64_t> index) { return Index(index.begin(), index.end()); }

// A shape with ragged extents among them, and a layout that names bits of it, some lanes none, each bit once.
struct Case {
  SmallVector<int64_t> shape;
  LaneLayout layout;

  explicit Case(unsigned seed) {
    std::mt19937 random(seed);
    const int64_t extents[] = {1, 2, 3, 6, 8, 10, 12, 16, 24, 40, 64};
    size_t rank = 1 + random() % 3;
    for (size_t i = 0; i < rank; ++i)
      shape.push_back(extents[random() % (rank == 3 ? 7 : 11)]);
    std::vector<TileBit> bits;
    for (size_t dim = 0; dim < rank; ++dim)
      for (int bit = 0; bit < tile::bitsOf(shape[dim]); ++bit)
        bits.push_back({static_cast<int>(dim), bit});
    std::shuffle(bits.begin(), bits.end(), random);
    auto next = [&] {
      if (bits.empty() || random() % 4 == 0)
        return TileBit();
      TileBit bit = bits.back();
      bits.pop_back();
      return bit;
    };
    for (TileBit &bit : layout.lane)
      bit = next();
    layout.pair = next();
  }
};

constexpr unsigned kCases = 400;

// All elements of a shape.
std::vector<Index> allOf(ArrayRef<int64_t> shape) {
  std::vector<Index> all{{}};
  for (int64_t extent : shape) {
    std::vector<Index> longer;
    for (const Index &index : all)
      for (int64_t i = 0; i < extent; ++i) {
        longer.push_back(index);
        longer.back().push_back(i);
      }
    all = std::move(longer);
  }
  return all;
}

// What a lane holds in a register, by the description in Lanes.h.
std::vector<Index> heldBy(const RegisterFile &file, int lane, int64_t number) {
  Index index = toIndex(file.base(number));
  for (int bit = 0; bit < LaneLayout::kLaneBits; ++bit)
    if (TileBit at = file.layout().lane[bit]; !at.isNone() && lane >> bit & 1)
      index[at.dim] += int64_t(1) << at.bit;
  std::vector<Index> held{index};
  if (TileBit at = file.layout().pair; !at.isNone()) {
    index[at.dim] += int64_t(1) << at.bit;
    held.push_back(index);
  }
  return held;
}

TEST(Lanes, text_comes_back) {
  for (unsigned seed = 0; seed < kCases; ++seed) {
    Case one(seed);
    std::string text = one.layout.toText(), why;
    auto parsed = LaneLayout::parse(text, why);
    ASSERT_TRUE(parsed) << text << ": " << why;
    EXPECT_EQ(*parsed, one.layout) << text;
    EXPECT_EQ(one.layout.whyNot(one.shape), "");
  }
}

TEST(Lanes, other_text_is_refused) {
  for (const char *text : {"", "lane", "lane=[]", "lane=[- - - -]", "lane=[- - - - - -]", "lane=[- - - - -",
                           "[- - - - -]", "lane=[d0 - - - -]", "lane=[d0. - - - -]", "lane=[d8.0 - - - -]",
                           "lane=[d0.32 - - - -]", "lane=[d-1.0 - - - -]", "lane=[- - - - -]pair=d0.0",
                           "lane=[- - - - -] pair=", "lane=[- - - - -] pair=d0.0 ", "lane=[-  - - -]"}) {
    std::string why;
    EXPECT_FALSE(LaneLayout::parse(text, why)) << text;
    EXPECT_NE(why.find("are not written as in lane="), std::string::npos) << text << ": " << why;
  }
}

TEST(Lanes, lanes_c2_bits_are_those_that_every_index_can_have) {
  for (int64_t extent = 1; extent <= 130; ++extent) {
    // Bit b is free where i -> i ^ 2^b maps the indices below the extent onto themselves.
    int free = 0;
    for (int bit = 0; bit < 9; ++bit) {
      bool stays = true;
      for (int64_t i = 0; i < extent; ++i)
        stays &= (i ^ (int64_t(1) << bit)) < extent;
      free += stays;
      LaneLayout layout;
      layout.lane[2] = {0, bit};
      EXPECT_EQ(layout.whyNot({extent}).empty(), stays) << extent << " bit " << bit;
    }
    EXPECT_EQ(tile::bitsOf(extent), free) << extent;
  }
}

TEST(Lanes, every_element_lies_in_the_lanes_that_repeat_it_and_nowhere_else) {
  for (unsigned seed = 0; seed < kCases; ++seed) {
    Case one(seed);
    RegisterFile file(one.shape, one.layout);
    std::map<Index, int> times;
    std::map<std::pair<Index, int>, int64_t> place; // element and lane -> register
    for (int lane = 0; lane < 32; ++lane)
      for (int64_t number = 0; number < file.count(); ++number)
        for (const Index &index : heldBy(file, lane, number)) {
          ++times[index];
          EXPECT_TRUE(place.try_emplace({index, lane}, number).second) << one.layout.toText();
        }
    int repeats = 1;
    for (TileBit bit : one.layout.lane)
      repeats *= bit.isNone() ? 2 : 1;
    auto all = allOf(one.shape);
    ASSERT_EQ(times.size(), all.size()) << one.layout.toText();
    for (const Index &index : all)
      ASSERT_EQ(times[index], repeats) << one.layout.toText();
    for (auto &[where, number] : place)
      ASSERT_EQ(file.find(where.first), number) << one.layout.toText();
  }
}

TEST(Lanes, a_register_is_found_by_its_base) {
  for (unsigned seed = 0; seed < kCases; ++seed) {
    Case one(seed);
    RegisterFile file(one.shape, one.layout);
    for (int64_t number = 0; number < file.count(); ++number)
      ASSERT_EQ(file.find(file.base(number)), number) << one.layout.toText();
  }
}

TEST(Lanes, a_dimension_that_is_put_in_and_taken_out_leaves_the_layout) {
  for (unsigned seed = 0; seed < kCases; ++seed) {
    Case one(seed);
    int rank = static_cast<int>(one.shape.size());
    for (int dim = 0; dim <= rank; ++dim)
      EXPECT_EQ(tile::dropDim(tile::insertDim(one.layout, dim), dim), one.layout);
    for (int dim = 0; dim < rank; ++dim) {
      // A lane holds the elements of the longer tile with the dimension left out.
      SmallVector<int64_t> shape(one.shape);
      shape.erase(shape.begin() + dim);
      LaneLayout dropped = tile::dropDim(one.layout, dim);
      EXPECT_EQ(dropped.whyNot(shape), "");
      RegisterFile file(one.shape, one.layout), shorter(shape, dropped);
      for (int lane : {0, 5, 18, 31}) {
        std::set<Index> expected, actual;
        for (int64_t number = 0; number < file.count(); ++number)
          for (Index index : heldBy(file, lane, number)) {
            index.erase(index.begin() + dim);
            expected.insert(index);
          }
        for (int64_t number = 0; number < shorter.count(); ++number)
          for (const Index &index : heldBy(shorter, lane, number))
            actual.insert(index);
        EXPECT_EQ(actual, expected) << one.layout.toText() << " without " << dim;
      }
    }
  }
}

// ---- fragments ----

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" (.f16): groupID = laneid >> 2,
// threadID_in_group = laneid % 4. Element i of a lane's fragment: row and column of A (M x K), B (K x N), C (M x N).
std::array<int64_t, 2> elementOfA(int lane, int i) {
  int group = lane >> 2, thread = lane % 4;
  int row = (i < 2 || (4 <= i && i < 6)) ? group : group + 8;
  int column = thread * 2 + (i & 1) + (i >= 4 ? 8 : 0);
  return {row, column};
}

std::array<int64_t, 2> elementOfB(int lane, int i) {
  int group = lane >> 2, thread = lane % 4;
  return {thread * 2 + (i & 1) + (i >= 2 ? 8 : 0), group};
}

std::array<int64_t, 2> elementOfC(int lane, int i) {
  int group = lane >> 2, thread = lane % 4;
  return {i < 2 ? group : group + 8, thread * 2 + (i & 1)};
}

std::set<Index> elementsOf(const RegisterFile &file, int lane) {
  std::set<Index> result;
  for (int64_t number = 0; number < file.count(); ++number)
    for (const Index &index : heldBy(file, lane, number))
      result.insert(index);
  return result;
}

nvptx::Fragment plainFragment() {
  nvptx::Fragment fragment;
  fragment.mLane[0] = 0;
  fragment.mLane[1] = 1;
  fragment.mLane[2] = 2;
  fragment.mReg = 3;
  return fragment;
}

TEST(Fragments, m16n8k16_is_as_the_isa_has_it) {
  nvptx::Fragment fragment = plainFragment();
  RegisterFile a({16, 16}, fragment.values(1)), aTurned({16, 16}, fragment.values(0));
  RegisterFile b({8, 16}, fragment.coefficients(2)), sets({3, 8, 16}, fragment.coefficients(3));
  RegisterFile c({8, 16}, fragment.result());
  for (int lane = 0; lane < 32; ++lane) {
    std::set<Index> ofA, ofATurned, ofB, ofSets, ofC;
    for (int i = 0; i < 8; ++i) {
      auto [m, k] = elementOfA(lane, i);
      ofA.insert({m, k});
      ofATurned.insert({k, m});
    }
    for (int i = 0; i < 4; ++i) {
      auto [k, n] = elementOfB(lane, i);
      ofB.insert({n, k});
      for (int64_t set = 0; set < 3; ++set)
        ofSets.insert({set, n, k});
      auto [m, column] = elementOfC(lane, i);
      ofC.insert({column, m});
    }
    EXPECT_EQ(elementsOf(a, lane), ofA) << lane;
    EXPECT_EQ(elementsOf(aTurned, lane), ofATurned) << lane;
    EXPECT_EQ(elementsOf(b, lane), ofB) << lane;
    EXPECT_EQ(elementsOf(sets, lane), ofSets) << lane;
    EXPECT_EQ(elementsOf(c, lane), ofC) << lane;
  }
}

TEST(Fragments, registers_are_in_the_order_of_the_instruction) {
  nvptx::Fragment fragment = plainFragment();
  // Register r of A has elements 2r and 2r + 1: r = 0 at (m, k), 1 at (m + 8, k), 2 at (m, k + 8), 3 at both.
  RegisterFile a({16, 16}, fragment.values(1)), b({8, 16}, fragment.coefficients(2));
  const std::array<int64_t, 2> aPlaces[] = {{0, 0}, {8, 0}, {0, 8}, {8, 8}};
  for (int r = 0; r < 4; ++r)
    for (int lane = 0; lane < 32; ++lane) {
      auto held = heldBy(a, lane, a.find(aPlaces[r]));
      for (int i = 0; i < 2; ++i) {
        auto [m, k] = elementOfA(lane, 2 * r + i);
        EXPECT_EQ(held[i], (Index{m, k})) << r << " " << lane;
      }
    }
  for (int r = 0; r < 2; ++r)
    for (int lane = 0; lane < 32; ++lane) {
      auto held = heldBy(b, lane, b.find({0, 8 * r}));
      for (int i = 0; i < 2; ++i) {
        auto [k, n] = elementOfB(lane, 2 * r + i);
        EXPECT_EQ(held[i], (Index{n, k})) << r << " " << lane;
      }
    }
}

// ---- words ----

class Words : public testing::Test {
protected:
  Words() {
    context.loadDialect<tile::KvqTileDialect, arith::ArithDialect, func::FuncDialect>();
    module = ModuleOp::create(UnknownLoc::get(&context));
  }
  tile::LayoutAttr attr(const ::kvq::Layout &map) { return tile::LayoutAttr::get(&context, map.toText()); }

  MLIRContext context;
  OwningOpRef<ModuleOp> module;
};

// The value of a chain of index arithmetic with constant operands: createOrFold leaves a constant.
int64_t constantOf(Value value) {
  return cast<IntegerAttr>(cast<arith::ConstantOp>(value.getDefiningOp()).getValue()).getInt();
}

TEST_F(Words, words_and_fields_are_those_of_the_page) {
  std::mt19937 random(7);
  int taken = 0;
  for (::kvq::Profile profile : {::kvq::Profile::Vnni, ::kvq::Profile::Kivi, ::kvq::Profile::Mma})
    for (::kvq::Side side : {::kvq::Side::K, ::kvq::Side::V})
      for (int bits : {2, 4, 8})
        for (int dim : {64, 80, 96, 128}) {
          ::kvq::Layout map = ::kvq::makeLayout(profile, side, bits, 64, dim);
          for (int64_t tokens : {64, 32, 16}) {
            for (int64_t channels : {dim, dim / 2, 16}) {
              if (dim % channels != 0)
                continue;
              auto diagnostics = ScopedDiagnosticHandler(&context, [](Diagnostic &) { return success(); });
              auto words = nvptx::WordMap::get(*module, attr(map), bits, {tokens, channels});
              if (failed(words))
                continue;
              ++taken;
              OpBuilder b(module->getBodyRegion());
              for (int i = 0; i < 8; ++i) {
                int64_t t0 = random() % (64 / tokens) * tokens, c0 = random() % (dim / channels) * channels;
                int64_t t = random() % tokens, c = random() % channels;
                auto at = [&](int64_t value) { return arith::ConstantIndexOp::create(b, b.getUnknownLoc(), value); };
                int64_t before = constantOf(words->wordsBefore(b, b.getUnknownLoc(), ::kvq::Dim::Token, at(t0))) +
                                 constantOf(words->wordsBefore(b, b.getUnknownLoc(), ::kvq::Dim::Channel, at(c0)));
                auto fieldsBefore = [&](::kvq::Dim which, int64_t value) {
                  Value fields = words->fieldsBefore(b, b.getUnknownLoc(), which, at(value));
                  return fields ? constantOf(fields) : 0;
                };
                int64_t within = fieldsBefore(::kvq::Dim::Token, t0) + fieldsBefore(::kvq::Dim::Channel, c0);
                int64_t address = map.address(t0 + t, c0 + c);
                ASSERT_EQ(before + words->word({t, c}), address / (32 / bits)) << map.toText();
                ASSERT_EQ(within + words->field({t, c}), address % (32 / bits)) << map.toText();
                if (words->beginsAtMultipleOf(4))
                  ASSERT_EQ(before % 4, 0) << map.toText();
              }
            }
          }
        }
  EXPECT_GE(taken, 200);
}

TEST_F(Words, lanes_of_stored_words_share_none) {
  for (::kvq::Profile profile : {::kvq::Profile::Vnni, ::kvq::Profile::Kivi, ::kvq::Profile::Mma})
    for (::kvq::Side side : {::kvq::Side::K, ::kvq::Side::V})
      for (int bits : {2, 4, 8})
        for (int dim : {64, 80, 128}) {
          ::kvq::Layout map = ::kvq::makeLayout(profile, side, bits, 64, dim);
          auto words = nvptx::WordMap::get(*module, attr(map), bits, {64, dim});
          ASSERT_TRUE(succeeded(words)) << map.toText();
          LaneLayout lanes = words->lanes();
          EXPECT_EQ(lanes.whyNot({64, dim}), "");
          RegisterFile file({64, dim}, lanes);
          std::map<int64_t, int> owner; // word -> the first lane that holds a code of it
          for (int lane = 0; lane < 32; ++lane) {
            bool isRepeated = false;
            for (int bit = 0; bit < 5; ++bit)
              isRepeated |= lanes.lane[bit].isNone() && lane >> bit & 1;
            for (int64_t number = 0; number < (isRepeated ? 0 : file.count()); ++number) {
              Index index = heldBy(file, lane, number).front();
              auto [found, isNew] = owner.try_emplace(map.address(index[0], index[1]) / (32 / bits), lane);
              ASSERT_EQ(found->second, lane) << map.toText();
            }
          }
          EXPECT_EQ(owner.size(), static_cast<size_t>(64 * dim * bits / 32)) << map.toText();
        }
}

} // namespace
