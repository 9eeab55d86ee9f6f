// SPDX-License-Identifier: Apache-2.0
//
// mma.sync of single bits: the number of ones in the exclusive or, or the conjunction, of a row and a column, added to
// an s32 that wraps (PTX ISA, "Multiply-and-Accumulate Instruction: mma").
#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/isa/mma.h"
#include "runtime/ptxsim/isa/mma_fragments.h"

#include <bit>
#include <string>

namespace kvq::ptxsim::mma {

namespace {

// Words of 32 bits along k take the place of elements in the layouts.
template <int rows, int words> struct BitProduct {
  static constexpr int halves = rows / 8;
  static constexpr int registersA = halves * words / 4, registersB = words / 4, registersC = 2 * halves;

  template <bool isAnd> static void run(Warp &warp, const Op &op, uint32_t mask) {
    uint32_t a[rows][words], b[kColumns][words];
    for (int r = 0; r < registersA; ++r)
      for (int lane = 0; lane < kLanes; ++lane) {
        const Place place = placeInA(1, halves, r, lane, 0);
        a[place.row][place.column] = warp.at<uint32_t>(op.sources[r])[lane];
      }
    for (int r = 0; r < registersB; ++r)
      for (int lane = 0; lane < kLanes; ++lane) {
        const Place place = placeInB(1, r, lane, 0);
        b[place.column][place.row] = warp.at<uint32_t>(op.sources[registersA + r])[lane];
      }
    for (int r = 0; r < registersC; ++r) {
      const uint32_t *c = warp.at<uint32_t>(op.sources[registersA + registersB + r]);
      uint32_t *d = warp.at<uint32_t>(op.results[r]);
      forLanes(mask, [&](int lane) {
        const Place place = placeInC(1, r, lane, 0);
        uint32_t ones = 0;
        for (int k = 0; k < words; ++k) {
          const uint32_t x = a[place.row][k], y = b[place.column][k];
          ones += uint32_t(std::popcount(isAnd ? x & y : x ^ y));
        }
        d[lane] = c[lane] + ones;
      });
    }
  }

  static void add(Table &table) {
    const std::string accumulator = "b32x" + std::to_string(registersC);
    const std::string operands =
        accumulator + " = b32x" + std::to_string(registersA) + " b32x" + std::to_string(registersB) + " " + accumulator;
    const std::string name = "mma.sync.aligned.m" + std::to_string(rows) + "n8k" + std::to_string(32 * words) +
                             ".row.col.s32.b1.b1.s32{.xor|.and}.popc";
    table
        .add(name.c_str(), operands.c_str(), OpClass::Matrix,
             [](const Form &form) { return form.choice[0] ? Handler(run<true>) : Handler(run<false>); })
        .flow(Flow::Collective);
  }
};

} // namespace

void addBitProducts(Table &table) {
  BitProduct<8, 4>::add(table);
  BitProduct<16, 4>::add(table);
  BitProduct<16, 8>::add(table);
}

} // namespace kvq::ptxsim::mma
