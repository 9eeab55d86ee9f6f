// SPDX-License-Identifier: Apache-2.0
//
// mma.sync of integers of 8 and 4 bits (PTX ISA, "Multiply-and-Accumulate Instruction: mma"): the sum wraps, or with
// .satfinite is limited to the range of s32.
#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/isa/mma.h"
#include "runtime/ptxsim/isa/mma_fragments.h"

#include <algorithm>
#include <string>

namespace kvq::ptxsim::mma {

namespace {

// The element `part` of a register.
template <int bits, bool isSigned> int16_t element(uint32_t word, int part) {
  const uint32_t upper = word << (32 - bits * (part + 1));
  return isSigned ? int16_t(int32_t(upper) >> (32 - bits)) : int16_t(upper >> (32 - bits));
}

template <int bits, bool signedA, bool signedB, int rows, int depth> struct IntegerProduct {
  static constexpr int parts = 32 / bits, halves = rows / 8;
  static constexpr int registersA = rows * depth / parts / kLanes, registersB = kColumns * depth / parts / kLanes;
  static constexpr int registersC = rows * kColumns / kLanes;

  template <bool saturates> static void run(Warp &warp, const Op &op, uint32_t mask) {
    alignas(64) int16_t a[rows][depth], b[kColumns][depth];
    for (int r = 0; r < registersA; ++r) {
      const uint32_t *words = warp.at<uint32_t>(op.sources[r]);
      for (int lane = 0; lane < kLanes; ++lane)
        for (int part = 0; part < parts; ++part) {
          const Place place = placeInA(parts, halves, r, lane, part);
          a[place.row][place.column] = element<bits, signedA>(words[lane], part);
        }
    }
    for (int r = 0; r < registersB; ++r) {
      const uint32_t *words = warp.at<uint32_t>(op.sources[registersA + r]);
      for (int lane = 0; lane < kLanes; ++lane)
        for (int part = 0; part < parts; ++part) {
          const Place place = placeInB(parts, r, lane, part);
          b[place.column][place.row] = element<bits, signedB>(words[lane], part);
        }
    }
    int32_t sums[rows][kColumns]; // below 2^22 in magnitude
    for (int row = 0; row < rows; ++row)
      for (int n = 0; n < kColumns; ++n) {
        int32_t sum = 0;
        for (int k = 0; k < depth; ++k)
          sum += int32_t(a[row][k]) * int32_t(b[n][k]);
        sums[row][n] = sum;
      }
    for (int r = 0; r < registersC; ++r) {
      const int32_t *c = warp.at<int32_t>(op.sources[registersA + registersB + r]);
      uint32_t *d = warp.at<uint32_t>(op.results[r]);
      forLanes(mask, [&](int lane) {
        const Place place = placeInC(1, r, lane, 0);
        int64_t total = int64_t(c[lane]) + sums[place.row][place.column];
        if (saturates)
          total = std::clamp<int64_t>(total, INT32_MIN, INT32_MAX);
        d[lane] = uint32_t(total);
      });
    }
  }

  static void add(Table &table) {
    auto type = [](bool isSigned) { return (isSigned ? "s" : "u") + std::to_string(bits); };
    const std::string types = type(signedA) + "." + type(signedB);
    const std::string shape = "m" + std::to_string(rows) + "n8k" + std::to_string(depth);
    const std::string words = "b32x" + std::to_string(registersC);
    const std::string operands =
        words + " = b32x" + std::to_string(registersA) + " b32x" + std::to_string(registersB) + " " + words;
    for (bool saturates : {false, true}) {
      const std::string name =
          "mma.sync.aligned." + shape + ".row.col" + (saturates ? ".satfinite" : "") + ".s32." + types + ".s32";
      table.add(name.c_str(), operands.c_str(), OpClass::Matrix, saturates ? run<true> : run<false>)
          .flow(Flow::Collective);
    }
  }
};

template <bool signedA, bool signedB> void addSigns(Table &table) {
  IntegerProduct<8, signedA, signedB, 8, 16>::add(table);
  IntegerProduct<8, signedA, signedB, 16, 16>::add(table);
  IntegerProduct<8, signedA, signedB, 16, 32>::add(table);
  IntegerProduct<4, signedA, signedB, 8, 32>::add(table);
  IntegerProduct<4, signedA, signedB, 16, 32>::add(table);
  IntegerProduct<4, signedA, signedB, 16, 64>::add(table);
}

} // namespace

void addIntegerProducts(Table &table) {
  addSigns<true, true>(table);
  addSigns<true, false>(table);
  addSigns<false, true>(table);
  addSigns<false, false>(table);
}

} // namespace kvq::ptxsim::mma
