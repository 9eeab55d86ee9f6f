// SPDX-License-Identifier: Apache-2.0
//
// Which element of a matrix a thread's register holds (PTX ISA, "Matrix Fragments for mma.m16n8k4" to "mma.m16n8k256"
// and "mma.m8n8k16", "mma.m8n8k32"). The figures of all shapes that are implemented are one rule: with P elements in a
// register, four threads hold 4 P neighbours in the direction of k, the eight groups of four threads hold rows (of B
// and of the accumulators' columns: columns), and further registers go on below row 8 first and then along k.
#pragma once

namespace kvq::ptxsim::mma {

inline constexpr int kColumns = 8;   // n of every shape
inline constexpr int kMaxRows = 16;  // m
inline constexpr int kMaxDepth = 64; // k

struct Place {
  int row, column;
};

// A, m x k; halves: registers of a thread that lie below each other, m / 8.
constexpr Place placeInA(int parts, int halves, int reg, int lane, int part) {
  return {(lane >> 2) + 8 * (reg % halves), parts * (lane & 3) + part + 4 * parts * (reg / halves)};
}

// B, k x n.
constexpr Place placeInB(int parts, int reg, int lane, int part) {
  return {parts * (lane & 3) + part + 4 * parts * reg, lane >> 2};
}

// C and D, m x n: two neighbours of a row for each thread, in one register of 16-bit halves or in two registers.
constexpr Place placeInC(int parts, int reg, int lane, int part) {
  const int pair = reg * parts + part;
  return {(lane >> 2) + 8 * (pair >> 1), 2 * (lane & 3) + (pair & 1)};
}

} // namespace kvq::ptxsim::mma
