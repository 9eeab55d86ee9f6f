// SPDX-License-Identifier: Apache-2.0
//
// Comparison, selection, predicates and moves.
#include "tests/unit/ptxsim/isa_harness.h"

#include "runtime/ptxsim/isa/half.h"
#include "runtime/ptxsim/memory/address.h"

#include <cmath>

namespace kvq::ptxsim::test {
namespace {

// What the ISA's tables say of an operator, with the order of the operands: -1, 0, 1, or 2 for a NaN among them.
bool holds(const std::string &op, int order) {
  const bool nan = order == 2;
  if (op == "num" || op == "nan")
    return nan == (op == "nan");
  const bool unordered = op.size() == 3; // equ .. geu
  if (nan)
    return unordered;
  const std::string base = op.substr(0, 2);
  return base == "eq"                   ? order == 0
         : base == "ne"                 ? order != 0
         : base == "lt" || base == "lo" ? order < 0
         : base == "le" || base == "ls" ? order <= 0
         : base == "gt" || base == "hi" ? order > 0
                                        : order >= 0;
}
template <typename T> int orderOf(T a, T b) { return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2; }

// Small numbers, so that equal ones come up.
template <typename T> std::array<T, 32> drawFew(Random &random) {
  std::array<T, 32> values;
  for (T &value : values) {
    value = T(int(random.below(5)) - 2);
    if constexpr (std::is_floating_point_v<T>)
      value = random.below(6) == 0 ? T(NAN) : value;
  }
  return values;
}

template <typename T> void testCompare(const std::string &type, const std::vector<std::string> &operators) {
  Machine machine(addCompare);
  Random random(1);
  constexpr uint32_t c = 0x33cc55aa, mask = 0xfffffff7;
  for (const std::string &op : operators) {
    const auto a = drawFew<T>(random), b = drawFew<T>(random);
    const auto plain = machine.run("setp." + op + "." + type, {lanesOf(a), lanesOf(b)}, mask);
    const auto set = machine.run("set." + op + ".u32." + type, {lanesOf(a), lanesOf(b)});
    const auto setFloat = machine.run("set." + op + ".xor.f32." + type, {lanesOf(a), lanesOf(b), predicate(c)});
    std::vector<std::vector<Lanes>> combined;
    for (const char *combine : {".and.", ".or.", ".xor."})
      combined.push_back(machine.run("setp." + op + combine + type, {lanesOf(a), lanesOf(b), predicate(c)}));
    for (int i = 0; i < 32; ++i) {
      const bool t = holds(op, orderOf(a[i], b[i])), q = c >> i & 1;
      const auto bit = [i](const Lanes &lanes) { return bool(lanes.lane[0] >> i & 1); };
      const bool before = Machine::before >> i & 1, active = mask >> i & 1;
      EXPECT_EQ(bit(plain[0]), active ? t : before) << op << type;
      EXPECT_EQ(bit(plain[1]), active ? !t : before);
      EXPECT_EQ(bit(combined[0][0]), t && q);
      EXPECT_EQ(bit(combined[0][1]), !t && q);
      EXPECT_EQ(bit(combined[1][0]), t || q);
      EXPECT_EQ(bit(combined[1][1]), !t || q);
      EXPECT_EQ(bit(combined[2][0]), t != q);
      EXPECT_EQ(bit(combined[2][1]), !t != q);
      EXPECT_EQ(get<uint32_t>(set[0], i), t ? ~0u : 0u);
      EXPECT_EQ(get<float>(setFloat[0], i), t != q ? 1.0f : 0.0f);
    }
  }
}
TEST(Setp, EveryOperator) {
  const std::vector<std::string> same = {"eq", "ne"}, ordered = {"eq", "ne", "lt", "le", "gt", "ge"};
  std::vector<std::string> ofUnsigned = ordered, ofFloats = ordered;
  ofUnsigned.insert(ofUnsigned.end(), {"lo", "ls", "hi", "hs"});
  ofFloats.insert(ofFloats.end(), {"equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
  testCompare<uint16_t>("b16", same);
  testCompare<uint32_t>("b32", same);
  testCompare<uint64_t>("b64", same);
  testCompare<uint16_t>("u16", ofUnsigned);
  testCompare<uint32_t>("u32", ofUnsigned);
  testCompare<uint64_t>("u64", ofUnsigned);
  testCompare<int16_t>("s16", ordered);
  testCompare<int32_t>("s32", ordered);
  testCompare<int64_t>("s64", ordered);
  testCompare<float>("f32", ofFloats);
  testCompare<double>("f64", ofFloats);
}

TEST(Setp, Halves) {
  Machine machine(addCompare);
  Random random(2);
  for (const char *op : {"eq", "lt", "geu", "nan"}) {
    const auto a0 = drawFew<float>(random), a1 = drawFew<float>(random), b0 = drawFew<float>(random),
               b1 = drawFew<float>(random);
    std::array<uint32_t, 32> a, b;
    std::array<uint16_t, 32> low, other;
    for (int i = 0; i < 32; ++i) {
      a[i] = uint32_t(floatToHalf(a1[i])) << 16 | floatToHalf(a0[i]),
      b[i] = uint32_t(floatToHalf(b1[i])) << 16 | floatToHalf(b0[i]);
      low[i] = floatToBfloat(a0[i]), other[i] = floatToBfloat(b0[i]);
    }
    const auto both = machine.run(std::string("setp.") + op + ".f16x2", {lanesOf(a), lanesOf(b)});
    const auto one = machine.run(std::string("setp.") + op + ".bf16", {lanesOf(low), lanesOf(other)});
    const auto set = machine.run(std::string("set.") + op + ".f16x2.f16x2", {lanesOf(a), lanesOf(b)});
    for (int i = 0; i < 32; ++i) {
      const bool p = holds(op, orderOf(a0[i], b0[i])), q = holds(op, orderOf(a1[i], b1[i]));
      EXPECT_EQ(both[0].lane[0] >> i & 1, uint64_t(p));
      EXPECT_EQ(both[1].lane[0] >> i & 1, uint64_t(q));
      EXPECT_EQ(one[0].lane[0] >> i & 1, uint64_t(p));
      EXPECT_EQ(get<uint32_t>(set[0], i), (p ? 0x3c00u : 0) | (q ? 0x3c000000u : 0));
    }
  }
}

TEST(Selection, PicksByPredicateOrSign) {
  Machine machine(addCompare);
  Random random(3);
  const auto a = drawLanes<uint64_t>(random), b = drawLanes<uint64_t>(random);
  const Lanes chosen = machine.run("selp.b64", {lanesOf(a), lanesOf(b), predicate(0x1234abcd)})[0];
  std::array<float, 32> c = drawFew<float>(random);
  c[0] = -0.0f, c[1] = -0x1p-140f;
  const auto plain = machine.call<uint64_t>("slct.u64.f32", a, b, c),
             flushed = machine.call<uint64_t>("slct.ftz.u64.f32", a, b, c);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(get<uint64_t>(chosen, i), 0x1234abcd >> i & 1 ? a[i] : b[i]);
    EXPECT_EQ(plain[i], c[i] >= 0 ? a[i] : b[i]);
    EXPECT_EQ(flushed[i], i == 1 || c[i] >= 0 ? a[i] : b[i]);
  }
}

TEST(Predicates, AreMasks) {
  Machine machine(addCompare);
  const auto p = [&](const char *name, uint32_t a, uint32_t b) {
    return uint32_t(machine.run(name, {predicate(a), predicate(b)}, 0xffff)[0].lane[0]);
  };
  const uint32_t upper = uint32_t(Machine::before) & 0xffff0000;
  EXPECT_EQ(p("and.pred", 0xff0f, 0x3c3c), upper | (0xff0f & 0x3c3c));
  EXPECT_EQ(p("or.pred", 0xff0f, 0x3c3c), upper | (0xff0f | 0x3c3c));
  EXPECT_EQ(p("xor.pred", 0xff0f, 0x3c3c), upper | (0xff0f ^ 0x3c3c));
  EXPECT_EQ(uint32_t(machine.run("not.pred", {predicate(0xff0f)}, 0xffff)[0].lane[0]), upper | 0x00f0);
}

TEST(Moves, PackAndTakeApart) {
  Machine machine(addMove);
  Random random(4);
  const auto wide = drawLanes<uint64_t>(random);
  const auto words = machine.run("mov.b64", {lanesOf(wide)}, 0x0000ffff);
  ASSERT_EQ(words.size(), 1u); // the first form is the plain one
  std::array<uint16_t, 32> part[4];
  std::array<uint32_t, 32> half[2];
  for (int i = 0; i < 32; ++i) {
    for (int k = 0; k < 4; ++k)
      part[k][i] = uint16_t(wide[i] >> 16 * k);
    half[0][i] = uint32_t(wide[i]), half[1][i] = uint32_t(wide[i] >> 32);
  }
  EXPECT_EQ(machine.call<uint64_t>("mov.b64", part[0], part[1], part[2], part[3]), wide);
  EXPECT_EQ(machine.call<uint64_t>("mov.b64", half[0], half[1]), wide);
  EXPECT_EQ(machine.call<uint32_t>("mov.b32", part[2], part[3]), half[1]);
  for (const auto &form : machine.table.find("mov.b64")) {
    if (form->results[0].vector != 4)
      continue;
    Slot slots[5] = {{0, 0}, {64, 0}, {128, 0}, {192, 0}, {256, 0}};
    alignas(64) std::byte frame[512];
    std::memcpy(frame + 256, wide.data(), 256);
    Warp warp;
    warp.frame = frame;
    Op op;
    op.results = slots, op.sources = slots + 4;
    form->handler(warp, op, kFull);
    for (int k = 0; k < 4; ++k)
      EXPECT_EQ(std::memcmp(frame + 64 * k, part[k].data(), 64), 0);
  }
}

TEST(Moves, GenericAddresses) {
  Machine machine(addMove);
  std::array<uint64_t, 32> offset;
  for (int i = 0; i < 32; ++i)
    offset[i] = uint64_t(i) * 16;
  for (const auto &[name, space] :
       {std::pair("shared", Space::Shared), std::pair("local", Space::Local), std::pair("const", Space::Const)}) {
    const auto generic = machine.call<uint64_t>(std::string("cvta.") + name + ".u64", offset);
    EXPECT_EQ(generic[3], genericBase(space) + 48);
    EXPECT_EQ(machine.call<uint64_t>(std::string("cvta.to.") + name + ".u64", generic), offset);
    EXPECT_EQ(machine.run(std::string("isspacep.") + name, {lanesOf(generic)})[0].lane[0], 0xffffffffu);
    EXPECT_EQ(machine.run("isspacep.global", {lanesOf(generic)})[0].lane[0], 0u);
  }
  EXPECT_EQ(get<uint32_t>(machine.run("activemask.b32", {}, 0xf0f0)[0], 4), 0xf0f0u);
}

} // namespace
} // namespace kvq::ptxsim::test
