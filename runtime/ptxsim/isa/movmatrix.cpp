// SPDX-License-Identifier: Apache-2.0
//
// movmatrix: an 8x8 matrix of 16-bit elements, transposed across the registers of a warp (PTX ISA, "Warp-level matrix
// transpose instruction: movmatrix"). Thread t holds elements 2 (t % 4) and 2 (t % 4) + 1 of row t / 4.
#include "runtime/ptxsim/exec/warp.h"
#include "runtime/ptxsim/isa/mma.h"

#include <algorithm>

namespace kvq::ptxsim::mma {

namespace {

void transpose(Warp &warp, const Op &op, uint32_t mask) {
  uint32_t words[kLanes];
  std::copy_n(warp.at<uint32_t>(op.sources[0]), kLanes, words);
  const auto at = [&](int row, int column) { return words[4 * row + column / 2] >> 16 * (column & 1) & 0xffff; };
  uint32_t *to = warp.at<uint32_t>(op.results[0]);
  forLanes(mask, [&](int lane) {
    const int row = lane >> 2, column = 2 * (lane & 3);
    to[lane] = at(column, row) | at(column + 1, row) << 16;
  });
}

} // namespace

void addTranspose(Table &table) {
  table.add("movmatrix.sync.aligned.m8n8.trans.b16", "b32 = b32", OpClass::Warp, transpose).flow(Flow::Collective);
}

} // namespace kvq::ptxsim::mma
