// SPDX-License-Identifier: Apache-2.0
//
// mma.sync of f64 (PTX ISA, "Multiply-and-Accumulate Instruction: mma"): one fused multiply-add after the other in the
// order of k, in every mode. An H200 gives the same bits (tests/ptxsim/golden).
#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/isa/mma.h"
#include "runtime/ptxsim/isa/mma_fragments.h"

#include <bit>
#include <cmath>
#include <string>

namespace kvq::ptxsim::mma {

namespace {

// A NaN is B's, else the accumulator's, else A's, made quiet; one that only this operation makes is negative. An H200's
// choice, which the ISA leaves open.
double multiplyAdd(double a, double b, double c) {
  const double result = std::fma(a, b, c);
  if (!std::isnan(result))
    return result;
  const double source = std::isnan(b) ? b : std::isnan(c) ? c : a;
  return std::bit_cast<double>(std::isnan(source) ? std::bit_cast<uint64_t>(source) | uint64_t(1) << 51
                                                  : uint64_t(0xfff8) << 48);
}

template <int rows, int depth> struct DoubleProduct {
  static constexpr int halves = rows / 8;
  static constexpr int registersA = halves * depth / 4, registersB = depth / 4, registersC = 2 * halves;

  static void run(Warp &warp, const Op &op, uint32_t mask) {
    double a[rows][depth], b[depth][kColumns], sums[registersC][kLanes];
    for (int r = 0; r < registersA; ++r)
      for (int lane = 0; lane < kLanes; ++lane) {
        const Place place = placeInA(1, halves, r, lane, 0);
        a[place.row][place.column] = warp.at<double>(op.sources[r])[lane];
      }
    for (int r = 0; r < registersB; ++r)
      for (int lane = 0; lane < kLanes; ++lane) {
        const Place place = placeInB(1, r, lane, 0);
        b[place.row][place.column] = warp.at<double>(op.sources[registersA + r])[lane];
      }
    for (int r = 0; r < registersC; ++r)
      for (int lane = 0; lane < kLanes; ++lane) {
        const Place place = placeInC(1, r, lane, 0);
        double sum = warp.at<double>(op.sources[registersA + registersB + r])[lane];
        for (int k = 0; k < depth; ++k)
          sum = multiplyAdd(a[place.row][k], b[k][place.column], sum);
        sums[r][lane] = sum;
      }
    for (int r = 0; r < registersC; ++r) {
      double *d = warp.at<double>(op.results[r]);
      forLanes(mask, [&](int lane) { d[lane] = sums[r][lane]; });
    }
  }

  static void add(Table &table) {
    const std::string accumulator = "f64x" + std::to_string(registersC);
    const std::string operands =
        accumulator + " = f64x" + std::to_string(registersA) + " f64x" + std::to_string(registersB) + " " + accumulator;
    const std::string name =
        "mma.sync.aligned.m" + std::to_string(rows) + "n8k" + std::to_string(depth) + ".row.col.f64.f64.f64.f64";
    table.add(name.c_str(), operands.c_str(), OpClass::Matrix, run).flow(Flow::Collective);
  }
};

} // namespace

void addDoubleProducts(Table &table) {
  DoubleProduct<8, 4>::add(table);
  DoubleProduct<16, 4>::add(table);
  DoubleProduct<16, 8>::add(table);
  DoubleProduct<16, 16>::add(table);
}

} // namespace kvq::ptxsim::mma
