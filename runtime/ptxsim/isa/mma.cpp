// SPDX-License-Identifier: Apache-2.0
//
// mma.sync of floating-point types (PTX ISA, "Multiply-and-Accumulate Instruction: mma"). The executor has reported
// lanes that are missing; what their registers hold takes part, and their results stay as they were.
#include "runtime/ptxsim/isa/mma.h"

#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/isa/fp8.h"
#include "runtime/ptxsim/isa/mma_sum.h"
#include "runtime/ptxsim/isa/rounding.h"

#include <cstring>

namespace kvq::ptxsim {

namespace mma {

namespace {

// The types: how many lie in a register, their codes without the sign as integers that compare like magnitudes, and the
// value of a code.
template <int exponentBits, int fraction, int bias> struct Layout {
  static constexpr int fractionBits = fraction, least = 1 - bias;
  // The range of numbers from the smallest code above zero to the largest. A special code counts as a large number.
  static BitRange range(int smallest, int largest) {
    if (largest == 0)
      return {};
    const int low = std::max(smallest >> fraction, 1), high = std::max(largest >> fraction, 1);
    return {low - bias - fraction, high - bias + 1};
  }
};
struct Half : Layout<5, 10, 15> {
  using Code = int16_t;
  static constexpr bool small = true; // the product of two is a float
  template <bool flushes> static float value(int16_t code) {
    return halfToFloat(flushes ? flushHalf(uint16_t(code)) : uint16_t(code));
  }
};
struct Brain : Layout<8, 7, 127> {
  using Code = int16_t;
  static constexpr bool small = false;
  template <bool> static float value(int16_t code) { return bfloatToFloat(uint16_t(code)); }
};
// In the upper 19 bits of a register; what is below is ignored.
struct Tensor : Layout<8, 10, 127> {
  using Code = int32_t;
  static constexpr bool small = false;
  static BitRange range(int smallest, int largest) { return Layout::range(smallest >> 13, largest >> 13); }
  template <bool> static float value(int32_t code) { return floatOf(uint32_t(code) & 0xffffe000); }
};
struct Single : Layout<8, 23, 127> {
  using Code = int32_t;
  template <bool> static float value(int32_t code) { return floatOf(uint32_t(code)); }
};
template <typename Small> struct Eight : Layout<Small::exponent, Small::mantissa, Small::bias> {
  using Code = int8_t;
  static constexpr bool small = true;
  template <bool> static float value(int8_t code) { return fromSmall<Small>(uint8_t(code)); }
};

template <typename T> constexpr int kParts = 4 / int(sizeof(typename T::Code));

// The numbers of one register of all lanes: values[lane * parts + part]. Loops over as many codes as fit, for the
// compiler to vectorize.
template <typename T, bool flushes> struct Column {
  static constexpr int count = kLanes * kParts<T>;
  float values[count];
  int smallest, largest;

  explicit Column(const uint32_t *lanes) {
    using Code = typename T::Code;
    constexpr Code most = Code(~(Code(1) << (8 * sizeof(Code) - 1)));
    Code codes[count], low = most, high = 0;
    std::memcpy(codes, lanes, sizeof codes);
    for (int i = 0; i < count; ++i) {
      const Code magnitude = codes[i] & most;
      high = std::max(high, magnitude);
      low = std::min(low, magnitude ? magnitude : most);
    }
    for (int i = 0; i < count; ++i)
      values[i] = T::template value<flushes>(codes[i]);
    smallest = low;
    largest = high;
  }
};

// A fragment into its matrix; place(register, lane, part) says where an element belongs.
template <typename T, bool flushes, typename Matrix, typename Where>
BitRange load(const Warp &warp, const Slot *slots, int registers, Matrix &matrix, Where place) {
  BitRange range;
  for (int r = 0; r < registers; ++r) {
    const Column<T, flushes> column(warp.at<uint32_t>(slots[r]));
    range.add(T::range(column.smallest, column.largest));
    for (int lane = 0; lane < kLanes; ++lane)
      for (int part = 0; part < kParts<T>; ++part) {
        const Place at = place(r, lane, part);
        matrix[at.row][at.column] = double(column.values[lane * kParts<T> + part]);
      }
  }
  return range;
}

template <typename T> uint32_t code(double sum) {
  if constexpr (std::is_same_v<T, Half>)
    return floatToHalf(doubleToOdd(sum));
  return bitsOf(canonical(float(sum)));
}

template <typename T> void storeD(Warp &warp, const Op &op, uint32_t mask, const Sums &sums) {
  for (int r = 0; r < 4 / kParts<T>; ++r) {
    uint32_t words[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      words[lane] = 0;
      for (int part = 0; part < kParts<T>; ++part) {
        const Place place = placeInC(kParts<T>, r, lane, part);
        words[lane] |= code<T>(sums.d[place.row][place.column]) << 16 * part;
      }
    }
    uint32_t *to = warp.at<uint32_t>(op.results[r]);
    forLanes(mask, [&](int lane) { to[lane] = words[lane]; });
  }
}

template <typename A, typename B, typename C, int depth> struct Product {
  static constexpr int registersA = kMaxRows * depth / kParts<A> / kLanes;
  static constexpr int registersB = kColumns * depth / kParts<B> / kLanes;

  template <bool flushes> static void loadAll(const Warp &warp, const Op &op, Matrices &m) {
    const Slot *a = op.sources, *b = a + registersA, *c = b + registersB;
    m.rangeA = load<A, flushes>(warp, a, registersA, m.a,
                                [](int r, int lane, int part) { return placeInA(kParts<A>, 2, r, lane, part); });
    m.rangeB = load<B, flushes>(warp, b, registersB, m.b,
                                [](int r, int lane, int part) { return placeInB(kParts<B>, r, lane, part); });
    m.rangeC = load<C, flushes>(warp, c, 4 / kParts<C>, m.c,
                                [](int r, int lane, int part) { return placeInC(kParts<C>, r, lane, part); });
  }

  static void run(Warp &warp, const Op &op, uint32_t mask) {
    const Options &options = warp.worker->launch->options;
    Matrices m;
    Sums sums;
    m.depth = depth;
    m.exactFloat = A::small && B::small;
    m.eights = kParts<A> == 4;
    m.halves = std::is_same_v<C, Half>;
    m.leastA = A::least;
    m.leastB = B::least;
    m.leastC = C::least;
    if (options.flushSubnormals)
      loadAll<true>(warp, op, m);
    else
      loadAll<false>(warp, op, m);
    switch (options.mma) {
    case MmaMode::Exact:
      sumExact(m, sums);
      break;
    case MmaMode::Sequential:
      sumSequential(m, sums);
      break;
    case MmaMode::Truncate:
      sumTruncated(m, sums, kKeptBits);
      break;
    }
    storeD<C>(warp, op, mask, sums);
  }

  static void add(Table &table, const std::string &types) {
    constexpr bool half = std::is_same_v<C, Half>;
    const std::string accumulator = half ? "f16" : "f32", words = half ? "b32x2" : "f32x4";
    const std::string name =
        "mma.sync.aligned.m16n8k" + std::to_string(depth) + ".row.col." + accumulator + "." + types + "." + accumulator;
    const std::string operands =
        words + " = b32x" + std::to_string(registersA) + " b32x" + std::to_string(registersB) + " " + words;
    table.add(name.c_str(), operands.c_str(), OpClass::Matrix, run).flow(Flow::Collective);
  }
};

template <typename A, typename B> void addEights(Table &table, const std::string &types) {
  Product<A, B, Single, 16>::add(table, types);
  Product<A, B, Single, 32>::add(table, types);
  Product<A, B, Half, 16>::add(table, types);
  Product<A, B, Half, 32>::add(table, types);
}

} // namespace

void addFloatProducts(Table &table) {
  Product<Half, Half, Single, 8>::add(table, "f16.f16");
  Product<Half, Half, Single, 16>::add(table, "f16.f16");
  Product<Half, Half, Half, 8>::add(table, "f16.f16");
  Product<Half, Half, Half, 16>::add(table, "f16.f16");
  Product<Brain, Brain, Single, 8>::add(table, "bf16.bf16");
  Product<Brain, Brain, Single, 16>::add(table, "bf16.bf16");
  Product<Tensor, Tensor, Single, 4>::add(table, "tf32.tf32");
  Product<Tensor, Tensor, Single, 8>::add(table, "tf32.tf32");
  addEights<Eight<E4m3>, Eight<E4m3>>(table, "e4m3.e4m3");
  addEights<Eight<E4m3>, Eight<E5m2>>(table, "e4m3.e5m2");
  addEights<Eight<E5m2>, Eight<E4m3>>(table, "e5m2.e4m3");
  addEights<Eight<E5m2>, Eight<E5m2>>(table, "e5m2.e5m2");
}

} // namespace mma

void addMatrix(Table &table) {
  mma::addFloatProducts(table);
  mma::addDoubleProducts(table);
  mma::addBitProducts(table);
  mma::addIntegerProducts(table);
  mma::addTranspose(table);
}

} // namespace kvq::ptxsim
