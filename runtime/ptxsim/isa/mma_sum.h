// SPDX-License-Identifier: Apache-2.0
//
// D = A B + C for one warp's matrices, in the accumulation modes of Options.
#pragma once

#include "runtime/ptxsim/isa/mma_fragments.h"
#include "runtime/ptxsim/options.h"

#include <algorithm>
#include <climits>

namespace kvq::ptxsim::mma {

// Every finite element that is not zero is a multiple of 2^lowest, and smaller in magnitude than 2^above. Without such
// an element the range is empty.
struct BitRange {
  int lowest = kNone, above = -kNone;
  static constexpr int kNone = 1 << 20;
  bool empty() const { return above < lowest; }
  void add(BitRange other) {
    lowest = std::min(lowest, other.lowest);
    above = std::max(above, other.above);
  }
  bool fitsDouble() const { return empty() || above - lowest <= 53; }
};

// Numbers as doubles, which hold them and the product of any two exactly.
struct Matrices {
  int depth = 0;                          // k
  bool exactFloat = false;                // a product of two elements is a float
  bool eights = false;                    // A and B are of 8-bit floats
  bool halves = false;                    // C and D are of f16, not f32
  int leastA = 0, leastB = 0, leastC = 0; // exponents of the smallest normal numbers of the types
  BitRange rangeA, rangeB, rangeC;
  alignas(64) double a[kMaxRows][32];
  alignas(64) double b[32][kColumns];
  alignas(64) double c[kMaxRows][kColumns];
};

// Doubles whose rounding to nearest in the type of D is the result. NaN and infinities as IEEE 754 has them.
struct Sums {
  alignas(64) double d[kMaxRows][kColumns];
};

// Exact: the exact sum, rounded to odd where a double does not hold it. A sum of zero is +0.
void sumExact(const Matrices &matrices, Sums &sums);

// Sequential: C, then the products in the order of k, each addition rounded to f32.
void sumSequential(const Matrices &matrices, Sums &sums);

// Truncate: as tensor cores add (M. Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021). Of each addend stays
// what lies above 2^-kept of the largest exponent, that of a product being the sum of its factors'; the exact sum of
// these is cut to f32, or rounded to nearest in f16, and a zero is +0. All of k is one block. Products of 8-bit floats
// are added in two blocks of alternate pairs along k, and C last, rounded to nearest. With kept = 25 an H200 gives the
// same bits for every type (tests/ptxsim/golden).
void sumTruncated(const Matrices &matrices, Sums &sums, int kept);

inline constexpr int kKeptBits = 25;

} // namespace kvq::ptxsim::mma
