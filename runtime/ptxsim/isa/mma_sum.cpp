// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/isa/mma_sum.h"

#include "runtime/ptxsim/isa/rounding.h"

#include <bit>
#include <cmath>
#include <numeric>

namespace kvq::ptxsim::mma {

namespace {

constexpr int kLogDepth[] = {0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4,
                             0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5};

// The range of a sum of `1 << logDepth` products.
BitRange productRange(const Matrices &matrices) {
  if (matrices.rangeA.empty() || matrices.rangeB.empty())
    return {};
  return {matrices.rangeA.lowest + matrices.rangeB.lowest,
          matrices.rangeA.above + matrices.rangeB.above + kLogDepth[matrices.depth]};
}

// The products of a row of A and the columns of B, and what they are added to.
template <int depth> void addProducts(const Matrices &m, int row, const double *start, double *out) {
  double sum[kColumns];
  for (int n = 0; n < kColumns; ++n)
    sum[n] = start[n];
  for (int k = 0; k < depth; ++k)
    for (int n = 0; n < kColumns; ++n)
      sum[n] += m.a[row][k] * m.b[k][n];
  for (int n = 0; n < kColumns; ++n)
    out[n] = sum[n];
}

template <int depth> void addAllProducts(const Matrices &m, bool fromC, Sums &sums) {
  static constexpr double zeros[kColumns] = {};
  for (int row = 0; row < kMaxRows; ++row)
    addProducts<depth>(m, row, fromC ? m.c[row] : zeros, sums.d[row]);
}

void addAllProducts(const Matrices &m, bool fromC, Sums &sums) {
  switch (m.depth) {
  case 4:
    return addAllProducts<4>(m, fromC, sums);
  case 8:
    return addAllProducts<8>(m, fromC, sums);
  case 16:
    return addAllProducts<16>(m, fromC, sums);
  default:
    return addAllProducts<32>(m, fromC, sums);
  }
}

// The exact sum of finite doubles, rounded to odd. Partial sums that do not overlap each other hold it exactly (J. R.
// Shewchuk, Adaptive precision floating-point arithmetic, 1997, GROW-EXPANSION); from the largest downwards the first
// inexact addition leaves an error that decides on which side of its result the exact sum lies, whatever is below it.
double exactToOdd(const double *terms, int count) {
  double partials[33 + 1];
  int used = 0;
  for (int i = 0; i < count; ++i) {
    double x = terms[i];
    int kept = 0;
    for (int j = 0; j < used; ++j) {
      double y = partials[j];
      if (std::fabs(x) < std::fabs(y))
        std::swap(x, y);
      const double high = x + y, low = y - (high - x);
      if (low != 0)
        partials[kept++] = low;
      x = high;
    }
    partials[kept++] = x;
    used = kept;
  }
  double high = partials[--used];
  while (used > 0) {
    const double low = partials[--used], sum = high + low;
    if (low - (sum - high) != 0)
      return addToOdd(high, low);
    high = sum;
  }
  return high;
}

BitRange rangeOf(double value) {
  if (value == 0 || !std::isfinite(value))
    return {};
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const int exponent = int(bits >> 52 & 0x7ff) - 1023;
  const uint64_t significand = (bits & ((uint64_t(1) << 52) - 1)) | uint64_t(1) << 52;
  return {exponent - 52 + std::countr_zero(significand), exponent + 1};
}

// Rows and columns whose products do not fit a double are added again, element by element.
void repairWideSums(const Matrices &m, Sums &sums) {
  BitRange rows[kMaxRows], columns[kColumns];
  for (int row = 0; row < kMaxRows; ++row)
    for (int k = 0; k < m.depth; ++k)
      rows[row].add(rangeOf(m.a[row][k]));
  for (int n = 0; n < kColumns; ++n)
    for (int k = 0; k < m.depth; ++k)
      columns[n].add(rangeOf(m.b[k][n]));
  for (int row = 0; row < kMaxRows; ++row) {
    for (int n = 0; n < kColumns; ++n) {
      const bool empty = rows[row].empty() || columns[n].empty();
      const BitRange range{rows[row].lowest + columns[n].lowest,
                           rows[row].above + columns[n].above + kLogDepth[m.depth]};
      if (empty || range.fitsDouble() || !std::isfinite(sums.d[row][n]))
        continue;
      double terms[33];
      for (int k = 0; k < m.depth; ++k)
        terms[k] = m.a[row][k] * m.b[k][n];
      terms[m.depth] = m.c[row][n];
      sums.d[row][n] = exactToOdd(terms, m.depth + 1);
    }
  }
}

} // namespace

// Three ways, each exact where it is taken. All addends are multiples of one power of two and every partial sum is less
// than 2^53 times that: then doubles add them without error. The same for the products alone: then the accumulator is
// added last, rounded to odd, which a later rounding to fewer bits does not notice. Else: expansions, where needed.
void sumExact(const Matrices &m, Sums &sums) {
  const BitRange products = productRange(m);
  BitRange all = products;
  all.add(m.rangeC);
  all.above += 1;
  if (all.fitsDouble()) {
    addAllProducts(m, true, sums);
  } else {
    addAllProducts(m, false, sums);
    for (int row = 0; row < kMaxRows; ++row)
      for (int n = 0; n < kColumns; ++n)
        sums.d[row][n] = addToOdd(sums.d[row][n], m.c[row][n]);
    if (!products.fitsDouble())
      repairWideSums(m, sums);
  }
  for (int row = 0; row < kMaxRows; ++row)
    for (int n = 0; n < kColumns; ++n)
      sums.d[row][n] += 0.0;
}

void sumSequential(const Matrices &m, Sums &sums) {
  for (int row = 0; row < kMaxRows; ++row) {
    float sum[kColumns];
    for (int n = 0; n < kColumns; ++n)
      sum[n] = float(m.c[row][n]);
    for (int k = 0; k < m.depth; ++k) {
      const float a = float(m.a[row][k]);
      if (m.exactFloat)
        for (int n = 0; n < kColumns; ++n)
          sum[n] += a * float(m.b[k][n]);
      else
        for (int n = 0; n < kColumns; ++n)
          sum[n] = fmaRounded<Rn>(a, float(m.b[k][n]), sum[n]);
    }
    for (int n = 0; n < kColumns; ++n)
      sums.d[row][n] = double(sum[n]) + 0.0;
  }
}

namespace {

constexpr int kZero = -(1 << 20); // the exponent of a zero: never the largest

int exponentOf(double value, int least) {
  const int exponent = int(std::bit_cast<uint64_t>(value) >> 52 & 0x7ff) - 1023;
  return value == 0 ? kZero : std::max(exponent, least);
}

double power(int exponent) { return std::bit_cast<double>(uint64_t(exponent + 1023) << 52); }

// Towards zero, for magnitudes below 2^51: to the nearest integer and, where that is larger, one back.
double cut(double value) {
  constexpr double shift = 0x1p52;
  const double magnitude = std::fabs(value);
  const double near = (magnitude + shift) - shift;
  return std::copysign(near > magnitude ? near - 1 : near, value);
}

// To f32 towards zero, beyond the range to infinity; or to f16 to nearest. A zero is +0.
double roundTruncated(double sum, bool half) {
  if (half)
    return double(halfToFloat(floatToHalf(doubleToOdd(sum)))) + 0.0;
  if (std::fabs(sum) >= 0x1p128)
    return std::copysign(HUGE_VAL, sum);
  return double(roundToFloat<Rz>(sum)) + 0.0;
}

struct Exponents {
  int a[kMaxRows][32], b[32][kColumns];
};

// One block: the products of `count` places along k are added to `start`, which may be `out`.
void addBlock(const Matrices &m, const Exponents &exponents, const int *places, int count, int kept,
              const double (&start)[kMaxRows][kColumns], double (&out)[kMaxRows][kColumns]) {
  for (int row = 0; row < kMaxRows; ++row) {
    int largest[kColumns];
    double scale[kColumns], total[kColumns], plain[kColumns];
    for (int n = 0; n < kColumns; ++n)
      largest[n] = exponentOf(start[row][n], m.leastC);
    for (int i = 0; i < count; ++i)
      for (int n = 0; n < kColumns; ++n)
        largest[n] = std::max(largest[n], exponents.a[row][places[i]] + exponents.b[places[i]][n]);
    for (int n = 0; n < kColumns; ++n) {
      largest[n] = largest[n] < -1000 ? 0 : std::min(largest[n], 512);
      scale[n] = power(kept - largest[n]);
      plain[n] = start[row][n];
      total[n] = cut(start[row][n] * scale[n]);
    }
    for (int i = 0; i < count; ++i)
      for (int n = 0; n < kColumns; ++n) {
        const double product = m.a[row][places[i]] * m.b[places[i]][n];
        plain[n] += product;
        total[n] += cut(product * scale[n]);
      }
    for (int n = 0; n < kColumns; ++n) {
      const double result = roundTruncated(total[n] * power(largest[n] - kept), m.halves);
      out[row][n] = std::isfinite(plain[n]) ? result : plain[n];
    }
  }
}

} // namespace

void sumTruncated(const Matrices &m, Sums &sums, int kept) {
  Exponents exponents;
  int places[32];
  for (int row = 0; row < kMaxRows; ++row)
    for (int k = 0; k < m.depth; ++k)
      exponents.a[row][k] = exponentOf(m.a[row][k], m.leastA);
  for (int k = 0; k < m.depth; ++k)
    for (int n = 0; n < kColumns; ++n)
      exponents.b[k][n] = exponentOf(m.b[k][n], m.leastB);
  if (!m.eights) {
    std::iota(places, places + m.depth, 0);
    return addBlock(m, exponents, places, m.depth, kept, m.c, sums.d);
  }
  static constexpr double zeros[kMaxRows][kColumns] = {};
  for (int pair = 0; pair < 2; ++pair) {
    for (int i = 0; i < m.depth / 2; ++i)
      places[i] = i / 2 * 4 + 2 * pair + i % 2;
    addBlock(m, exponents, places, m.depth / 2, kept, pair ? sums.d : zeros, sums.d);
  }
  for (int row = 0; row < kMaxRows; ++row)
    for (int n = 0; n < kColumns; ++n)
      sums.d[row][n] = addToOdd(sums.d[row][n], m.c[row][n]);
}

} // namespace kvq::ptxsim::mma
