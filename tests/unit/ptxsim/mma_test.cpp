// SPDX-License-Identifier: Apache-2.0
//
// mma.sync and movmatrix. Layouts come from the PTX ISA's formulas shape by shape, sums from fixed point. That the mode
// truncate gives what an H200 gives is in tests/ptxsim/test_mma_truncate.py.
#include "runtime/ptxsim/isa/half.h"
#include "runtime/ptxsim/isa/mma_fragments.h"
#include "tests/unit/ptxsim/one_warp.h"
#include "tests/unit/ptxsim/wide_sum.h"

#include <functional>
#include <random>

using namespace kvq::ptxsim;

namespace {

const std::string kF16 = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32";

struct Matrix {
  int rows, columns;
  std::vector<double> values;
  Matrix(int rows, int columns) : rows(rows), columns(columns), values(size_t(rows) * columns) {}
  double &at(int row, int column) { return values[size_t(row) * columns + column]; }
};

using Encode = std::function<uint32_t(double)>;
uint32_t toF16(double value) { return floatToHalf(float(value)); }
uint32_t toBf16(double value) { return floatToBfloat(float(value)); }
uint32_t toF32(double value) { return bitsOf(float(value)); }
uint32_t toTf32(double value) { return bitsOf(float(value)); }

// The element of register `reg` is part `i` of lane `lane`: the ISA's formulas, in its order of elements a0, a1, ..
struct Shape {
  int rows, depth, bits;
  int parts() const { return 32 / bits; }
  int registersA() const { return rows * depth * bits / 1024; }
  int registersB() const { return 8 * depth * bits / 1024; }
};

int group(int lane) { return lane / 4; }
int thread(int lane) { return lane % 4; }

// a_i of a lane, i = reg * parts + part.
mma::Place isaA(const Shape &shape, int lane, int i) {
  const int g = group(lane), t = thread(lane);
  if (shape.rows == 8)
    return {g, t * shape.parts() + i};
  switch (shape.bits) {
  case 32: // .m16n8k4, .m16n8k8 tf32: a0, a2 in row groupID, the others below; a2, a3 four columns on
    return {i % 2 == 0 ? g : g + 8, i < 2 ? t : t + 4};
  case 16: // .m16n8k8, .m16n8k16 f16 and bf16
    return {(i / 2) % 2 == 0 ? g : g + 8, i < 4 ? t * 2 + i % 2 : t * 2 + i % 2 + 8};
  case 8: // .m16n8k16, .m16n8k32
    return {(i / 4) % 2 == 0 ? g : g + 8, i < 8 ? t * 4 + i % 4 : t * 4 + i % 4 + 16};
  default: // .m16n8k32, .m16n8k64 of 4 bits
    return {(i / 8) % 2 == 0 ? g : g + 8, i < 16 ? t * 8 + i % 8 : t * 8 + i % 8 + 32};
  }
}
mma::Place isaB(const Shape &shape, int lane, int i) {
  const int g = group(lane), t = thread(lane);
  switch (shape.bits) {
  case 32:
    return {i == 0 ? t : t + 4, g};
  case 16:
    return {i < 2 ? t * 2 + i : t * 2 + i % 2 + 8, g};
  case 8:
    return {i < 4 ? t * 4 + i : t * 4 + i % 4 + 16, g};
  default:
    return {i < 8 ? t * 8 + i : t * 8 + i % 8 + 32, g};
  }
}
mma::Place isaC(int lane, int i) { return {i < 2 ? group(lane) : group(lane) + 8, thread(lane) * 2 + i % 2}; }

std::vector<Lanes> pack(Matrix m, int registers, int bits, const std::function<mma::Place(int, int)> &place,
                        const Encode &encode) {
  std::vector<Lanes> out(size_t(registers), Lanes{});
  const int parts = 32 / bits;
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < registers * parts; ++i) {
      const mma::Place at = place(lane, i);
      const uint32_t mask = bits == 32 ? ~0u : (1u << bits) - 1;
      out[i / parts][lane] |= (encode(m.at(at.row, at.column)) & mask) << bits * (i % parts);
    }
  return out;
}

std::vector<Lanes> operands(const Shape &shape, const Matrix &a, const Matrix &b, const Matrix &c, const Encode &encode,
                            bool halves = false, const Encode &encodeC = toF32) {
  std::vector<Lanes> all =
      pack(a, shape.registersA(), shape.bits, [&](int lane, int i) { return isaA(shape, lane, i); }, encode);
  for (const Lanes &r :
       pack(b, shape.registersB(), shape.bits, [&](int lane, int i) { return isaB(shape, lane, i); }, encode))
    all.push_back(r);
  const int bits = halves ? 16 : 32;
  for (const Lanes &r : pack(c, shape.rows * bits / 128, bits, isaC, halves ? Encode(toF16) : encodeC))
    all.push_back(r);
  return all;
}

double elementD(const std::vector<Lanes> &d, int lane, int i, bool halves) {
  return halves ? halfToFloat(uint16_t(d[i / 2][lane] >> 16 * (i % 2))) : floatOf(d[i][lane]);
}

// Random numbers with exponents from `low` to `high`.
struct Draw {
  std::mt19937 random{7};
  double number(int low, int high) {
    const double fraction = 1 + double(random() & 1023) / 1024;
    return std::ldexp(random() & 1 ? fraction : -fraction, low + int(random() % uint32_t(high - low + 1)));
  }
  Matrix matrix(int rows, int columns, int low, int high) {
    Matrix m(rows, columns);
    for (double &value : m.values)
      value = number(low, high);
    return m;
  }
};

double decoded(const Encode &encode, double value) {
  const uint32_t code = encode(value);
  return encode(1.0) == 0x3c00   ? double(halfToFloat(uint16_t(code)))
         : encode(1.0) == 0x3f80 ? double(bfloatToFloat(uint16_t(code)))
                                 : double(floatOf(code & 0xffffe000));
}

void expectExact(const std::string &name, const Shape &shape, const Encode &encode, bool halves, const Matrix &a,
                 const Matrix &b, const Matrix &c) {
  Matrix ra = a, rb = b, rc = c;
  for (double &value : ra.values)
    value = decoded(encode, value);
  for (double &value : rb.values)
    value = decoded(encode, value);
  for (double &value : rc.values)
    value = halves ? decoded(toF16, value) : double(float(value));
  OneWarp warp;
  const std::vector<Lanes> d = warp.run(name, operands(shape, a, b, c, encode, halves), halves ? 2 : 4);
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i) {
      const mma::Place at = isaC(lane, i);
      WideSum sum;
      sum.add(rc.at(at.row, at.column));
      for (int k = 0; k < shape.depth; ++k)
        sum.add(ra.at(at.row, k) * rb.at(k, at.column));
      const double expected = halves ? sum.round(11, -24, 16) : sum.round(24, -149, 128);
      ASSERT_EQ(elementD(d, lane, i, halves), expected) << name << " row " << at.row << " column " << at.column;
    }
}

} // namespace

TEST(Mma, PlacesAreThoseOfTheIsa) {
  for (Shape shape : {Shape{16, 4, 32}, Shape{16, 8, 32}, Shape{16, 8, 16}, Shape{16, 16, 16}, Shape{16, 16, 8},
                      Shape{16, 32, 8}, Shape{16, 32, 4}, Shape{16, 64, 4}, Shape{8, 16, 8}, Shape{8, 32, 4}}) {
    const int parts = shape.parts();
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int i = 0; i < shape.registersA() * parts; ++i) {
        const mma::Place isa = isaA(shape, lane, i),
                         ours = mma::placeInA(parts, shape.rows / 8, i / parts, lane, i % parts);
        EXPECT_TRUE(isa.row == ours.row && isa.column == ours.column) << shape.depth << " " << lane << " " << i;
      }
      for (int i = 0; i < shape.registersB() * parts; ++i) {
        const mma::Place isa = isaB(shape, lane, i), ours = mma::placeInB(parts, i / parts, lane, i % parts);
        EXPECT_TRUE(isa.row == ours.row && isa.column == ours.column) << shape.depth << " " << lane << " " << i;
      }
      for (int i = 0; i < 4; ++i)
        for (int perRegister : {1, 2}) {
          const mma::Place isa = isaC(lane, i),
                           ours = mma::placeInC(perRegister, i / perRegister, lane, i % perRegister);
          EXPECT_TRUE(isa.row == ours.row && isa.column == ours.column);
        }
    }
  }
}

// Exponents side by side, accumulators far below the products, and exponents so far apart that no double holds a sum.
TEST(Mma, ExactSumsAreRoundedOnce) {
  struct Case {
    const char *types;
    Shape shape;
    Encode encode;
    bool halves;
    int low, high, lowC, highC;
  };
  for (const Case &c : {Case{"f32.f16.f16.f32", {16, 16, 16}, toF16, false, -3, 3, -3, 3},
                        Case{"f32.f16.f16.f32", {16, 16, 16}, toF16, false, -3, 3, -60, -40},
                        Case{"f32.f16.f16.f32", {16, 16, 16}, toF16, false, -24, 15, -20, 10},
                        Case{"f32.f16.f16.f32", {16, 16, 16}, toF16, false, -14, 15, -126, 100},
                        Case{"f32.f16.f16.f32", {16, 8, 16}, toF16, false, -24, 15, -30, 30},
                        Case{"f16.f16.f16.f16", {16, 16, 16}, toF16, true, -3, 3, -3, 3},
                        Case{"f16.f16.f16.f16", {16, 16, 16}, toF16, true, -20, 6, -20, 6},
                        Case{"f16.f16.f16.f16", {16, 8, 16}, toF16, true, -20, 6, -20, 6},
                        Case{"f32.bf16.bf16.f32", {16, 16, 16}, toBf16, false, -4, 4, -4, 4},
                        Case{"f32.bf16.bf16.f32", {16, 16, 16}, toBf16, false, -60, 60, -100, 100},
                        Case{"f32.bf16.bf16.f32", {16, 8, 16}, toBf16, false, -126, 60, -126, 60},
                        Case{"f32.tf32.tf32.f32", {16, 8, 32}, toTf32, false, -3, 3, -3, 3},
                        Case{"f32.tf32.tf32.f32", {16, 8, 32}, toTf32, false, -60, 60, -60, 60},
                        Case{"f32.tf32.tf32.f32", {16, 4, 32}, toTf32, false, -40, 40, -40, 40}}) {
    Draw draw;
    const std::string name =
        "mma.sync.aligned.m16n8k" + std::to_string(c.shape.depth) + ".row.col." + std::string(c.types);
    for (int round = 0; round < 20; ++round)
      expectExact(name, c.shape, c.encode, c.halves, draw.matrix(16, c.shape.depth, c.low, c.high),
                  draw.matrix(c.shape.depth, 8, c.low, c.high), draw.matrix(16, 8, c.lowC, c.highC));
  }
}

// Cancellation: what is left lies below everything that one double could have carried along.
TEST(Mma, ExactSumsCancel) {
  Matrix a(16, 16), b(16, 8), c(16, 8);
  for (int row = 0; row < 16; ++row) {
    a.at(row, 0) = 32768;
    a.at(row, 1) = -32768;
    a.at(row, 2) = std::ldexp(1, -24);
  }
  for (int n = 0; n < 8; ++n) {
    b.at(0, n) = b.at(1, n) = 32768;
    b.at(2, n) = std::ldexp(1, -24);
    c.at(0, n) = std::ldexp(1, -100);
  }
  expectExact(kF16, {16, 16, 16}, toF16, false, a, b, c);
  OneWarp warp;
  const std::vector<Lanes> d = warp.run(kF16, operands({16, 16, 16}, a, b, c, toF16), 4);
  EXPECT_EQ(floatOf(d[2][0]), 0x1p-48f);
  warp.options.mma = MmaMode::Truncate;
  EXPECT_EQ(floatOf(warp.run(kF16, operands({16, 16, 16}, a, b, c, toF16), 4)[2][0]), 0.0f);
}

TEST(Mma, SequentialRoundsEachAddition) {
  for (const auto &[types, shape, encode] : {std::tuple{"f16.f16", Shape{16, 16, 16}, Encode(toF16)},
                                             std::tuple{"bf16.bf16", Shape{16, 16, 16}, Encode(toBf16)},
                                             std::tuple{"tf32.tf32", Shape{16, 8, 32}, Encode(toTf32)}}) {
    Draw draw;
    Matrix a = draw.matrix(16, shape.depth, -4, 4), b = draw.matrix(shape.depth, 8, -4, 4),
           c = draw.matrix(16, 8, -4, 4);
    OneWarp warp;
    warp.options.mma = MmaMode::Sequential;
    const std::string name = "mma.sync.aligned.m16n8k" + std::to_string(shape.depth) + ".row.col.f32." + types + ".f32";
    const std::vector<Lanes> d = warp.run(name, operands(shape, a, b, c, encode), 4);
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i) {
        const mma::Place at = isaC(lane, i);
        float sum = float(c.at(at.row, at.column));
        for (int k = 0; k < shape.depth; ++k)
          sum = std::fmaf(float(decoded(encode, a.at(at.row, k))), float(decoded(encode, b.at(k, at.column))), sum);
        EXPECT_EQ(floatOf(d[i][lane]), sum) << name;
      }
  }
}

// 1 + 15 products of 2^-25 and one of 2^-26: what lies below 2^-25 is cut, and the sum is cut to f32.
TEST(Mma, TruncateCutsAddendsAndResult) {
  Matrix a(16, 16), b(16, 8), c(16, 8);
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      a.at(row, k) = std::ldexp(1, k == 15 ? -14 : -13);
  for (int n = 0; n < 8; ++n) {
    for (int k = 0; k < 16; ++k)
      b.at(k, n) = std::ldexp(1, -12);
    c.at(0, n) = c.at(1, n) = 1;
    c.at(1, n) = n % 2 ? 1 : -1;
  }
  OneWarp warp;
  warp.options.mma = MmaMode::Truncate;
  const std::vector<Lanes> d = warp.run(kF16, operands({16, 16, 16}, a, b, c, toF16), 4);
  EXPECT_EQ(floatOf(d[0][0]), 1 + 3 * 0x1p-23f);  // 15 * 2^-25 = 3.75 * 2^-23
  EXPECT_EQ(floatOf(d[0][4]), -1 + 8 * 0x1p-24f); // -(1 - 7.5 * 2^-24), towards zero
}

TEST(Mma, SpecialNumbers) {
  const double infinity = HUGE_VAL, nan = std::nan("");
  for (MmaMode mode : {MmaMode::Exact, MmaMode::Sequential, MmaMode::Truncate}) {
    Matrix a(16, 16), b(16, 8), c(16, 8);
    for (int n = 0; n < 8; ++n)
      b.at(0, n) = b.at(1, n) = 1;
    a.at(0, 0) = infinity;
    a.at(1, 0) = infinity;
    a.at(1, 1) = -infinity;
    a.at(2, 0) = nan;
    a.at(3, 2) = infinity; // times zero
    c.at(4, 0) = -infinity;
    c.at(5, 0) = nan;
    a.at(6, 0) = -0.0;
    c.at(6, 0) = -0.0;
    a.at(7, 0) = 1;
    OneWarp warp;
    warp.options.mma = mode;
    std::vector<Lanes> d = warp.run(kF16, operands({16, 16, 16}, a, b, c, toF16), 4);
    const uint32_t expected[8] = {0x7f800000, 0x7fffffff, 0x7fffffff, 0x7fffffff,
                                  0xff800000, 0x7fffffff, 0,          0x3f800000};
    for (int row = 0; row < 8; ++row)
      EXPECT_EQ(d[0][row * 4], expected[row]) << row << " in mode " << int(mode);
    d = warp.run("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", operands({16, 16, 16}, a, b, c, toF16, true), 2);
    const uint32_t halves[8] = {0x7c00, 0x7fff, 0x7fff, 0x7fff, 0xfc00, 0x7fff, 0, 0x3c00};
    for (int row = 0; row < 8; ++row)
      EXPECT_EQ(d[0][row * 4] & 0xffff, halves[row]) << row << " in mode " << int(mode);
  }
}

TEST(Mma, SubnormalHalvesAreKeptOrFlushed) {
  Matrix a(16, 16), b(16, 8), c(16, 8);
  a.at(0, 0) = std::ldexp(3, -24);
  b.at(0, 0) = 1024;
  b.at(0, 2) = std::ldexp(1, -20);
  a.at(1, 0) = 1024;
  OneWarp warp;
  std::vector<Lanes> d = warp.run(kF16, operands({16, 16, 16}, a, b, c, toF16), 4);
  EXPECT_EQ(floatOf(d[0][0]), 3 * 0x1p-14f);
  EXPECT_EQ(floatOf(d[0][5]), 0x1p-10f);
  warp.options.flushSubnormals = true;
  d = warp.run(kF16, operands({16, 16, 16}, a, b, c, toF16), 4);
  EXPECT_EQ(floatOf(d[0][0]), 0.0f);
  EXPECT_EQ(floatOf(d[0][5]), 0.0f);
}

TEST(Mma, LanesThatAreMissingKeepTheirResults) {
  Draw draw;
  const auto in =
      operands({16, 16, 16}, draw.matrix(16, 16, -2, 2), draw.matrix(16, 8, -2, 2), draw.matrix(16, 8, 0, 1), toF16);
  OneWarp warp;
  const std::vector<Lanes> whole = warp.run(kF16, in, 4), part = warp.run(kF16, in, 4, 0x0000fffe, 77);
  for (int i = 0; i < 4; ++i)
    for (int lane = 0; lane < kLanes; ++lane)
      EXPECT_EQ(part[i][lane], lane >= 1 && lane < 16 ? whole[i][lane] : 77u);
}

TEST(Mma, EightBitFloats) {
  // 1.5 and -2 in e4m3; 1.5 and -2 in e5m2.
  Matrix a(16, 32), b(32, 8), c(16, 8);
  a.at(3, 17) = 1;
  b.at(17, 5) = 1;
  c.at(3, 5) = 0.25;
  struct Case {
    const char *types;
    uint32_t codeA, codeB;
    double product;
  };
  for (const Case &test : {Case{"e4m3.e4m3", 0x3c, 0xc0, -3}, Case{"e4m3.e5m2", 0x3c, 0xc0, -3},
                           Case{"e5m2.e4m3", 0x3e, 0xc0, -3}, Case{"e5m2.e5m2", 0x3e, 0x01, 1.5 * 0x1p-16}}) {
    std::vector<Lanes> in = operands({16, 32, 8}, a, b, c, [&](double v) { return v != 0 ? test.codeA : 0; });
    const std::vector<Lanes> other = operands({16, 32, 8}, a, b, c, [&](double v) { return v != 0 ? test.codeB : 0; });
    in[4] = other[4];
    in[5] = other[5];
    OneWarp warp;
    const auto d = warp.run("mma.sync.aligned.m16n8k32.row.col.f32." + std::string(test.types) + ".f32", in, 4);
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i) {
        const mma::Place at = isaC(lane, i);
        EXPECT_EQ(elementD(d, lane, i, false), at.row == 3 && at.column == 5 ? float(0.25 + test.product) : 0)
            << test.types;
      }
  }
}

TEST(Mma, Integers) {
  std::mt19937 random(11);
  for (const auto &[rows, depth, bits] :
       {std::tuple{8, 16, 8}, {16, 16, 8}, {16, 32, 8}, {8, 32, 4}, {16, 32, 4}, {16, 64, 4}})
    for (int signs = 0; signs < 4; ++signs)
      for (bool saturates : {false, true}) {
        const Shape shape{rows, depth, bits};
        auto fill = [&, bits = bits](Matrix &m, bool isSigned) {
          for (double &value : m.values)
            value = double(int(random() % (1u << bits)) - (isSigned ? 1 << (bits - 1) : 0));
        };
        Matrix a(rows, depth), b(depth, 8), c(rows, 8);
        fill(a, signs & 1);
        fill(b, signs & 2);
        for (double &value : c.values)
          value = random() % 2 ? 2147483647.0 - random() % 500 : -2147483648.0 + random() % 500;
        auto integer = [](double value) { return uint32_t(int64_t(value)); };
        const std::vector<Lanes> in = operands(shape, a, b, c, integer, false, integer);
        const std::string width = std::to_string(bits);
        const std::string name = "mma.sync.aligned.m" + std::to_string(rows) + "n8k" + std::to_string(depth) +
                                 ".row.col" + (saturates ? ".satfinite" : "") + ".s32." + (signs & 1 ? "s" : "u") +
                                 width + "." + (signs & 2 ? "s" : "u") + width + ".s32";
        OneWarp warp;
        const std::vector<Lanes> d = warp.run(name, in, size_t(rows) / 4);
        for (int lane = 0; lane < kLanes; ++lane)
          for (int i = 0; i < rows / 4; ++i) {
            const mma::Place at = isaC(lane, i);
            int64_t sum = int64_t(c.at(at.row, at.column));
            for (int k = 0; k < depth; ++k)
              sum += int64_t(a.at(at.row, k)) * int64_t(b.at(k, at.column));
            if (saturates)
              sum = std::min<int64_t>(std::max<int64_t>(sum, INT32_MIN), INT32_MAX);
            ASSERT_EQ(d[i][lane], uint32_t(sum)) << name;
          }
      }
}

TEST(Mma, Movmatrix) {
  Lanes in;
  for (int lane = 0; lane < kLanes; ++lane) // element (row, column) is 16 row + column
    in[lane] = uint32_t((lane / 4 * 16 + lane % 4 * 2) | (lane / 4 * 16 + lane % 4 * 2 + 1) << 16);
  OneWarp warp;
  const std::vector<Lanes> d = warp.run("movmatrix.sync.aligned.m8n8.trans.b16", {in}, 1, ~1u, 9);
  EXPECT_EQ(d[0][0], 9u);
  for (int lane = 1; lane < kLanes; ++lane) {
    EXPECT_EQ(d[0][lane] & 0xffff, uint32_t(lane % 4 * 2 * 16 + lane / 4));
    EXPECT_EQ(d[0][lane] >> 16, uint32_t((lane % 4 * 2 + 1) * 16 + lane / 4));
  }
}
